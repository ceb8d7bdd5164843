"""The store: the one SQL database that holds the truth, on SQLite or PostgreSQL.

Reads are here, writes in `transaction`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from eventwright.runs import quorum, rows, schema, waits
from eventwright.runs.batch import Redact, Unit
from eventwright.runs.committer import Committer
from eventwright.runs.database import Answer, Clock, Database, Work, is_away, open_database, trouble_of
from eventwright.runs.errors import StoreUnavailable, UnknownEvent, UnknownReview, UnknownRun
from eventwright.runs.records import (
    BudgetUse,
    Effect,
    JournalEntry,
    Lease,
    Review,
    ReviewState,
    Run,
    StoredEvent,
    Timer,
    Visit,
    WakeUp,
)
from eventwright.runs.states import RunState
from eventwright.runs.telemetry import Telemetry
from eventwright.runs.transaction import Transaction


@dataclass(frozen=True)
class History:
    """What a segment must know of its run's past."""

    effects: dict[str, Effect]
    visits: dict[str, Visit]
    reviews: tuple[Review, ...]
    waits: tuple[waits.Wait, ...] = ()


@contextmanager
def _away_as_ours() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not is_away(error):
            raise
        raise StoreUnavailable(f"the database did not answer: {error}", trouble=trouble_of(error)) from error


