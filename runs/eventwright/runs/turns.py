"""Turns: runs of one workflow with the same key go one after the other, in the order in which they were accepted.

The run that has its turn keeps it until it has ended, also while it waits for a person, a time or its next attempt. One
that waits for its turn is not due, so nobody looks at it in vain: whoever ends gives the turn on, in the transaction of
its own end. A dead letter has ended; replayed, it stands in line again.

Everybody who looks at a line to join it or to go, and everybody who ends in it, does so under the line's lock: on
PostgreSQL an advisory one, on SQLite the one of the writing transaction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from eventwright.runs import schema
from eventwright.runs.event import new_id
from eventwright.runs.records import GOES, WAITS, Run
from eventwright.runs.states import AT_AN_END, RunState

if TYPE_CHECKING:
    from eventwright.runs.store import Store


class Place(Enum):
    """Where a run stands in its line."""

    FIRST = auto()
    #: Somebody goes, or waits for longer, who will give the turn on.
    BEHIND = auto()
    #: Somebody else looks at this line just now, perhaps to leave it.
    UNKNOWN = auto()


class Turns:
    """The lines that a batch touches. What the batch has changed must be written before it looks at them."""

    def __init__(self, connection: sa.Connection, now: datetime) -> None:
        self._connection, self._now = connection, now
        self._locks = connection.dialect.name == "postgresql"
        #: Lines in which a run of the batch has ended.
        self._left: set[tuple[str, str]] = set()

    def place(self, row: Mapping[str, Any]) -> Place:
        """Where this run stands, or would."""
        line = _line(row)
        # To wait here for whoever ends, and changes the run that comes next, would be to wait in a circle.
        if self._locks and not self._connection.execute(_TRY_LOCK, {"number": _number(line)}).scalar_one():
            return Place.UNKNOWN
        head = self._head(line)
        if head is None or head["id"] == row["id"]:
            return Place.FIRST
        before = head["turn"] == GOES or (head["created_at"], head["id"]) < (row["created_at"], row["id"])
        return Place.BEHIND if before else Place.FIRST

    def after(self, row: Mapping[str, Any], state: str) -> dict[str, int | None]:
        """What a move of this run to `state` means for its turn."""
        if RunState(state) in AT_AN_END:
            self._left.add(_line(row))
            return {"turn": None}
        return {"turn": WAITS} if row["turn"] is None else {}

    def pass_on(self) -> None:
        """Make due whoever is next where a run has ended, and ring for it."""
        for line in sorted(self._left):
            if self._locks:
                self._connection.execute(_LOCK, {"number": _number(line)})
            # One that was cancelled in this moment is not the next.
            while (head := self._head(line)) is not None and head["turn"] == WAITS:
                if self._connection.execute(_MAKE_DUE, {"b_id": head["id"], "b_now": self._now}).rowcount:
                    bell = {"id": new_id("wake"), "run_id": head["id"], "lane": head["lane"], "created_at": self._now}
                    self._connection.execute(_RING, bell)
                    break

    def _head(self, line: tuple[str, str]) -> sa.RowMapping | None:
        """Who goes, else who has waited for the longest."""
        workflow, key = line
        return self._connection.execute(_HEAD, {"workflow": workflow, "key": key}).mappings().one_or_none()


async def ahead(store: Store, runs: Iterable[Run]) -> dict[str, str]:
    """The run that goes, or is next to go, for each of these that waits for its turn."""
    waiting = {run.id: (run.workflow, run.serial_key or "") for run in runs if run.in_line}

    def read(connection: sa.Connection) -> dict[tuple[str, str], str | None]:
        found = {}
        for workflow, key in set(waiting.values()):
            found[workflow, key] = connection.execute(_HEAD, {"workflow": workflow, "key": key}).scalar()
        return found

    heads = await store.read(read) if waiting else {}
    return {run_id: head for run_id, line in waiting.items() if (head := heads[line]) not in (None, run_id)}


def _line(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["workflow"], row["serial_key"]


def _number(line: tuple[str, str]) -> int:
    """PostgreSQL's advisory locks are named by numbers; two lines that share one only wait for each other."""
    return int.from_bytes(hashlib.sha256("\0".join(line).encode()).digest()[:8], "big", signed=True)


_runs = schema.runs.c
_IN_LINE = sa.and_(
    _runs.workflow == sa.bindparam("workflow"), _runs.serial_key == sa.bindparam("key"), _runs.turn.is_not(None)
)
_HEAD = (
    sa.select(_runs.id, _runs.turn, _runs.created_at, _runs.lane)
    .where(_IN_LINE)
    .order_by(_runs.turn, _runs.created_at, _runs.id)
    .limit(1)
)
_MAKE_DUE = (
    sa.update(schema.runs)
    .where(_runs.id == sa.bindparam("b_id"), _runs.turn == WAITS)
    .values(due_at=sa.bindparam("b_now"), updated_at=sa.bindparam("b_now"))
)
_RING = sa.insert(schema.wakeups)
_LOCK_NUMBER = sa.bindparam("number", type_=sa.BigInteger)
_LOCK = sa.select(sa.func.pg_advisory_xact_lock(_LOCK_NUMBER))
_TRY_LOCK = sa.select(sa.func.pg_try_advisory_xact_lock(_LOCK_NUMBER))
