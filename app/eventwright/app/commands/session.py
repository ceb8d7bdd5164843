"""What a command of the command line works with: the settings, an open app, whole ids from parts of ids, your name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

from eventwright.app.commands.console import NotOne
from eventwright.runs.errors import EventwrightError

if TYPE_CHECKING:
    from eventwright.app.composition import App
    from eventwright.app.settings import Settings
    from eventwright.runs.store import Store

#: Where an operator finds the ids of each kind.
_LISTS = {"run": "eventwright runs", "review": "eventwright reviews", "event": "eventwright events"}


class BadSettings(EventwrightError, ValueError):
    """A setting in the environment is not what it should be. Its value is not repeated, it may be a secret."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__(f"{'; '.join(problems)}. docs/settings.md describes every setting")


class BadName(EventwrightError, ValueError):
    """Nobody can act under this name."""

    def __init__(self, name: str, longest: int) -> None:
        self.name = name
        super().__init__(
            f"--by {name!a} cannot stand in a journal: take 1 to {longest} printable characters, "
            "and no name of Eventwright itself"
        )


def read_settings(**changes: Any) -> Settings:
    """The settings, with those that options of a command replace. None changes nothing. Raises BadSettings."""
    from pydantic import ValidationError

    from eventwright.app.settings import Settings

    try:
        return Settings(**{name: value for name, value in changes.items() if value is not None})
    except ValidationError as error:
        raise BadSettings([_problem(item["loc"], item["msg"]) for item in error.errors(include_url=False)]) from None


def _problem(where: tuple[int | str, ...], message: str) -> str:
    name = ".".join(map(str, where)).upper()
    prefix = "" if not name or name.startswith(("OPENAI_", "EVENTWRIGHT_")) else "EVENTWRIGHT_"
    said = message.removeprefix("Value error, ")  # pydantic's own, before a sentence of ours
    return f"{prefix}{name}: {said}" if name else said


@asynccontextmanager
async def opened(*, works: bool = False, **changes: Any) -> AsyncIterator[App]:
    """An open app for one command. It rings a Redis that is configured; an embedded one is left to its workers.

    Args:
        works: whether runs are executed here.
        changes: settings that options of the command replace.
    """
    from eventwright.app.composition import open_app

    settings = read_settings(**changes)
    rings = settings.redis_url not in ("", "none")
    async with open_app(settings, works=works, rings=rings) as app:
        yield app


async def whole_id(store: Store, kind: Literal["run", "review", "event"], part: str) -> str:
    """The one id that begins or ends with `part`. Raises NotOne."""
    return the_one(kind, part, await store.ids_like(kind, part) if part else [], _LISTS[kind])


def the_one(kind: str, part: str, found: list[str], where: str) -> str:
    """The one of the ids that `part` names; `where` lists them all. Raises NotOne."""
    if part in found:
        return part
    if len(found) != 1:
        raise NotOne(kind, part, found, where)
    return found[0]


def whoami(by: str | None) -> str:
    """The name under which this terminal acts: the one given, else whom the machine says you are. It proves nothing.

    Raises:
        BadName: it could be taken for one of ours, or cannot stand in a journal.
    """
    from eventwright.app.web.access import LONGEST_NAME, OURS, local_user
    from eventwright.runs.records import person

    if by is None:
        return local_user()
    name = by.strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable() or person(name) in OURS:
        raise BadName(by, LONGEST_NAME)
    return name
