"""The command line about events: `send`, `events`, `replay-event`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from contextlib import AsyncExitStack
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from eventwright.app.commands.console import AsJson, By, perform, show, show_json
from eventwright.app.commands.runs import LOOK, REPAIR
from eventwright.app.commands.session import opened, read_settings, whoami, whole_id
from eventwright.runs.event import new_id
from eventwright.runs.records import EventState

if TYPE_CHECKING:
    from eventwright.app.composition import App
    from eventwright.app.wire.problems import Problem
    from eventwright.runs.event import Event

#: Where an event comes from that was written on the command line.
SOURCE = "/command-line"

app = typer.Typer()


@app.command(rich_help_panel=LOOK)
def send(
    file: Annotated[str | None, typer.Argument(metavar="FILE", help="Events as JSON; - is standard input.")] = None,
    type: Annotated[str | None, typer.Option(help="The event's type; FILE then holds its data alone.")] = None,
    data: Annotated[str | None, typer.Option(metavar="JSON", help="With --type: the data, instead of FILE.")] = None,
    id: Annotated[str | None, typer.Option(help="With --type: the event's id; by default a new one.")] = None,
    source: Annotated[str, typer.Option(help="With --type: who says so.")] = SOURCE,
    payload_version: Annotated[str, typer.Option(help="With --type: the version of the data's shape.")] = "1",
    to: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="The API of another machine, with EVENTWRIGHT_API_KEY; by default this database."
        ),
    ] = None,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Send events.

    The same event again is a duplicate and starts nothing. FILE holds a
    CloudEvent, a JSON array of them, or one on each line. A service that is
    busy is tried for a minute, as often as it asks for.

      [cyan]eventwright send event.json[/]
      [cyan]eventwright send --type ticket.created --data '{"text": "Hello"}'[/]
      [cyan]eventwright send ticket.json --type ticket.created --id ticket-17[/]
      [cyan]eventwright send --to https://shop.example.org - < events.jsonl[/]

    Next: [cyan]eventwright runs[/].
    """
    if file is None and data is None:
        raise typer.BadParameter("give a FILE, or --type and --data", param_hint="FILE")
    if file is not None and data is not None:
        raise typer.BadParameter("give the data once: in FILE or in --data", param_hint="--data")
    if type is None and (data is not None or id is not None):
        raise typer.BadParameter("an event needs a type", param_hint="--type")

    attributes = {"specversion": "1.0", "id": id or new_id("cli"), "source": source, "type": type}

    async def work() -> int:
        with _open(file) as stream:
            if type is None:
                items = _written(stream)
            else:
                raw = stream.read() if data is None else data.encode(errors="surrogateescape")
                items = _composed(attributes | {"payloadversion": payload_version}, raw)
            told = await _send_all(items, to, by and whoami(by))
        if as_json:
            show_json({"events": told})
        else:
            from eventwright.app.commands.screens import sent_screen

            show(sent_screen(told))
        return 1 if any("error" in item for item in told) else 0

    perform(work(), as_json=as_json)


def _open(file: str | None) -> IO[bytes]:
    if file is None:
        return BytesIO()
    return sys.stdin.buffer if file == "-" else Path(file).open("rb")


def _written(stream: IO[bytes]) -> Iterable[Event | Problem]:
    from eventwright.app.commands.event_files import read_file

    return read_file(stream)


def _composed(attributes: dict[str, Any], raw: bytes) -> Iterable[Event | Problem]:
    """The one event of these attributes and this data, as strictly read as one that came whole."""
    from eventwright.app.wire.envelopes import STRUCTURED, read_events
    from eventwright.app.wire.strict_json import parse

    event = json.dumps(attributes | {"data": parse(raw)})
    return read_events({"content-type": STRUCTURED}, event.encode()).items


async def _send_all(items: Iterable[Event | Problem], to: str | None, by: str | None) -> list[dict[str, Any]]:
    """Send one after the other, into our database or to an API. What became of each, as the API would say it."""
    from eventwright.app.sending import PATIENCE, NotAccepted, send
    from eventwright.app.web.access import key_of
    from eventwright.app.wire.problems import Problem

    told: list[dict[str, Any]] = []
    patience = PATIENCE
    async with AsyncExitStack() as stack:
        door: App | str = to if to is not None else await stack.enter_async_context(opened())
        key = key_of(read_settings()) if to is not None else None
        for item in items:
            if isinstance(item, Problem):
                told.append({"id": None, "source": None, "error": item.document()})
                continue
            try:
                told.append(await send(item, to=door, key=key, by=by, patience=patience))
            except NotAccepted as refused:
                if "retry_after" in refused.problem:
                    patience = 0.0  # it was waited for, and not for each event of a long file again
                told.append({"id": item.id, "source": item.source, "error": refused.problem})
    return told


# -- events that are there -------------------------------------------------------------------------------------------


@app.command(rich_help_panel=LOOK)
def events(
    state: Annotated[EventState | None, typer.Option(help="Only events in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the events that came in, and what became of them.

      [cyan]eventwright events[/]
      [cyan]eventwright events --state refused[/]    what fitted no payload model

    Next: [cyan]eventwright replay-event EVENT[/], once the workflow knows it.
    """

    async def work() -> None:
        from eventwright.app.commands.screens import events_screen
        from eventwright.app.web.models import EventPage, StoredEvent

        async with opened() as app:
            found = await app.store.events(state=state, limit=limit + 1)
            page = found[:limit]
            if as_json:
                following = page[-1].event.uid if len(found) > limit else None
                show_json(EventPage(items=[StoredEvent.of(stored) for stored in page], next=following))
            else:
                show(events_screen(page, await app.store.now()))

    perform(work(), as_json=as_json)


@app.command(rich_help_panel=REPAIR)
def replay_event(
    event: Annotated[str, typer.Argument(metavar="EVENT", help="A stored event's uid, or its beginning or end.")],
    as_json: AsJson = False,
) -> None:
    """Take a refused event in once more.

    It is checked as the code is now: after a deploy that knows its payload, it
    starts its runs.

      [cyan]eventwright replay-event 5c0e77d1[/]

    Next: [cyan]eventwright runs[/].
    """

    async def work() -> None:
        from eventwright.app.commands.screens import sent_screen
        from eventwright.app.web.models import AcceptedEvent

        async with opened() as app:
            receipt = await app.engine.receive_again(await whole_id(app.store, "event", event))
            item = AcceptedEvent.of(receipt).model_dump(mode="json")
            if as_json:
                show_json({"events": [item]})
            else:
                show(sent_screen([item]))

    perform(work(), as_json=as_json)
