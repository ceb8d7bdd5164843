"""Triggers in the user's own SQLite file.

SQLite has no functions of ours in it, so a trigger names each column itself: it writes down the columns that were
there when it was installed. What it was installed for stands in a comment in it, where it is found again.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from eventwright.queue.database_changes import INBOX, InboxAway
from eventwright.queue.database_changes_sqlite import connected, transaction
from eventwright.queue.database_triggers import (
    COUNTS,
    LONGEST_ROW,
    LONGEST_VALUE,
    PROBLEMS,
    BadTrigger,
    Found,
    Installed,
    Plan,
    Triggers,
    UnknownTable,
    Wanted,
    chosen,
    label_of,
    superseded,
    trigger_name,
)

Answer = TypeVar("Answer")

#: After a trigger's name: begins the comment that says what it was installed for.
MARK = "\n/* eventwright "

_TABLE = f"""CREATE TABLE IF NOT EXISTS {INBOX} (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL DEFAULT (lower(hex(randomblob(16)))),
    changed_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')),
    source TEXT NOT NULL,
    type TEXT NOT NULL,
    operation TEXT NOT NULL,
    key TEXT,
    old TEXT,
    new TEXT,
    changed TEXT NOT NULL,
    omitted TEXT NOT NULL,
    problem TEXT
)"""
#: A value of the column, as JSON has it: bytes in hex, real numbers with all their digits, the infinite ones by name.
_VALUE = r"""CASE typeof({0}) WHEN 'blob' THEN '\x' || lower(hex({0}))
            WHEN 'real' THEN iif({0} - {0} = 0, json(printf('%!.17g', {0})), CAST({0} AS TEXT)) ELSE {0} END"""
_FITS = f"size <= {LONGEST_VALUE} AND (is_key OR total <= {LONGEST_ROW})"


class SqliteTriggers(Triggers):
    """See `Triggers`.

    Args:
        path: the user's file, which must be there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def install(self, wanted: Wanted) -> Plan:
        return await self._in_thread(lambda connection: _install(connection, wanted))

    async def uninstall(self, table: str, type: str | None = None) -> Plan:
        return await self._in_thread(lambda connection: _uninstall(connection, table, type))

    async def run(self, plan: Plan) -> None:
        await self._in_thread(lambda connection: _run(connection, plan))

    async def look(self) -> Found:
        return await self._in_thread(_look)

    async def _in_thread(self, work: Callable[[sqlite3.Connection], Answer]) -> Answer:
        def on_connection() -> Answer:
            with _away_as_ours(self._path), connected(self._path) as connection:
                return work(connection)

        return await asyncio.to_thread(on_connection)


