"""Installing triggers on the user's tables: what is wanted, what would be run, what is there.

Nothing is run that was not shown: `install` and `uninstall` make a plan, `run` carries it out in one transaction.
The database itself quotes names and judges conditions.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from urllib.parse import quote

from eventwright.queue.intake import OWN_TYPES
from eventwright.runs.errors import EventwrightError
from eventwright.runs.records import person

OPERATIONS = ("insert", "update", "delete")
#: Bytes of a name that PostgreSQL keeps; characters of an event's type.
LONGEST_NAME, LONGEST_TYPE = 63, 200
#: Bytes of one value, and of all values of a row, that a trigger writes down.
LONGEST_VALUE, LONGEST_ROW = 64 * 1024, 256 * 1024

#: How much is in an inbox, and what is wrong with what was put aside.
COUNTS = "SELECT count(*) FILTER (WHERE problem IS NULL), count(problem) FROM eventwright_inbox"
PROBLEMS = "SELECT problem FROM eventwright_inbox WHERE problem IS NOT NULL ORDER BY position LIMIT 3"


class BadTrigger(EventwrightError, ValueError):
    """Such a trigger cannot be installed. Nothing was changed."""


class UnknownTable(EventwrightError, LookupError):
    """The database has no such table."""

    def __init__(self, table: str, hint: str) -> None:
        self.table = table
        super().__init__(f"there is no table {table!r}; {hint}")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which changes of a table are to become events.

    Args:
        table: as the operator writes it.
        operations: of insert, update, delete; without any all three, or update alone if there are columns or a
            condition.
        columns: updates count only if they set one of these.
        when: a condition in the database's SQL, over OLD and NEW.
        type: of the events; by default the table's name and the operation.

    Raises:
        BadTrigger: this goes with no table.
    """

    table: str
    operations: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    when: str | None = None
    type: str | None = None

    def __post_init__(self) -> None:
        if not self.operations:
            object.__setattr__(self, "operations", ("update",) if self.columns or self.when else OPERATIONS)
        if unknown := [operation for operation in self.operations if operation not in OPERATIONS]:
            raise BadTrigger(f"{unknown[0]!r} is no operation; they are {', '.join(OPERATIONS)}")
        if self.columns and "update" not in self.operations:
            raise BadTrigger("columns are set by updates alone; add update to the operations, or leave the columns out")
        if self.type is not None:
            _check_type(self.type)

    def event_type(self, label: str, operation: str) -> str:
        """The type of the events of this operation."""
        return self.type or f"{label}.{operation}"


def _check_type(type: str) -> None:
    if not type.isprintable() or not 0 < len(type) <= LONGEST_TYPE:
        raise BadTrigger(f"an event's type is 1 to {LONGEST_TYPE} printable characters, which {type[:80]!a} is not")
    if person(type).startswith(OWN_TYPES):
        raise BadTrigger(f"types that begin with {OWN_TYPES!r} are Eventwright's own, so {type!r} cannot be one")


@dataclass(frozen=True, kw_only=True)
class Installed:
    """A trigger of ours, as it is in the database."""

    name: str
    table: str
    operation: str
    type: str
    columns: tuple[str, ...] = ()
    when: str | None = None
    #: Columns that the table has had for less time than the trigger, which does not know them.
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What would be run, as one transaction.

    - `label`: how the table is called in the sources of events;
    - `checks`: run at the end of it, for what the database would else find out too late; they change nothing.
    """

    label: str
    statements: tuple[str, ...]
    checks: tuple[str, ...] = ()

    @property
    def sql(self) -> str:
        """The SQL as the database's own shell takes it."""
        return "\n".join(["BEGIN;", *(f"{statement};" for statement in self.statements), "COMMIT;"])


@dataclass(frozen=True, kw_only=True)
class Found:
    """What is in a database.

    - `waiting`: changes that wait to be taken;
    - `problems`: changes that were put aside, each with what is wrong with it; the oldest.
    """

    triggers: tuple[Installed, ...] = ()
    waiting: int = 0
    put_aside: int = 0
    problems: tuple[str, ...] = ()


class Triggers(ABC):
    """The triggers in one database of the user's."""

    @abstractmethod
    async def install(self, wanted: Wanted) -> Plan:
        """What has to be run. What is there already for the same table and type is replaced.

        Raises:
            UnknownTable, BadTrigger, InboxAway.
        """

    @abstractmethod
    async def uninstall(self, table: str, type: str | None = None) -> Plan:
        """What has to be run to have no trigger of ours on the table, or none that sends this type. The inbox stays.

        Raises:
            UnknownTable, InboxAway.
        """

    @abstractmethod
    async def run(self, plan: Plan) -> None:
        """Run a plan, all of it or nothing.

        Raises:
            BadTrigger: the database refuses it.
            InboxAway.
        """

    @abstractmethod
    async def look(self) -> Found:
        """What is there. Raises InboxAway."""


def label_of(*parts: str) -> str:
    """A table's name for sources and types: it stands in an address, and no two tables share it."""
    return ".".join(quote(part, safe="").replace(".", "%2E") for part in parts)


def trigger_name(wanted: Wanted, label: str, operation: str) -> str:
    """The trigger's own name: one for each table, operation and type."""
    name = f"eventwright:{label}:{operation}"
    if wanted.type is not None and wanted.type != f"{label}.{operation}":
        name += f":{wanted.type}"
    raw = name.encode()
    if len(raw) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(raw).hexdigest()[:12]
    return f"{raw[: LONGEST_NAME - 13].decode(errors='ignore')}:{digest}"


def superseded(wanted: Wanted, label: str, there: tuple[Installed, ...]) -> list[Installed]:
    """Those on the table that send what is wanted for an operation that is not wanted any more."""
    return [
        one
        for one in there
        if one.operation not in wanted.operations and one.type == wanted.event_type(label, one.operation)
    ]


def chosen(there: tuple[Installed, ...], type: str | None) -> list[Installed]:
    """Those that send events of this type, or all."""
    return [one for one in there if type in (None, one.type)]
