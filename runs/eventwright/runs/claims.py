"""How a run comes into the hands of a worker, and out of them when the worker cannot go on.

All runs of a worker that dies count a crash, for nobody knows which of them killed it. A run whose second worker in a
row died while it stood at the same place is suspect: from then on a worker holds one suspect at a time. Whoever is
innocent comes to the end of its segment, or at least further, and is suspect no more; whoever is not soon dies without
company, and is put aside. Runs that their workers lost because the database was away count no crash.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from eventwright.runs import schema
from eventwright.runs.batch import Batch, Step, Unit
from eventwright.runs.database import padded
from eventwright.runs.errors import UnknownRun
from eventwright.runs.event import new_id
from eventwright.runs.records import GOES, WAITS, Claim, Due, EffectState, JournalEntry, JournalKind, Lease
from eventwright.runs.states import CLAIMABLE, RunState
from eventwright.runs.turns import Place

#: So many workers died while the run stood at the same place: it is suspect, and then taken out of the queue.
SUSPECT, MOST_CRASHES = 2, 4
#: When a run is looked at again of whose line nobody could say who is first, in seconds.
SOON = 1.0


class ClaimVerbs:
    """The verbs by which workers take runs and give them up, of `Transaction`."""

    unit: Unit

    def claim(self, run_id: str, *, worker: str, seconds: float) -> Claim:
        """Take the run for `seconds` if it is due; every worker that held it before is fenced off.

        A run whose worker died counts a crash. It is left alone while it waits for its turn, or is suspect and the
        worker holds another suspect. The bells that rang for it are done with.
        """
        claim = Claim()

        def step(batch: Batch) -> None:
            claim.lease = claim.run = None  # a batch may be tried again
            row = batch.run(run_id)
            # A bell that rang in vain is done with as well: whatever comes due later is found by the sweep.
            batch.silence(run_id)
            state = RunState(row["state"])
            if state not in CLAIMABLE or row["due_at"] is None or row["due_at"] > batch.now:
                return
            if not (_has_its_turn(batch, row) and _is_no_danger(batch, row, worker, seconds)):
                return
            due = Due(state, (batch.now - row["due_at"]).total_seconds())
            batch.change(
                run_id,
                state=str(RunState.PROCESSING),
                fence=row["fence"] + 1,
                worker=worker,
                due_at=batch.now + timedelta(seconds=seconds),
                turn=None if row["serial_key"] is None else GOES,
            )
            data = {"from": str(state), "to": str(RunState.PROCESSING), "fence": row["fence"]}
            if state is RunState.PROCESSING:
                data |= {"taken_over": True, "crashes": row["crashes"]}
            batch.journal(JournalEntry(run_id=run_id, kind=JournalKind.TRANSITION, actor=worker, data=data))
            claim.lease = Lease(run_id, row["fence"], worker, due)
            batch.claims[run_id] = claim

        self._at(run_id, step)
        return claim

    def give_up(self, run_id: str, *, worker: str) -> None:
        """Let the run go when its lease ends, for its worker has to stop in the middle of it; that is no crash. A run
        in other hands is left alone."""

        def step(batch: Batch) -> None:
            if batch.run(run_id)["worker"] == worker:
                batch.change(run_id, worker=None)

        self._at(run_id, step)

    def excuse(self, run_ids: Collection[str], *, worker: str) -> None:
        """The database was away. Whose lease ended meanwhile could not renew it, and these runs this worker has let go
        alive: none of them counts a crash. They are taken up when they are due, as they would have been."""

        def step(batch: Batch) -> None:
            batch.catch_up()
            lost = sa.or_(_runs.due_at <= batch.now, sa.and_(_runs.worker == worker, _runs.id.in_(padded(run_ids))))
            held = sa.and_(_runs.state == str(RunState.PROCESSING), _runs.worker.is_not(None))
            # Locked in the order in which everybody locks runs; what somebody takes just now needs no excuse from here.
            found = sa.select(_runs.id).where(held, lost).order_by(_runs.id).with_for_update(skip_locked=True)
            excused = sa.update(schema.runs).where(_runs.id.in_(found)).values(worker=None).returning(_runs.id)
            _tell(batch, batch.execute(excused).scalars().all(), worker=None)

        self.unit.steps.append(step)

    def count_idle(self, run_id: str, segments: int) -> None:
        """So many segments in a row have brought the run nowhere."""
        self._at(run_id, lambda batch: batch.change(run_id, idle=segments))

    def blame(self, run_id: str, *, worker: str, node: str, seconds: float) -> None:
        """A node of this run has blocked its worker for so long: the worker loses all its runs when their leases end.
        That counts as a crash of this run, which is suspect at once, and of no other."""
        others = (
            sa.update(schema.runs).where(_held_by(worker), _runs.id != run_id).values(worker=None).returning(_runs.id)
        )

        def step(batch: Batch) -> None:
            row = batch.run(run_id)
            if row["worker"] != worker or row["state"] != RunState.PROCESSING:
                return
            _count_crash(batch, row, at_least=SUSPECT)
            data = {
                "text": "this node blocked its worker, which lost all its runs",
                "seconds": round(seconds, 1),
                "crashes": row["crashes"],
            }
            batch.journal(JournalEntry(run_id=run_id, kind=JournalKind.NOTE, actor=worker, data=data, node=node))
            batch.catch_up()
            _tell(batch, batch.execute(others).scalars().all(), worker=None)

        self._at(run_id, step)

    def wake_next_suspect(self) -> None:
        """A suspect has come out of its worker's hands alive: ring for the next one, if any waits."""
        wakeup_id = new_id("wake")

        def step(batch: Batch) -> None:
            batch.catch_up()
            found = batch.execute(_NEXT_SUSPECT).mappings().one_or_none()
            if found is not None:
                batch.execute(sa.update(schema.runs).where(_runs.id == found["id"]).values(due_at=batch.now))
                bell = {"id": wakeup_id, "run_id": found["id"], "lane": found["lane"], "created_at": batch.now}
                batch.execute(sa.insert(schema.wakeups), bell)
                _tell(batch, [found["id"]], due_at=batch.now)

        self.unit.steps.append(step)

    def _at(self, run_id: str, step: Step) -> None:
        self.unit.run_ids.add(run_id)
        self.unit.steps.append(step)


