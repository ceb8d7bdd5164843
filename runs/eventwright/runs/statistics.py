"""What the database holds, counted: rows and bytes of tables, runs of workflows, the log of writes. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from eventwright.runs import schema
from eventwright.runs.states import FINAL, RunState
from eventwright.runs.store import Store


@dataclass(frozen=True, kw_only=True)
class TableUse:
    """A table with its indexes."""

    name: str
    rows: int
    #: None where the database cannot say (an SQLite built without dbstat).
    bytes: int | None


@dataclass(frozen=True, kw_only=True)
class WorkflowUse:
    """The runs of a workflow, and the oldest of them that is not at its end."""

    name: str
    runs: int
    unfinished: int
    oldest: str | None = None
    oldest_state: RunState | None = None
    oldest_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What the database holds."""

    tables: Sequence[TableUse]
    workflows: Sequence[WorkflowUse]
    #: Of the whole database, and how many of these are free to be used again (SQLite alone knows).
    bytes: int
    free_bytes: int | None
    #: Of the write-ahead log; None where we may not look.
    log_bytes: int | None


async def statistics(store: Store) -> Statistics:
    """Count. Raises StoreUnavailable."""
    return await store.read(_count)


def _count(connection: sa.Connection) -> Statistics:
    sizes, about = _SIZES[connection.dialect.name](connection)
    rows = {table.name: connection.execute(_rows_of(table)).scalar_one() for table in schema.metadata.sorted_tables}
    tables = [TableUse(name=name, rows=rows[name], bytes=sizes.get(name)) for name in rows]
    return Statistics(
        tables=sorted(tables, key=lambda table: (-(table.bytes or 0), table.name)),
        workflows=_workflows(connection),
        **about,
    )


def _rows_of(table: sa.Table) -> sa.Select[Any]:
    return sa.select(sa.func.count()).select_from(table)


def _workflows(connection: sa.Connection) -> list[WorkflowUse]:
    oldest = {row.workflow: row for row in connection.execute(_OLDEST)}
    counted: dict[str, dict[str, int]] = {}
    for row in connection.execute(_COUNTS):
        counted.setdefault(row.workflow, {})[row.state] = row.runs
    found = []
    for name, states in sorted(counted.items()):
        unfinished = sum(runs for state, runs in states.items() if state not in FINAL)
        use = WorkflowUse(name=name, runs=sum(states.values()), unfinished=unfinished)
        first = oldest.get(name)
        if first is not None:
            about = {"oldest": first.id, "oldest_state": RunState(first.state), "oldest_at": first.created_at}
            use = WorkflowUse(**(vars(use) | about))
        found.append(use)
    return found


def _sizes_on_sqlite(connection: sa.Connection) -> tuple[dict[str, int], dict[str, Any]]:
    def number(pragma: str) -> int:
        return int(connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one())

    page = number("page_size")
    about = {"bytes": page * number("page_count"), "free_bytes": page * number("freelist_count")}
    known = connection.exec_driver_sql("SELECT 1 FROM pragma_compile_options WHERE compile_options LIKE '%DBSTAT%'")
    sizes: dict[str, int] = {}
    if known.first() is not None:
        sizes = {row.tbl_name: row.bytes for row in connection.exec_driver_sql(_DBSTAT)}
    file = connection.exec_driver_sql("PRAGMA database_list").first()
    log = Path(f"{file[2]}-wal") if file is not None else None
    return sizes, about | {"log_bytes": log.stat().st_size if log is not None and log.exists() else 0}


def _sizes_on_postgresql(connection: sa.Connection) -> tuple[dict[str, int], dict[str, Any]]:
    sizes = {row.relname: row.bytes for row in connection.exec_driver_sql(_RELATIONS)}
    total = connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one()
    may_look = connection.exec_driver_sql("SELECT has_function_privilege('pg_ls_waldir()', 'execute')").scalar_one()
    log = connection.exec_driver_sql("SELECT sum(size)::bigint FROM pg_ls_waldir()").scalar_one() if may_look else None
    return sizes, {"bytes": total, "free_bytes": None, "log_bytes": log}


_SIZES = {"sqlite": _sizes_on_sqlite, "postgresql": _sizes_on_postgresql}
_DBSTAT = (
    "SELECT m.tbl_name, sum(s.pgsize) AS bytes FROM dbstat s JOIN sqlite_master m ON m.name = s.name"
    " WHERE s.aggregate = TRUE GROUP BY m.tbl_name"
)
_RELATIONS = (
    "SELECT relname, pg_total_relation_size(oid) AS bytes FROM pg_class"
    " WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"
)
_RUNS = schema.runs.c
_COUNTS = sa.select(_RUNS.workflow, _RUNS.state, sa.func.count().label("runs")).group_by(_RUNS.workflow, _RUNS.state)
#: Ids sort by the time at which they were made.
_FIRST = (
    sa.select(sa.func.min(_RUNS.id))
    .where(_RUNS.state.in_([str(state) for state in RunState if state not in FINAL]))
    .group_by(_RUNS.workflow)
)
_OLDEST = sa.select(_RUNS.workflow, _RUNS.id, _RUNS.state, _RUNS.created_at).where(_RUNS.id.in_(_FIRST))
