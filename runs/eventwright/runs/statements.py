"""The inserts that say what happens when the row is there already; the two stores spell that differently."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from eventwright.runs import schema

#: What of an effect never changes, and what its own run does not change.
_OF_AN_EFFECT = frozenset({"run_id", "node", "visit", "tool", "ordinal", "tool_class", "undone_by"})


class Statements:
    """One store's inserts, made once."""

    def __init__(self, dialect: str) -> None:
        self._insert = sqlite.insert if dialect == "sqlite" else postgresql.insert
        #: Whether a row can be locked; SQLite locks all that there is.
        self.locks_rows = dialect != "sqlite"
        #: SQLite's answer is one row, as JSON: its driver gives the interpreter away for each row that it reads.
        run = schema.runs.c
        self.fences = sa.select(sa.func.json_group_array(sa.func.json_array(run.id, run.fence))).where(
            run.id.in_(sa.bindparam("ids", expanding=True))
        )
        #: Answers with the uids of the events that were new.
        self.event = self._insert(schema.events).on_conflict_do_nothing().returning(schema.events.c.uid)
        self.effect = self._upsert(schema.effects, keep=_OF_AN_EFFECT)
        self.visit = self._upsert(schema.visits)
        #: Answers with the scopes of the budgets that were new.
        self.budget = self._insert(schema.budgets).on_conflict_do_nothing().returning(schema.budgets.c.scope)
        self.reservation = self._upsert(schema.reservations, keep={"run_id"})
        self.graph = self._insert(schema.graphs).on_conflict_do_nothing()
        self.schedule = self._insert(schema.schedules).on_conflict_do_nothing()
        self.checkpoint = self._upsert(schema.checkpoints)
        self.checkpoint_write_first = self._insert(schema.checkpoint_writes).on_conflict_do_nothing()
        self.checkpoint_write_last = self._upsert(schema.checkpoint_writes)

    def _upsert(self, table: sa.Table, keep: frozenset[str] | set[str] = frozenset()) -> sa.Insert:
        """An insert that overwrites an earlier row of the same key, but for the columns it must keep."""
        insert = self._insert(table)
        key = [column.name for column in table.primary_key]
        news = {column.name: insert.excluded[column.name] for column in table.c if column.name not in {*key, *keep}}
        return insert.on_conflict_do_update(index_elements=key, set_=news)
