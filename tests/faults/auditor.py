"""The auditor: whether the database and the books of the world outside tell one story, and keep the promises.

It knows what is promised and nothing of how that is done: it reads the tables, and what senders, people and providers
wrote down for themselves, once it is quiet. Whatever killed, froze or cut off the processes, the same must hold.

    violations = await audit(database_url, outside, expected)
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

import sqlalchemy as sa

from eventwright.runs import schema
from eventwright.runs.chain import hash_of
from eventwright.runs.database import open_database
from eventwright.runs.rows import journal_of
from eventwright.runs.states import FINAL, MOVES, RunState
from eventwright.runs.waits import waits

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Deed:
    """Something that happened outside: which tool did it, under which idempotency key, when (seconds since 1970)."""

    tool: str
    key: str
    at: float


@dataclass(frozen=True)
class Told:
    """What somebody was told, and when: the ids of runs, the type of a decision."""

    what: Any
    at: float


@dataclass(frozen=True, kw_only=True)
class Outside:
    """What the world outside knows.

    Attributes:
        accepted: each event that was answered with success, as (source, id): the runs that the answer named.
        decided: each review whose decision was acknowledged: its type.
        deeds: what happened at the providers.
    """

    accepted: Mapping[tuple[str, str], Told] = field(default_factory=dict)
    decided: Mapping[str, Told] = field(default_factory=dict)
    deeds: Sequence[Deed] = ()


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What is known beforehand of the workflows.

    Attributes:
        starts: by type of event, the workflows that it starts.
        approved: tools that nobody may call without a person's decision about the very call.
        does: by workflow, how often a run that completes calls each tool that writes, by itself or after a yes.
        known_as: by tool, what its provider makes of our idempotency key; the key itself, if it is not here.
    """

    starts: Mapping[str, frozenset[str]] = field(default_factory=dict)
    approved: frozenset[str] = frozenset()
    does: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    known_as: Mapping[str, Callable[[str], str]] = field(default_factory=dict)


@dataclass(frozen=True)
class History:
    """Every row that the promises are about."""

    events: Sequence[Row]
    runs: Mapping[str, Row]
    journal: Mapping[str, Sequence[Row]]
    effects: Mapping[str, Row]
    #: Each with its decision, or None for every column of it, as `decision_…`.
    reviews: Mapping[str, Row]
    wakeups: Sequence[Row]
    timers: Sequence[Row]
    budgets: Mapping[str, Row]
    reservations: Sequence[Row]
    #: What runs wait for just now.
    waits: Sequence[Row]
    now: datetime

    @classmethod
    def read(cls, connection: sa.Connection, now: datetime) -> History:
        def rows(query: sa.Select[Any]) -> Sequence[Row]:
            return connection.execute(query).mappings().all()

        journal: dict[str, list[Row]] = defaultdict(list)
        for row in rows(sa.select(schema.journal).order_by(schema.journal.c.run_id, schema.journal.c.seq)):
            journal[row["run_id"]].append(row)
        decisions = (column.label(f"decision_{column.name}") for column in schema.decisions.c)
        answered = schema.decisions.c.review_id == schema.reviews.c.id
        return cls(
            events=rows(sa.select(schema.events)),
            runs={row["id"]: row for row in rows(sa.select(schema.runs))},
            journal=journal,
            effects={row["key"]: row for row in rows(sa.select(schema.effects))},
            reviews={
                row["id"]: row
                for row in rows(sa.select(schema.reviews, *decisions).outerjoin(schema.decisions, answered))
            },
            wakeups=rows(sa.select(schema.wakeups)),
            timers=rows(sa.select(schema.timers)),
            budgets={row["scope"]: row for row in rows(sa.select(schema.budgets))},
            reservations=rows(sa.select(schema.reservations)),
            waits=rows(sa.select(waits).where(waits.c.state == "open")),
            now=now,
        )

    def entries(self, kind: str) -> Iterator[Row]:
        """The journal's entries of one kind, of all runs."""
        return (entry for entries in self.journal.values() for entry in entries if entry["kind"] == kind)


