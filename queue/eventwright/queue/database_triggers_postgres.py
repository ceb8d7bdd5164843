"""Triggers in a PostgreSQL database, and the one function that all of them call: it writes a change into the inbox."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg

from eventwright.queue.database_changes import INBOX, InboxAway, postgres_address
from eventwright.queue.database_changes_postgres import AWAY, CONNECT_SECONDS
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

FUNCTION = "eventwright_note_change"
#: Nobody who writes to the table waits longer for us to install a trigger on it.
PATIENCE = "SET LOCAL lock_timeout = '5s'"

#: Stands for the quoted name of the inbox's schema.
SCHEMA = "%schema%"

_TABLE = f"""CREATE TABLE IF NOT EXISTS {SCHEMA}.{INBOX} (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    source text NOT NULL,
    type text NOT NULL,
    operation text NOT NULL,
    key json,
    old json,
    new json,
    changed json NOT NULL,
    omitted json NOT NULL,
    problem text
)"""

# Its owner's rights: who may change the table needs none to the inbox. Its own settings: what a value looks like does
# not depend on whose session changes it. Exact numbers are written as strings, long values are left out, and an
# escape in a column of JSON that PostgreSQL itself cannot read becomes U+FFFD, for the change must not fail of it.
_FUNCTION = f"""CREATE OR REPLACE FUNCTION {SCHEMA}.{FUNCTION}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC' SET bytea_output = 'hex' SET intervalstyle = 'iso_8601' SET extra_float_digits = 1
AS $eventwright$
DECLARE
    lines json[] := ARRAY[row_to_json(OLD), row_to_json(NEW)];
BEGIN
    FOR side IN 1..2 LOOP
        IF lines[side]::text ~ '\\\\u(0000|[dD][89a-fA-F])' THEN
            BEGIN
                PERFORM FROM json_each(lines[side]);
            EXCEPTION WHEN data_exception THEN
                lines[side] := regexp_replace(
                    lines[side]::text, '\\\\u(0000|[dD][89a-fA-F][0-9a-fA-F]{{2}})', '\\ufffd', 'g'
                );
            END;
        END IF;
    END LOOP;
    INSERT INTO {SCHEMA}.{INBOX} (source, type, operation, key, old, new, changed, omitted)
    WITH columns AS (
        SELECT a.attname AS name, a.attnum AS number, coalesce(a.attnum = ANY (i.indkey), false) AS is_key,
               'numeric'::regtype IN (t.oid, t.typbasetype) AS exact
        FROM pg_attribute a
        JOIN pg_type t ON t.oid = a.atttypid
        LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
        WHERE a.attrelid = TG_RELID AND a.attnum > 0 AND NOT a.attisdropped
    ), cells AS (
        SELECT c.*, o.value AS before, n.value AS after,
               greatest(octet_length(o.value::text), octet_length(n.value::text)) AS size
        FROM columns c
        LEFT JOIN json_each(lines[1]) o ON o.key = c.name
        LEFT JOIN json_each(lines[2]) n ON n.key = c.name
    ), measured AS (
        SELECT name, number, is_key,
               TG_OP = 'UPDATE' AND before::text IS DISTINCT FROM after::text AS differs,
               size > {LONGEST_VALUE} OR NOT is_key
                   AND sum(size) FILTER (WHERE size <= {LONGEST_VALUE}) OVER () > {LONGEST_ROW} AS left_out,
               CASE WHEN exact AND json_typeof(before) = 'number' THEN to_json(before::text) ELSE before END AS before,
               CASE WHEN exact AND json_typeof(after) = 'number' THEN to_json(after::text) ELSE after END AS after
        FROM cells
    )
    SELECT TG_ARGV[0], TG_ARGV[1], lower(TG_OP),
           json_object_agg(name, coalesce(after, before) ORDER BY number) FILTER (WHERE is_key AND NOT left_out),
           CASE WHEN TG_OP <> 'INSERT' THEN
               coalesce(json_object_agg(name, before ORDER BY number) FILTER (WHERE NOT left_out), '{{}}') END,
           CASE WHEN TG_OP <> 'DELETE' THEN
               coalesce(json_object_agg(name, after ORDER BY number) FILTER (WHERE NOT left_out), '{{}}') END,
           coalesce(json_agg(name ORDER BY number) FILTER (WHERE differs), '[]'),
           coalesce(json_agg(name ORDER BY number) FILTER (WHERE left_out), '[]')
    FROM measured
    HAVING TG_OP <> 'UPDATE' OR bool_or(differs);
    IF FOUND THEN
        PERFORM pg_notify('{INBOX}', '');
    END IF;
    RETURN NULL;