def _has_its_turn(batch: Batch, row: dict[str, Any]) -> bool:
    """Whether no other run of the same key goes before this one; else it waits until it is made due."""
    if row["serial_key"] is None or row["turn"] == GOES:
        return True
    place = batch.place(row)
    if place is not Place.FIRST:
        # One that was held has not stood in line until now.
        due_at = None if place is Place.BEHIND else batch.now + timedelta(seconds=SOON)
        batch.change(row["id"], due_at=due_at, turn=WAITS)
    return place is Place.FIRST


def _is_no_danger(batch: Batch, row: dict[str, Any], worker: str, seconds: float) -> bool:
    """Count the crash if the run's worker died; whether this worker may take it: a suspect only if it holds no other,
    else it waits for another worker, or for the next time."""
    died = row["worker"]
    if died is not None:
        _count_crash(batch, row)
    if not SUSPECT <= row["crashes"] < MOST_CRASHES:
        return True
    batch.catch_up()
    if batch.execute(_SUSPECTS.where(_held_by(worker), _runs.id != row["id"])).first() is None:
        return True
    batch.change(row["id"], worker=None, due_at=batch.now + timedelta(seconds=seconds))
    if died is not None:
        data = {"text": "its worker died; as a suspect it waits for one that holds no other", "crashes": row["crashes"]}
        batch.journal(JournalEntry(run_id=row["id"], kind=JournalKind.NOTE, actor=worker, data=data))
    return False


def _tell(batch: Batch, run_ids: Collection[str], **columns: Any) -> None:
    """These runs were changed by a statement. Another unit of the batch may have named one of them: it goes on from
    there, and does not write back what it was before."""
    for run_id in run_ids:
        with suppress(UnknownRun):
            batch.change(run_id, **columns)


def _count_crash(batch: Batch, row: dict[str, Any], *, at_least: int = 1) -> None:
    """One more if the run stands where it stood when its last worker died, else the first. It has no worker now."""
    found = {"thread": _thread_of(row), "run": row["id"]}
    place = batch.execute(_STANDS_AT, found).one()
    stood_at = f"{place.checkpoint or ''}:{place.effects}"
    crashes = row["crashes"] + 1 if row["stood_at"] == stood_at else 1
    batch.change(row["id"], crashes=max(crashes, at_least), stood_at=stood_at, worker=None)


def _thread_of(row: dict[str, Any]) -> str:
    return row["id"] if row["generation"] == 0 else f"{row['id']}:{row['generation']}"


_runs = schema.runs.c


def _held_by(worker: str) -> sa.ColumnElement[bool]:
    return sa.and_(_runs.state == str(RunState.PROCESSING), _runs.worker == worker)


_SUSPECTS = sa.select(_runs.id, _runs.lane).where(_runs.crashes >= SUSPECT)
#: The oldest, whose id is the least: one that was turned away is due later than those that came after it, and would
#: wait for as long as others come. One that somebody changes just now is left to them: whoever is overlooked here comes
#: due by itself.
_NEXT_SUSPECT = (
    _SUSPECTS.where(_runs.state == str(RunState.PROCESSING), _runs.worker.is_(None))
    .order_by(_runs.id)
    .limit(1)
    .with_for_update(skip_locked=True)
)
#: What a run has done: its newest checkpoint, also of a graph in the graph, and how many calls.
_STANDS_AT = sa.select(
    sa.select(sa.func.max(schema.checkpoints.c.id))
    .where(schema.checkpoints.c.thread_id == sa.bindparam("thread"))
    .scalar_subquery()
    .label("checkpoint"),
    sa.select(sa.func.count())
    .where(schema.effects.c.run_id == sa.bindparam("run"), schema.effects.c.state == str(EffectState.DONE))
    .scalar_subquery()
    .label("effects"),
)