class Store:
    """Open it with `async with Store.open(url) as store`."""

    def __init__(self, database: Database, redact: Redact | None = None, telemetry: Telemetry | None = None) -> None:
        self._database = database
        #: Who is told what goes on; every room finds it here.
        self.telemetry = telemetry or Telemetry()
        self.committer = Committer(database, redact, self.telemetry)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str,
        *,
        clock: Clock | None = None,
        redact: Redact | None = None,
        telemetry: Telemetry | None = None,
    ) -> AsyncIterator[Store]:
        """A store on a migrated database (see `migrate.upgrade`).

        Args:
            url: `sqlite:///path` or `postgresql://…`.
            clock: replaces the database's clock, for tests and simulations.
            redact: what every journal entry's data and every error's words go through before they are written and
                hashed. Ids of runs and effects, actors and kinds do not, nor do the ledger's arguments and results
                and the reviews: they are executed and judged as they are.
            telemetry: who is told what goes on; by default nobody.
        """
        async with open_database(url, clock=clock) as database:
            store = cls(database, redact, telemetry)
            await store.committer.start()
            try:
                yield store
            finally:
                await store.committer.close()

    @asynccontextmanager
    async def write(self, lease: Lease | None = None) -> AsyncIterator[Transaction]:
        """A write transaction: collect verbs; on leaving it is committed, or raises and nothing of it was written.

        Args:
            lease: the right to write for a run; every write of a segment has one.

        Raises:
            LeaseLost: another worker took the run over.
            IllegalMove, DuplicateEvent, DecisionRefused, BudgetExceeded, UnknownRun: the world is not as a verb
                expects.
            StoreUnavailable: the database did not take it.
        """
        transaction = self.transaction(lease)
        yield transaction
        await self.committer.post(transaction.unit)

    def transaction(self, lease: Lease | None = None) -> Transaction:
        """A transaction to be posted by hand (`committer.post(tx.unit)`), for writes nobody waits for."""
        return Transaction(Unit(lease=lease))

    async def read(self, work: Work[Answer]) -> Answer:
        """The answer of `work`, which reads on a connection. Raises StoreUnavailable."""
        with _away_as_ours():
            return await self._database.read(work)

    async def rows_of(self, query: sa.Select[Any]) -> Sequence[sa.RowMapping]:
        """The rows of a query. Raises StoreUnavailable."""
        return await self.read(lambda connection: connection.execute(query).mappings().all())

    async def now(self) -> datetime:
        """The database's time."""
        with _away_as_ours():
            return await self._database.time()

    async def recent_now(self) -> datetime:
        """About the database's time, as a rule without asking for it: never ahead of it, and behind by milliseconds."""
        with _away_as_ours():
            return await self._database.recent_time()

    async def ping(self) -> None:
        """Raises StoreUnavailable if the database does not answer, or took no write a moment ago."""
        await self.rows_of(sa.select(1))
        self.committer.health.check()

    async def backlog(self, *, most: int) -> int:
        """How many runs wait to be begun, or to be gone on with by another worker; counted up to `most`."""
        waiting = sa.select(sa.literal(1)).where(schema.runs.c.state == str(RunState.RECEIVED)).limit(most).subquery()
        return int((await self.rows_of(sa.select(sa.func.count().label("n")).select_from(waiting)))[0]["n"])

    # -- runs --------------------------------------------------------------------------------------------------------

    async def run(self, run_id: str) -> Run:
        """The run. Raises UnknownRun."""
        found = await self._runs(schema.runs_with_events.where(schema.runs.c.id == run_id))
        if not found:
            raise UnknownRun(run_id)
        return found[0]

    async def runs(
        self,
        *,
        states: Collection[RunState] = (),
        workflow: str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> list[Run]:
        """Runs, newest first; `before` is the id that the last page ended with."""
        query = schema.runs_with_events.order_by(schema.runs.c.id.desc()).limit(limit)
        if states:
            query = query.where(schema.runs.c.state.in_([str(state) for state in states]))
        if workflow is not None:
            query = query.where(schema.runs.c.workflow == workflow)
        if before is not None:
            query = query.where(schema.runs.c.id < before)
        return await self._runs(query)

    async def due_runs(self, *, limit: int, lane: str | None = None, unrung: bool = False) -> list[tuple[str, str]]:
        """(id, lane) of runs that may be taken up now, the longest due first: new, retried, decided, abandoned.

        With `lane`, only those of it; with `unrung`, only those for which no bell is in the outbox.
        """
        due = schema.runs.c.due_at
        query = (
            sa.select(schema.runs.c.id, schema.runs.c.lane).where(due <= await self.now()).order_by(due).limit(limit)
        )
        if lane is not None:
            query = query.where(schema.runs.c.lane == lane)
        if unrung:
            query = query.where(_UNRUNG)
        return [(row["id"], row["lane"]) for row in await self.rows_of(query)]

    async def cancel_requests(self, run_ids: Collection[str]) -> list[str]:
        """Which of these runs an operator wants to end."""
        wanted = sa.and_(schema.runs.c.id.in_(sorted(run_ids)), schema.runs.c.cancel_requested_by.is_not(None))
        return [row["id"] for row in await self.rows_of(sa.select(schema.runs.c.id).where(wanted))] if run_ids else []

    async def next_due(self, *, after: datetime | None = None) -> datetime | None:
        """When the next run or timer comes due; with `after`, the next one later than that which no bell rings for."""
        run, timer = schema.runs.c.due_at, schema.timers.c.due_at
        runs, timers = sa.select(run).order_by(run), sa.select(timer).order_by(timer)
        if after is not None:
            runs, timers = runs.where(run > after, _UNRUNG), timers.where(timer > after)
        queries = (runs.where(run.is_not(None)).limit(1), timers.limit(1))
        times = [row["due_at"] for query in queries for row in await self.rows_of(query)]
        return min(times, default=None)

    async def counts(self) -> dict[tuple[str, str], int]:
        """How many runs there are by (workflow, state)."""
        groups = (schema.runs.c.workflow, schema.runs.c.state)
        query = sa.select(*groups, sa.func.count().label("runs")).group_by(*groups)
        return {(row["workflow"], row["state"]): row["runs"] for row in await self.rows_of(query)}

    async def _runs(self, query: sa.Select[Any]) -> list[Run]:
        return [rows.run_of(row) for row in await self.rows_of(query)]

    async def history(self, run_id: str) -> History:
        """What a segment must know: effects by key, visits by place, reviews in the order they were asked, waits."""

        def read(connection: sa.Connection) -> History:
            def found(query: sa.Select[Any]) -> Sequence[sa.RowMapping]:
                return connection.execute(query, {"run_id": run_id}).mappings().all()

            return History(
                effects={row["key"]: rows.effect_of(row) for row in found(_EFFECTS_OF_RUN)},
                visits={row["place"]: rows.visit_of(row) for row in found(_VISITS_OF_RUN)},
                reviews=tuple(rows.review_of(row) for row in found(_REVIEWS_OF_RUN)),
                waits=tuple(waits.wait_of(row) for row in found(waits.OF_RUN)),
            )

        return await self.read(read)

    async def journal(self, run_id: str) -> list[JournalEntry]:
        """The run's record, oldest first. Raises UnknownRun."""
        query = sa.select(schema.journal).where(schema.journal.c.run_id == run_id).order_by(schema.journal.c.seq)
        entries = [rows.journal_of(row) for row in await self.rows_of(query)]
        if not entries:
            raise UnknownRun(run_id)
        return entries

    async def effects(self, run_id: str) -> list[Effect]:
        """The run's ledger, in the order of visits."""
        history = await self.history(run_id)
        return sorted(history.effects.values(), key=lambda effect: (effect.visit, effect.tool, effect.ordinal))

    # -- budgets -----------------------------------------------------------------------------------------------------

    async def budgets(self, *, limit: int = 50, before: str | None = None) -> list[BudgetUse]:
        """Budgets that were ever used, the latest opened first; `before` is the scope that the last page ended with."""
        table = schema.budgets
        query = sa.select(table).order_by(table.c.opened_at.desc(), table.c.scope.desc()).limit(limit)
        if before is not None:
            last = sa.select(table.c.opened_at).where(table.c.scope == before).scalar_subquery()
            same = sa.and_(table.c.opened_at == last, table.c.scope < before)
            query = query.where(sa.or_(table.c.opened_at < last, same))
        return [BudgetUse(**row) for row in await self.rows_of(query)]

    # -- reviews -----------------------------------------------------------------------------------------------------

    async def review(self, review_id: str) -> Review:
        """The review with its decision. Raises UnknownReview."""
        found = await self._reviews(_REVIEWS.where(schema.reviews.c.id == review_id))
        if not found:
            raise UnknownReview(review_id)
        return found[0]

    async def reviews(
        self,
        *,
        state: ReviewState | None = None,
        run_ids: Collection[str] | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> list[Review]:
        """Reviews, oldest first; `after` is the id that the last page ended with."""
        query = _REVIEWS.order_by(schema.reviews.c.id).limit(limit)
        if state is not None:
            query = query.where(schema.reviews.c.state == str(state))
        if run_ids is not None:
            query = query.where(schema.reviews.c.run_id.in_(sorted(run_ids)))
        if after is not None:
            query = query.where(schema.reviews.c.id > after)
        return await self._reviews(query)

    async def review_ids(self, run_ids: Collection[str]) -> dict[str, list[str]]:
        """The ids of the reviews of each of these runs, oldest first."""
        query = (
            sa.select(schema.reviews.c.run_id, schema.reviews.c.id)
            .where(schema.reviews.c.run_id.in_(sorted(run_ids)))
            .order_by(schema.reviews.c.id)
        )
        found: dict[str, list[str]] = {run_id: [] for run_id in run_ids}
        for row in await self.rows_of(query):
            found[row["run_id"]].append(row["id"])
        return found

    async def agreed(self, reviews: Collection[Review]) -> dict[str, list[str]]:
        """Who has agreed so far to the calls that these reviews ask several people about, by review."""
        shared = [review.id for review in reviews if review.people > 1]
        agreed: dict[str, list[str]] = {review_id: [] for review_id in shared}
        for row in await self.rows_of(quorum.agreed(shared)) if shared else ():
            agreed[row["id"]].append(row["by"])
        return agreed

    async def open_reviews(self) -> dict[str, int]:
        """How many reviews wait for a person, by workflow."""
        workflow = schema.reviews.c.workflow
        query = sa.select(workflow, sa.func.count().label("reviews")).group_by(workflow)
        open_ones = query.where(schema.reviews.c.state == str(ReviewState.OPEN))
        return {row["workflow"]: row["reviews"] for row in await self.rows_of(open_ones)}

    async def due_timers(self, *, limit: int) -> list[Timer]:
        """Deadlines that have passed."""
        now = await self.now()
        query = (
            sa.select(schema.timers).where(schema.timers.c.due_at <= now).order_by(schema.timers.c.due_at).limit(limit)
        )
        return [rows.timer_of(row) for row in await self.rows_of(query)]

    async def _reviews(self, query: sa.Select[Any]) -> list[Review]:
        return [rows.review_of(row) for row in await self.rows_of(query)]

    # -- events ------------------------------------------------------------------------------------------------------

    async def accepted_event(self, source: str, event_id: str) -> StoredEvent | None:
        """The accepted event of this name, with its runs."""
        condition = sa.and_(
            schema.events.c.source == source,
            schema.events.c.id == event_id,
            schema.events.c.state == "accepted",
        )
        return next(iter(await self._events(sa.select(schema.events).where(condition))), None)

    async def event(self, uid: str) -> StoredEvent:
        """The stored event. Raises UnknownEvent."""
        found = await self._events(sa.select(schema.events).where(schema.events.c.uid == uid))
        if not found:
            raise UnknownEvent(uid)
        return found[0]

    async def events(
        self, *, state: str | None = None, limit: int = 50, before: str | None = None
    ) -> list[StoredEvent]:
        """Events, newest first."""
        query = sa.select(schema.events).order_by(schema.events.c.uid.desc()).limit(limit)
        if state is not None:
            query = query.where(schema.events.c.state == state)
        if before is not None:
            query = query.where(schema.events.c.uid < before)
        return await self._events(query)

    async def _events(self, query: sa.Select[Any]) -> list[StoredEvent]:
        found = await self.rows_of(query)
        runs = await waits.runs_of_events(self, [row["uid"] for row in found])
        return [rows.stored_event_of(row, tuple(runs[row["uid"]])) for row in found]

    # -- names -------------------------------------------------------------------------------------------------------

    async def ids_like(self, kind: Literal["run", "review", "event"], part: str, *, limit: int = 10) -> list[str]:
        """Ids (an event's uid) that begin or end with `part`, newest first; people type the end of a long id."""
        columns = {"run": schema.runs.c.id, "review": schema.reviews.c.id, "event": schema.events.c.uid}
        column = columns[kind]
        alike = column.startswith(part, autoescape=True) | column.endswith(part, autoescape=True)
        query = sa.select(column.label("id")).where(alike).order_by(column.desc()).limit(limit)
        return [row["id"] for row in await self.rows_of(query)]

    # -- the outbox --------------------------------------------------------------------------------------------------

    async def wakeups(self, *, sent: bool, older_than: timedelta, limit: int, lane: str | None = None) -> list[WakeUp]:
        """Bells in the outbox, oldest first: not yet rung, or rung `older_than` ago and not answered by a claim.

        With `lane`, only those of it.
        """
        column = schema.wakeups.c.sent_at if sent else schema.wakeups.c.created_at
        query = (
            sa.select(schema.wakeups)
            .where(schema.wakeups.c.sent_at.is_not(None) if sent else schema.wakeups.c.sent_at.is_(None))
            .order_by(column)
            .limit(limit)
        )
        if older_than:
            query = query.where(column <= await self.now() - older_than)
        if lane is not None:
            query = query.where(schema.wakeups.c.lane == lane)
        return [rows.wakeup_of(row) for row in await self.rows_of(query)]

    async def lanes_rung(self) -> list[str]:
        """The lanes of bells that were rung and are not answered by a claim yet."""
        query = sa.select(schema.wakeups.c.lane).where(schema.wakeups.c.sent_at.is_not(None)).distinct()
        return [row["lane"] for row in await self.rows_of(query)]


_UNRUNG = ~sa.exists().where(schema.wakeups.c.run_id == schema.runs.c.id)
_REVIEWS = (
    sa.select(
        schema.reviews,
        schema.runs.c.expired_at,
        *(column.label(f"decision_{column.name}") for column in schema.decisions.c),
    )
    .join(schema.runs, schema.runs.c.id == schema.reviews.c.run_id)
    .outerjoin(schema.decisions, schema.decisions.c.review_id == schema.reviews.c.id)
)
_REVIEWS_OF_RUN = _REVIEWS.where(schema.reviews.c.run_id == sa.bindparam("run_id")).order_by(schema.reviews.c.id)
_EFFECTS_OF_RUN = sa.select(schema.effects).where(schema.effects.c.run_id == sa.bindparam("run_id"))
_VISITS_OF_RUN = sa.select(schema.visits).where(schema.visits.c.run_id == sa.bindparam("run_id"))