END
$eventwright$"""  # noqa: S608 - our own names

_OURS = f"""
    SELECT t.tgname, t.tgargs, t.tgtype, pg_get_triggerdef(t.oid) AS definition,
           ARRAY(SELECT a.attname::text FROM unnest(t.tgattr::int2[]) WITH ORDINALITY AS c(number, place)
                 JOIN pg_attribute a ON a.attrelid = t.tgrelid AND a.attnum = c.number ORDER BY c.place) AS columns
    FROM pg_trigger t
    WHERE t.tgfoid = to_regprocedure('{FUNCTION}()') AND t.tgparentid = 0 AND ($1::oid IS NULL OR t.tgrelid = $1)
    ORDER BY t.tgrelid, t.tgname
"""  # noqa: S608 - our own name
_INSERTS, _DELETES = 4, 8
_CONDITION = re.compile(r" FOR EACH ROW WHEN \((.*)\) EXECUTE ", re.DOTALL)


@asynccontextmanager
async def postgres_triggers(database: str, url: str) -> AsyncIterator[Triggers]:
    """The triggers of the database of this name. Raises BadDatabase, InboxAway."""
    with _away_as_ours(database):
        connection = await asyncpg.connect(
            postgres_address(database, url), timeout=CONNECT_SECONDS, statement_cache_size=0
        )
    try:
        yield PostgresTriggers(database, connection)
    finally:
        connection.terminate()


class PostgresTriggers(Triggers):
    """See `Triggers`.

    Args:
        database: its name in the settings.
        connection: asyncpg's.
    """

    def __init__(self, database: str, connection: Any) -> None:
        self._database, self._connection = database, connection

    async def install(self, wanted: Wanted) -> Plan:
        with _away_as_ours(self._database):
            schema = await self._schema()
            table, oid, label = await self._table(wanted.table)
            columns = await self._quoted("quote_ident", *wanted.columns)
            statements = [
                PATIENCE,
                _TABLE.replace(SCHEMA, schema),
                f"REVOKE ALL ON {schema}.{INBOX} FROM PUBLIC",
                _FUNCTION.replace(SCHEMA, schema),
                f"REVOKE ALL ON FUNCTION {schema}.{FUNCTION}() FROM PUBLIC",
            ]
            for one in superseded(wanted, label, await self._there(oid)):
                (name,) = await self._quoted("quote_ident", one.name)
                statements.append(f"DROP TRIGGER {name} ON {table}")
            for operation in wanted.operations:
                (name,) = await self._quoted("quote_ident", trigger_name(wanted, label, operation))
                arguments = await self._quoted("quote_literal", label, wanted.event_type(label, operation))
                of = f" OF {', '.join(columns)}" if columns and operation == "update" else ""
                when = "" if wanted.when is None else f"\n    WHEN ({wanted.when}\n    )"
                statements.append(
                    f"CREATE OR REPLACE TRIGGER {name}\n    AFTER {operation.upper()}{of} ON {table}\n    FOR EACH ROW"
                    f"{when}\n    EXECUTE FUNCTION {schema}.{FUNCTION}({', '.join(arguments)})"
                )
        return Plan(label=label, statements=tuple(statements))

    async def uninstall(self, table: str, type: str | None = None) -> Plan:
        with _away_as_ours(self._database):
            quoted, oid, label = await self._table(table)
            names = [one.name for one in chosen(await self._there(oid), type)]
            drops = [f"DROP TRIGGER {name} ON {quoted}" for name in await self._quoted("quote_ident", *names)]
        return Plan(label=label, statements=(PATIENCE, *drops) if drops else ())

    async def run(self, plan: Plan) -> None:
        try:
            async with self._connection.transaction():
                for statement in plan.statements:
                    # Prepared, so it is one statement, whatever somebody wrote as a condition.
                    await self._connection.fetch(statement)
        except asyncpg.PostgresError as error:
            raise BadTrigger(f"PostgreSQL refuses it, and nothing was changed: {error}") from error
        except AWAY as error:
            raise InboxAway(self._database, error) from error

    async def look(self) -> Found:
        with _away_as_ours(self._database):
            there = tuple(await self._there(None))
            if await self._connection.fetchval("SELECT to_regclass($1)", INBOX) is None:
                return Found(triggers=there)
            waiting, put_aside = await self._connection.fetchrow(COUNTS)
            problems = tuple(row["problem"] for row in await self._connection.fetch(PROBLEMS))
        return Found(triggers=there, waiting=waiting, put_aside=put_aside, problems=problems)

    async def _schema(self) -> str:
        """Where the inbox is, or will be, quoted. Raises BadTrigger."""
        found = await self._connection.fetchrow(
            """SELECT quote_ident(n.nspname) AS schema, pg_has_role(c.relowner, 'USAGE') AS ours
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)""",
            INBOX,
        )
        if found is None:
            schema: str | None = await self._connection.fetchval("SELECT quote_ident(current_schema())")
            if schema is None:
                raise BadTrigger("the role has no schema in its search_path in which the inbox could be created")
            return schema
        if not found["ours"]:
            # Its owner could have what is written there run with our rights.
            raise BadTrigger(f"{found['schema']}.{INBOX} belongs to another role; install with that one, or drop it")
        return str(found["schema"])

    async def _table(self, written: str) -> tuple[str, int, str]:
        """The quoted name, the oid and the label of the table that is meant: by its name as it stands, else as SQL
        reads it. Raises UnknownTable."""
        oid = await self._connection.fetchval(
            "SELECT oid FROM pg_class WHERE relname = $1 AND relkind IN ('r', 'p', 'f') AND pg_table_is_visible(oid)",
            written,
        )
        if oid is None:
            try:
                oid = await self._connection.fetchval("SELECT to_regclass($1)::oid", written)
            except asyncpg.PostgresError:
                oid = None  # it cannot be read as a name
        if oid is None:
            raise UnknownTable(written, "one outside the search_path is written as schema.table, and quoted as in SQL")
        row = await self._connection.fetchrow(
            """SELECT format('%I.%I', n.nspname, c.relname) AS quoted, n.nspname = current_schema() AS here,
                      n.nspname::text AS schema, c.relname::text AS name
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1""",
            oid,
        )
        label = label_of(row["name"]) if row["here"] else label_of(row["schema"], row["name"])
        return row["quoted"], oid, label

    async def _there(self, oid: int | None) -> tuple[Installed, ...]:
        return tuple(_installed(row) for row in await self._connection.fetch(_OURS, oid))

    async def _quoted(self, function: str, *texts: str) -> list[str]:
        return [await self._connection.fetchval(f"SELECT {function}($1::text)", text) for text in texts]


def _installed(row: Any) -> Installed:
    table, type = (part.decode() for part in row["tgargs"].split(b"\0")[:2])
    kind = row["tgtype"]
    condition = _CONDITION.search(row["definition"])
    return Installed(
        name=row["tgname"],
        table=table,
        operation="insert" if kind & _INSERTS else "delete" if kind & _DELETES else "update",
        type=type,
        columns=tuple(row["columns"]),
        when=condition and condition[1],
    )


@contextmanager
def _away_as_ours(database: str) -> Iterator[None]:
    try:
        yield
    except AWAY as error:
        raise InboxAway(database, error) from error
