"""A store machine's rules about events, workers and operators, and how each step is written and compared.

Each step adds verbs to a transaction. Transactions are committed one by one or several at once; what the store answers
then is compared with what the model says (`reference.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from tests.conformance.reference import Reference, Unit
from tests.conformance.reference_place import Place, assert_told, expected
from tests.conformance.world import event, question

from eventwright.runs.records import (
    WAITS,
    EventState,
    Lease,
    Run,
)
from eventwright.runs.states import Outcome, Reason, RunState


class Then(Enum):
    """What comes after a verb."""

    COMMIT = "its transaction is committed, with those that wait"
    GO_ON = "the next verb is in the same transaction"
    WAIT = "its transaction is committed together with the next"


THEN = some.sampled_from([Then.COMMIT, Then.COMMIT, Then.GO_ON, Then.WAIT])
WORKERS = some.sampled_from(["worker 1", "worker 2", "worker 3"])
PEOPLE = some.sampled_from(["ann", "bob", "Ann "])
CALLS = some.sampled_from(["call 1", "call 2"])
SECONDS = some.sampled_from([0, 3, 6, 30])
AMOUNTS = some.sampled_from([Decimal(0), Decimal(1), Decimal("2.5")])
MOSTS = some.sampled_from([None, Decimal(0), Decimal(3)])
SPANS = some.sampled_from([None, timedelta(0), timedelta(days=7)])
NOBODY = "run of nobody"


def among(pick: Callable[[WorkMachine], Collection[Any]]) -> some.SearchStrategy[Any]:
    """One of what there is by then."""
    return some.runner().flatmap(lambda machine: some.sampled_from(list(pick(machine))))


RUN = among(lambda machine: [*machine.model.runs])
ANY_RUN = among(lambda machine: [*machine.model.runs, NOBODY])
LEASE = among(lambda machine: machine.leases)
REVIEW = among(lambda machine: [*machine.model.reviews])
EFFECT = among(lambda machine: [*machine.model.effects])
SOME_RUNS = among(lambda machine: [*machine.model.runs]).flatmap(
    lambda one: some.sets(RUN, max_size=2).map(lambda more: sorted({one, *more}))
)
there_are_runs = precondition(lambda machine: machine.model.runs)
there_are_leases = precondition(lambda machine: machine.leases)
there_are_reviews = precondition(lambda machine: machine.model.reviews)
there_are_effects = precondition(lambda machine: machine.model.effects)


class WorkMachine(RuleBasedStateMachine):
    """Plays with a store and with the model of it."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place, self.model = place, Reference()
        place.empty()
        #: Transactions that wait for the next commit; the last one may be open.
        self.units: list[Unit] = []
        self.is_open = False
        self.number = 0
        #: Leases that workers have been given, the newest first.
        self.leases: list[Lease] = []

    # -- how it is written and compared ------------------------------------------------------------------------------

    def add(self, then: Then, *verbs: tuple[str, dict[str, Any]], lease: Lease | None = None) -> None:
        """Add verbs to the open transaction; those of another lease begin another one."""
        if not self.is_open or (lease is not None and self.units[-1].lease not in (None, lease)):
            self.units.append(Unit())
        self.units[-1].lease = lease or self.units[-1].lease
        self.units[-1].verbs += verbs
        self.is_open = then is Then.GO_ON
        if then is Then.COMMIT:
            self.commit()

    def commit(self) -> None:
        units, self.units, self.is_open = self.units, [], False
        answers, together = self.place.commit(units)
        wanted = self.model.commit(units, together=together)
        for unit, answer, want in zip(units, answers, wanted, strict=True):
            if want.refusals:
                assert set(answer.refusals) & set(want.refusals), (unit, answer, want)
                continue
            assert answer == want, unit
            self.leases[:0] = [value[0] for value in answer.values if isinstance(value, tuple)]
        self.compare()

    def compare(self) -> None:
        answers, wanted = self.place.look(), expected(self.model)
        self.model.hear(answers.pop("bells"))
        assert_told(self.model, answers.pop("journals"))
        for what, answer in answers.items():
            assert answer == wanted[what], what

    def new(self, kind: str) -> str:
        self.number += 1
        return f"{kind} {self.number:03}"

    def teardown(self) -> None:
        if self.units:
            self.commit()

    # -- events ------------------------------------------------------------------------------------------------------

    @initialize(key=some.sampled_from([None, "invoice"]), crashes=some.integers(0, 2), asked=some.booleans())
    def begin(self, key: str | None, crashes: int, asked: bool) -> None:
        """Two runs; one is at work, perhaps in the hands of its second worker, and has perhaps asked a person."""
        self.arrives("a", key, Then.WAIT)
        self.arrives("b", key, Then.COMMIT)
        run_id = next(iter(self.model.runs))
        self.claim(run_id, "worker 1", 6, Then.COMMIT)
        if asked:
            deadline = self.model.now + timedelta(seconds=7)
            asked_of_two = [question(run_id, id=self.new("review"), people=2, deadline=deadline) for _ in range(2)]
            self.add(Then.COMMIT, *(("open_review", {"review": one}) for one in asked_of_two), lease=self.leases[0])
        for number in range(crashes):
            self.dies(run_id, f"worker {number + 2}", Then.COMMIT)

    @rule(name=some.sampled_from("abcdef"), key=some.sampled_from([None, "invoice"]), then=THEN)
    def arrives(self, name: str, key: str | None, then: Then) -> None:
        arrived = event(name, uid=self.new("event"), received_at=self.model.now, data={"n": self.number % 3})
        begun = Run(
            id=self.new("run"), workflow="test", version="1", state=RunState.RECEIVED, lane="default", event=arrived,
            created_at=self.model.now, updated_at=self.model.now, serial_key=key, turn=None if key is None else WAITS,
        )  # fmt: skip
        self.add(
            then,
            ("add_event", {"event": arrived, "state": EventState.ACCEPTED}),
            ("add_run", {"run": begun}),
            ("wake", {"run_id": begun.id, "lane": "default"}),
        )

    @rule(name=some.sampled_from("abcdef"), then=THEN)
    def is_refused(self, name: str, then: Then) -> None:
        refused = event(name, uid=self.new("event"), received_at=self.model.now)
        given = {"event": refused, "state": EventState.REFUSED, "problem": {"title": "unfit", "detail": "n"}}
        self.add(then, ("add_event", given))

    @precondition(lambda self: any(stored["state"] == "refused" for stored in self.model.events.values()))
    @rule(data=some.data(), then=THEN)
    def is_taken_in_after_all(self, data: some.DataObject, then: Then) -> None:
        refused = [uid for uid, stored in self.model.events.items() if stored["state"] == "refused"]
        uid = data.draw(some.sampled_from(refused))
        source, name = self.model.events[uid]["name"]
        self.add(then, ("accept_event", {"event": event(name, uid=uid, source=source)}))

    @there_are_runs
    @rule(run_id=RUN, workflow=some.sampled_from(["test", "other"]), then=some.sampled_from([Then.COMMIT, Then.WAIT]))
    def starts_another_run(self, run_id: str, workflow: str, then: Then) -> None:
        """An event starts one run of a workflow, and no second one."""
        run = self.place.read(run_id)
        another = Run(
            id=self.new("run"), workflow=workflow, version="1", state=RunState.RECEIVED, lane="default",
            event=run.event, created_at=self.model.now, updated_at=self.model.now,
        )  # fmt: skip
        self.is_open = False
        self.add(then, ("add_run", {"run": another}))

    # -- workers -----------------------------------------------------------------------------------------------------

    @rule(run_id=ANY_RUN, worker=WORKERS, seconds=some.sampled_from([6, 30]), then=THEN)
    def claim(self, run_id: str, worker: str, seconds: float, then: Then) -> None:
        self.add(then, ("claim", {"run_id": run_id, "worker": worker, "seconds": seconds}))

    @precondition(lambda self: self.model.due())
    @rule(worker=WORKERS, then=THEN, data=some.data())
    def claim_what_is_due(self, worker: str, then: Then, data: some.DataObject) -> None:
        run_ids = data.draw(some.permutations(sorted(self.model.due())))[:2]
        self.add(then, *(("claim", {"run_id": run_id, "worker": worker, "seconds": 6}) for run_id in run_ids))

    @precondition(lambda self: self.model.held())
    @rule(run_id=among(lambda machine: machine.model.held()), heir=WORKERS, then=THEN)
    def dies(self, run_id: str, heir: str, then: Then) -> None:
        """A run's worker, and another takes the run over."""
        self.time_passes(7)
        self.claim(run_id, heir, 6, then)

    @there_are_runs
    @rule(worker=WORKERS, times=some.integers(1, 2), heir=WORKERS, then=THEN)
    def everything_dies(self, worker: str, times: int, heir: str, then: Then) -> None:
        """A worker takes all that is due, and dies; in the end another takes it all."""
        for _ in range(times):
            self.claim_all(worker, Then.COMMIT)
            self.time_passes(7)
        self.claim_all(heir, then)

    def claim_all(self, worker: str, then: Then) -> None:
        due = sorted(self.model.due())
        verbs = [("claim", {"run_id": run_id, "worker": worker, "seconds": 6}) for run_id in due]
        self.add(then, *verbs, ("wake_next_suspect", {}))

    @precondition(lambda self: self.model.waiting())
    @rule(run_id=among(lambda machine: machine.model.waiting()), worker=WORKERS, then=THEN)
    def is_rung_for_out_of_turn(self, run_id: str, worker: str, then: Then) -> None:
        claim = {"run_id": run_id, "worker": worker, "seconds": 6}
        self.add(then, ("make_due", {"run_id": run_id}), ("claim", claim))

    @there_are_leases
    @rule(
        lease=LEASE,
        to=some.sampled_from(RunState),
        due_in=some.sampled_from([None, 0, 3]),
        heed_cancel=some.booleans(),
        blind=some.booleans(),
        then=THEN,
    )
    def segment_ends(
        self, lease: Lease, to: RunState, due_in: int | None, heed_cancel: bool, blind: bool, then: Then
    ) -> None:
        ends: dict[str, Any] = {"outcome": Outcome.AUTO} if to is RunState.COMPLETED else {"crashes": 0}
        if to is RunState.FAILED:
            ends = {"reason": Reason.ATTEMPTS, "error": "no answer"}
        if due_in is not None:
            ends["due_at"] = self.model.now + timedelta(seconds=due_in)
        ends |= {"run_id": lease.run_id, "to": to, "actor": lease.worker, "heed_cancel": heed_cancel}
        verbs: list[tuple[str, dict[str, Any]]] = [("move", ends)]
        if to is RunState.PENDING_APPROVAL:
            told = {"run_id": lease.run_id, "seen": [] if blind else list(self.model.reviews), "lane": "default"}
            verbs.append(("wake_if_decided_meanwhile", told))
        self.add(then, *verbs, ("wake_next_suspect", {}), lease=lease)

    @there_are_leases
    @rule(lease=LEASE, late=some.booleans(), then=THEN)
    def gives_up(self, lease: Lease, late: bool, then: Then) -> None:
        given = {"run_id": lease.run_id, "worker": lease.worker}
        self.add(then, ("give_up", given), lease=None if late else lease)

    @there_are_leases
    @rule(lease=LEASE, segments=some.integers(0, 3), then=THEN)
    def gets_nowhere(self, lease: Lease, segments: int, then: Then) -> None:
        self.add(then, ("count_idle", {"run_id": lease.run_id, "segments": segments}), lease=lease)

    @there_are_leases
    @rule(lease=LEASE, then=THEN)
    def blocks_its_worker(self, lease: Lease, then: Then) -> None:
        given = {"run_id": lease.run_id, "worker": lease.worker, "node": "parse", "seconds": 30.0}
        self.add(then, ("blame", given))

    @rule(seconds=some.sampled_from([1, 3, 6, 7, 86_400 * 8]))
    def time_passes(self, seconds: float) -> None:
        self.place.clock.pass_seconds(seconds)
        self.model.now = self.place.clock.now

    @precondition(lambda self: self.model.runs and not self.units)
    @rule(worker=WORKERS, held=SOME_RUNS, seconds=some.sampled_from([6, 30]))
    def heart_beats(self, worker: str, held: list[str], seconds: float) -> None:
        self.place.beat(worker, held, seconds)
        self.model.beat(worker, held, seconds)
        self.compare()

    @precondition(lambda self: self.model.bells)
    @rule(data=some.data(), then=THEN)
    def rings(self, data: some.DataObject, then: Then) -> None:
        ids = data.draw(some.sets(some.sampled_from([bell["id"] for bell in self.model.bells]), max_size=2))
        self.add(then, ("wakeups_sent", {"ids": ids})) if ids else None

    # -- operators ---------------------------------------------------------------------------------------------------

    @rule(run_id=ANY_RUN, to=some.sampled_from(RunState), meant=some.booleans(), then=THEN)
    def is_moved(self, run_id: str, to: RunState, meant: bool, then: Then) -> None:
        only_from = RunState.PROCESSING if meant else None
        self.add(then, ("move", {"run_id": run_id, "to": to, "actor": "ann", "only_from": only_from}))

    @rule(run_id=ANY_RUN, then=THEN)
    def is_cancelled(self, run_id: str, then: Then) -> None:
        self.add(then, ("cancel", {"run_id": run_id, "by": "ann"}))

    @there_are_runs
    @rule(run_id=RUN, from_start=some.booleans(), given_up=some.booleans(), then=THEN)
    def is_replayed(self, run_id: str, from_start: bool, given_up: bool, then: Then) -> None:
        generation = self.model.runs[run_id]["generation"] + from_start
        again = {"run_id": run_id, "to": RunState.RECEIVED, "actor": "ann", "only_from": RunState.FAILED}
        self.add(
            then,
            ("refuse_undone", {"run_id": run_id, "given_up": ["undo"] if given_up else []}),
            ("move", again | {"crashes": 0, "idle": 0, "generation": generation}),
            ("reset_failures", {"run_id": run_id}),
            ("wake", {"run_id": run_id, "lane": "default"}),
        )

    @there_are_runs
    @rule(run_id=RUN, then=THEN)
    def is_made_due(self, run_id: str, then: Then) -> None:
        self.add(then, ("make_due", {"run_id": run_id}), ("wake", {"run_id": run_id, "lane": "default"}))

    @there_are_leases
    @rule(lease=LEASE, run_id=ANY_RUN, then=THEN)
    def is_noted(self, lease: Lease, run_id: str, then: Then) -> None:
        self.add(then, ("note", {"run_id": run_id, "actor": lease.worker, "data": {"text": "here"}}), lease=lease)