@contextmanager
def _away_as_ours(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise InboxAway(str(path), error) from error


def _install(connection: sqlite3.Connection, wanted: Wanted) -> Plan:
    table = _table(connection, wanted.table)
    columns = _columns(connection, table)
    if strangers := [name for name in wanted.columns if name not in columns]:
        raise BadTrigger(f"{table!r} has no column {strangers[0]!r}; its columns are: {', '.join(columns)}")
    label = label_of(table)
    there = _there(connection, table)
    names = [trigger_name(wanted, label, operation) for operation in wanted.operations]
    gone = {one.name for one in superseded(wanted, label, there)} | {one.name for one in there if one.name in names}
    quoted = _identifier(connection, table)
    triggers = [
        _trigger(connection, wanted, label, operation, name, quoted, columns)
        for operation, name in zip(wanted.operations, names, strict=True)
    ]
    drops = [f"DROP TRIGGER {_identifier(connection, name)}" for name in sorted(gone)]
    # SQLite looks at what a trigger names only when it prepares what fires it.
    (first, *_) = (_identifier(connection, name) for name in wanted.columns or columns)
    checks = {
        "insert": f"EXPLAIN INSERT INTO {quoted} DEFAULT VALUES",
        "update": f"EXPLAIN UPDATE {quoted} SET {first} = {first}",  # noqa: S608 - SQLite has quoted them
        "delete": f"EXPLAIN DELETE FROM {quoted}",  # noqa: S608
    }
    return Plan(
        label=label,
        statements=(_TABLE, *drops, *triggers),
        checks=tuple(checks[operation] for operation in wanted.operations),
    )


def _trigger(
    connection: sqlite3.Connection,
    wanted: Wanted,
    label: str,
    operation: str,
    name: str,
    table: str,
    columns: dict[str, bool],
) -> str:
    """The SQL that creates one trigger."""
    type = wanted.event_type(label, operation)
    of = wanted.columns if operation == "update" else ()
    said = {"table": label, "operation": operation, "type": type, "columns": of, "when": wanted.when}
    comment = json.dumps(said).replace("/", r"\/")  # no end of a comment
    row = ",\n".join(
        f"            ({_literal(connection, column)}, {is_key:d}, {before}, {after})"
        for column, is_key in columns.items()
        for before, after in [_sides(operation, _identifier(connection, column))]
    )
    source, kind = (_literal(connection, text) for text in (label, type))
    only_of = f" OF {', '.join(_identifier(connection, column) for column in of)}" if of else ""
    condition = "" if wanted.when is None else f"\nWHEN ({wanted.when}\n)"
    before, after = (_side(side) if side in _SIDES[operation] else "NULL" for side in ("before", "after"))
    key = "after" if "after" in _SIDES[operation] else "before"
    differs = "before IS NOT after" if operation == "update" else "0"
    return f"""CREATE TRIGGER {_identifier(connection, name)}{MARK}{comment} */
AFTER {operation.upper()}{only_of} ON {table} FOR EACH ROW{condition}
BEGIN
    INSERT INTO {INBOX} (source, type, operation, key, old, new, changed, omitted)
    SELECT * FROM (SELECT {source}, {kind}, '{operation}',
        {_side(key, "is_key AND size <= " + str(LONGEST_VALUE))},
        {before},
        {after},
        json_group_array(name) FILTER (WHERE {differs}) AS changed,
        json_group_array(name) FILTER (WHERE NOT ({_FITS}))
    FROM (SELECT *, sum(size) FILTER (WHERE size <= {LONGEST_VALUE}) OVER () AS total FROM (
        SELECT *, max(length(CAST(coalesce(before, '') AS BLOB)), length(CAST(coalesce(after, '') AS BLOB)))
            * iif('blob' IN (typeof(before), typeof(after)), 2, 1) AS size
        FROM (SELECT NULL AS name, NULL AS is_key, NULL AS before, NULL AS after WHERE 0 UNION ALL VALUES
{row}
    )))) WHERE {"changed <> '[]'" if operation == "update" else "1"};
END"""  # noqa: S608 - SQLite has quoted the names; the condition is for it to judge


_SIDES = {"insert": ("after",), "update": ("before", "after"), "delete": ("before",)}


def _sides(operation: str, column: str) -> tuple[str, str]:
    return (
        f"OLD.{column}" if "before" in _SIDES[operation] else "NULL",
        f"NEW.{column}" if "after" in _SIDES[operation] else "NULL",
    )


def _side(side: str, only: str = _FITS) -> str:
    return f"json_group_object(name, {_VALUE.format(side)})\n            FILTER (WHERE {only})"


def _uninstall(connection: sqlite3.Connection, table: str, type: str | None) -> Plan:
    there = chosen(_there(connection, found := _table(connection, table)), type)
    drops = [f"DROP TRIGGER {_identifier(connection, one.name)}" for one in there]
    return Plan(label=label_of(found), statements=tuple(drops))


def _run(connection: sqlite3.Connection, plan: Plan) -> None:
    try:
        with transaction(connection):
            for statement in (*plan.statements, *plan.checks):
                connection.execute(statement)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        raise BadTrigger(f"SQLite refuses it, and nothing was changed: {error}") from error
    except (sqlite3.Warning, sqlite3.ProgrammingError) as error:
        raise BadTrigger(f"SQLite refuses it, and nothing was changed: {error}") from error


def _look(connection: sqlite3.Connection) -> Found:
    there = _there(connection)
    if not connection.execute("SELECT count(*) FROM sqlite_master WHERE name = ?", (INBOX,)).fetchone()[0]:
        return Found(triggers=there)
    waiting, put_aside = connection.execute(COUNTS).fetchone()
    problems = tuple(row["problem"] for row in connection.execute(PROBLEMS))
    return Found(triggers=there, waiting=waiting, put_aside=put_aside, problems=problems)


def _table(connection: sqlite3.Connection, written: str) -> str:
    """The table's name as SQLite has it, which knows no difference between letters of both cases."""
    found = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE", (written,)
    ).fetchone()
    if found is None:
        tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        names = ", ".join(row["name"] for row in connection.execute(tables))
        raise UnknownTable(written, f"the file's tables are: {names}" if names else "the file has none")
    return str(found["name"])


def _columns(connection: sqlite3.Connection, table: str) -> dict[str, bool]:
    """The columns that have values, and whether each belongs to the primary key."""
    hidden = 1
    found = connection.execute("SELECT name, pk, hidden FROM pragma_table_xinfo(?) ORDER BY cid", (table,))
    return {row["name"]: row["pk"] > 0 for row in found if row["hidden"] != hidden}


def _there(connection: sqlite3.Connection, table: str | None = None) -> tuple[Installed, ...]:
    found = connection.execute(
        "SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'eventwright:%' "
        "AND (? IS NULL OR tbl_name = ?) ORDER BY name",
        (table, table),
    ).fetchall()
    return tuple(one for row in found if (one := _installed(connection, row)) is not None)


def _installed(connection: sqlite3.Connection, row: Any) -> Installed | None:
    sql: str = row["sql"]
    _, _, rest = sql.partition(_identifier(connection, row["name"]))
    if not rest.startswith(MARK):
        return None  # somebody else's
    said, _ = json.JSONDecoder().raw_decode(rest, len(MARK))
    columns: Sequence[str] = tuple(_columns(connection, row["tbl_name"]))
    unknown = [column for column in columns if f"({_literal(connection, column)}, " not in sql]
    return Installed(name=row["name"], unknown=tuple(unknown), **{**said, "columns": tuple(said["columns"])})


def _identifier(connection: sqlite3.Connection, name: str) -> str:
    return str(connection.execute("SELECT printf('\"%w\"', ?)", (name,)).fetchone()[0])


def _literal(connection: sqlite3.Connection, text: str) -> str:
    return str(connection.execute("SELECT printf('%Q', ?)", (text,)).fetchone()[0])