async def audit(database_url: str, outside: Outside, expected: Expected) -> list[str]:
    """What contradicts the promises, in words; empty if nothing does. To be asked once nothing is under way."""
    async with open_database(database_url) as database:
        history = await database.read(lambda connection: History.read(connection, database.now(connection)))
    names = {
        (tool, name(key)): key
        for tool, name in expected.known_as.items()
        for key, effect in history.effects.items()
        if effect["tool"] == tool
    }
    deeds = [replace(deed, key=names.get((deed.tool, deed.key), deed.key)) for deed in outside.deeds]
    told = replace(outside, deeds=deeds)
    return [f"{promise}: {words}" for promise, check in CHECKS.items() for words in check(history, told, expected)]


# -- events and runs ---------------------------------------------------------------------------------------------------


def _events(history: History, outside: Outside, expected: Expected) -> Iterator[str]:
    accepted = {(row["source"], row["id"]): row for row in history.events if row["state"] == "accepted"}
    started = Counter((run["event_uid"], run["workflow"]) for run in history.runs.values())
    by_event: dict[str, set[str]] = defaultdict(set)
    for run in history.runs.values():
        by_event[run["event_uid"]].add(run["id"])
    for name, event in accepted.items():
        for workflow in expected.starts.get(event["type"], ()):
            if (event["uid"], workflow) not in started:
                yield f"event {name} is accepted and has no run of {workflow}"
    for name, answered in outside.accepted.items():
        if name not in accepted:
            yield f"event {name} was answered with success and is not stored"
            continue
        event = accepted[name]
        if by_event[event["uid"]] != set(answered.what):
            yield f"event {name} was answered with runs {answered.what} and has {by_event[event['uid']]}"
        if event["received_at"] > _time(answered):
            yield f"event {name} was answered with success before it was stored"
    yield from (f"event {uid} started {count} runs of {name}" for (uid, name), count in started.items() if count > 1)
    known = {row["uid"] for row in accepted.values()}
    yield from (
        f"run {run['id']} has no accepted event" for run in history.runs.values() if run["event_uid"] not in known
    )


def _rest(history: History, outside: Outside, expected: Expected) -> Iterator[str]:
    """Final, a dead letter, waiting for a person by name, or for a time that has not come."""
    asking = {row["run_id"] for row in history.reviews.values() if row["state"] == "open"}
    waiting = {row["run_id"] for row in history.waits}
    for run in history.runs.values():
        later = run["due_at"] is not None and run["due_at"] > history.now
        match RunState(run["state"]):
            case RunState.COMPLETED | RunState.CANCELLED | RunState.FAILED:
                rests = True
            case RunState.PENDING_APPROVAL:
                rests = (run["due_at"] is None or later) and (later or run["id"] in asking)
            case RunState.WAITING | RunState.RETRYING:
                rests = later or (run["due_at"] is None and run["id"] in waiting)
            case _:
                rests = False
        if not rests:
            yield f"run {run['id']} is stuck: {run['state']}, held by {run['worker']}, due at {run['due_at']}"
        if run["state"] in FINAL and run["id"] in asking:
            yield f"run {run['id']} is {run['state']} and still asks a person"
        if run["state"] in FINAL and run["id"] in waiting:
            yield f"run {run['id']} is {run['state']} and still waits for an event"


def _outbox(history: History, outside: Outside, expected: Expected) -> Iterator[str]:
    for bell in history.wakeups:
        run = history.runs.get(bell["run_id"])
        if run is None or run["due_at"] is None:
            state = run and run["state"]
            yield f"wake-up {bell['id']} rings for run {bell['run_id']} ({state}), which has nothing to do"
    for timer in history.timers:
        review = history.reviews.get(timer["review_id"])
        if review is None or review["state"] != "open":
            yield f"timer {timer['id']} waits for review {timer['review_id']}, which is {review and review['state']}"


# -- the journal -------------------------------------------------------------------------------------------------------


def _chain(history: History, outside: Outside, expected: Expected) -> Iterator[str]:
    for run_id in history.runs:
        previous = ""
        for seq, row in enumerate(history.journal.get(run_id, ()), start=1):
            if (row["seq"], row["prev"], row["hash"]) != (seq, previous, hash_of(journal_of(row))):
                yield f"the journal of {run_id} is broken at entry {row['seq']}"
                break
            previous = row["hash"]


def _transitions(history: History, outside: Outside, expected: Expected) -> Iterator[str]:
    """The journal tells every move, and every move is one that the table of states has."""
    for run_id, run in history.runs.items():
        told = [row["data"] for row in history.journal.get(run_id, ()) if row["kind"] == "transition"]
        if not told or told[-1]["to"] != run["state"]:
            yield f"run {run_id} is {run['state']}, its journal ends with {told[-1]['to'] if told else 'nothing'}"
        for before, after in pairwise(told):
            origin, target = RunState(before["to"]), RunState(after["to"])
            taken_over = origin is target is RunState.PROCESSING and after.get("taken_over")
            if after["from"] != origin or not (taken_over or target in MOVES[origin]):
                yield f"run {run_id} went from {origin} to {target}, told as from {after['from']}"
        fences = [data["fence"] for data in told if "fence" in data]
        if fences != list(range(1, run["fence"] + 1)):
            yield f"run {run_id} was claimed with fences {fences} and stands at {run['fence']}"


def _told(history: History, outside: Outside, expected: Expected) -> Iterator[str]:
    """What the ledger and the desk hold, the journal has told, once."""
    decided = Counter(entry["data"]["review"] for entry in history.entries("decision"))
    opened = Counter(entry["data"]["review"] for entry in history.entries("review_opened"))
    for review in history.reviews.values():
        if opened[review["id"]] != 1:
            yield f"review {review['id']} was opened {opened[review['id']]} times in the journal"
        if decided[review["id"]] != (review["decision_by"] is not None):
            yield f"review {review['id']} has {review['decision_by']}'s decision, the journal {decided[review['id']]}"
    done = Counter(entry["data"]["effect"] for entry in history.entries("effect_done"))
    for effect in history.effects.values():
        if effect["tool_class"] != "read" and done[effect["key"]] != (effect["state"] == "done"):
            yield f"{_named(effect)} is {effect['state']}, the journal says {done[effect['key']]} times that it is done"


# -- effects -----------------------------------------------------------------------------------------------------------


def _effects(history: History, outside: Outside, expected: Expected) -> Iterator[str]:
    """Keyed and verifiable ones once; plain ones once, or in doubt with somebody asked."""
    happened = Counter(deed.key for deed in outside.deeds)
    in_doubt = {
        (row["run_id"], row["evidence"].get("idempotency_key"))
        for row in history.reviews.values()
        if row["kind"] == "in_doubt" and row["state"] == "open"
    }
    yield from (
        f"{deed.tool} happened under {deed.key[:12]}, of which nothing is on record"
        for deed in outside.deeds
        if deed.key not in history.effects
    )
    for key, effect in history.effects.items():
        if effect["tool_class"] == "read":
            continue
        named, times = _named(effect), happened[key]
        if times > 1:
            yield f"{named} happened {times} times"
        match effect["state"]:
            case "done" if times == 0:
                yield f"{named} is done and never happened"
            case "failed" if times:
                yield f"{named} is failed and happened"
            case "in_doubt" if (effect["run_id"], key) not in in_doubt:
                yield f"{named} is in doubt and nobody is asked"
            case "intended" if history.runs[effect["run_id"]]["state"] in FINAL:
                yield f"{named} is neither done nor failed, and its run is over"


def _completed(history: History, outside: Outside, expected: Expected) -> Iterator[str]:
    """A run that completed did what its workflow does, so often and not otherwise."""
    did: dict[str, Counter[str]] = defaultdict(Counter)
    for deed in outside.deeds:
        if deed.key in history.effects:
            did[history.effects[deed.key]["run_id"]][deed.tool] += 1
    for run in history.runs.values():
        wanted = expected.does.get(run["workflow"])
        if wanted is not None and run["state"] == RunState.COMPLETED and did[run["id"]] != Counter(wanted):
            yield f"run {run['id']} of {run['workflow']} completed and did {dict(did[run['id']])}, not {dict(wanted)}"


# -- decisions ---------------------------------------------------------------------------------------------------------


def _decisions(history: History, outside: Outside, expected: Expected) -> Iterator[str]:
    """None is lost: what a person was told is decided stays so, and a run that ended has heeded it."""
    for review_id, told in outside.decided.items():
        review = history.reviews.get(review_id, {})
        if review.get("decision_type") != told.what:
            yield f"review {review_id} was acknowledged as {told.what} and is decided as {review.get('decision_type')}"
        elif review["decision_at"] > _time(told):
            yield f"the decision about review {review_id} was acknowledged before it was stored"
    for review in history.reviews.values():
        if (review["decision_by"] is not None) != (review["state"] in ("decided", "expired")):
            yield f"review {review['id']} is {review['state']}, decided by {review['decision_by']}"
        completed = history.runs[review["run_id"]]["state"] == RunState.COMPLETED
        if completed and review["state"] in ("decided", "expired") and review["consumed_by"] is None:
            yield f"the decision about review {review['id']} was never heeded, and its run is completed"


def _approvals(history: History, outside: Outside, expected: Expected) -> Iterator[str]:
    """One decision for one effect: made before it happened, about these arguments."""
    approvals: dict[str, list[Row]] = defaultdict(list)
    for review in history.reviews.values():
        if review["kind"] == "approval" and review["decision_type"] in ("approve", "edit"):
            approvals[review["consumed_by"] or ""].append(review)
    for deed in outside.deeds:
        effect = history.effects.get(deed.key)
        if effect is None or effect["tool"] not in expected.approved:
            continue
        decided = approvals.get(deed.key, [])
        if not decided:
            yield f"{_named(effect)} happened and nobody had approved it"
        for review in decided:
            if review["decision_at"] > _time(deed):
                yield f"{_named(effect)} happened before it was approved"
            shown = review["arguments"] if review["decision_type"] == "approve" else review["decision_arguments"]
            if shown != effect["arguments"]:
                yield f"{_named(effect)} was made with {effect['arguments']}, approved was {shown}"
    used: dict[str, set[str]] = defaultdict(set)
    for entry in history.entries("effect_intended"):
        used[entry["data"]["effect"]].add(entry["data"]["executed"])
    yield from (
        f"effect {key[:12]} was begun with {len(digests)} sets of arguments"
        for key, digests in used.items()
        if len(digests) > 1
    )


# -- budgets -----------------------------------------------------------------------------------------------------------


def _budgets(history: History, outside: Outside, expected: Expected) -> Iterator[str]:
    """What is used of a budget is what its calls have taken, and a call that is over holds nothing back."""
    taken: dict[str, Decimal] = defaultdict(Decimal)
    for row in history.reservations:
        taken[row["scope"]] += row["amount"]
        if not row["settled"] and history.runs[row["run_id"]]["state"] == RunState.COMPLETED:
            yield f"run {row['run_id']} is completed and still reserves {row['amount']} of {row['scope'][:12]}"
    for scope in taken.keys() | history.budgets.keys():
        used = history.budgets[scope]["used"] if scope in history.budgets else None
        if used != taken[scope]:
            label = history.budgets[scope]["label"] if scope in history.budgets else scope
            yield f"of the budget {label!r} {used} is used, and its calls have taken {taken[scope]}"


def _time(noted: Deed | Told) -> datetime:
    return datetime.fromtimestamp(noted.at, UTC)


def _named(effect: Row) -> str:
    return f"{effect['tool']} ({effect['tool_class']}, {effect['key'][:12]}, run {effect['run_id']})"


Check = Callable[[History, Outside, Expected], Iterator[str]]

#: By the promise that each of them is about.
CHECKS: Mapping[str, Check] = {
    "P1 P2 events": _events,
    "P3 rest": _rest,
    "P3 outbox": _outbox,
    "P4 effects": _effects,
    "P4 completed": _completed,
    "P5 decisions": _decisions,
    "P5 approvals": _approvals,
    "P7 chain": _chain,
    "P7 transitions": _transitions,
    "P7 told": _told,
    "budgets": _budgets,
}
