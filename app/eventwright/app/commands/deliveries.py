"""The command line about the log of webhooks: `deliveries list`, `deliveries show`, `deliveries replay`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from eventwright.app.commands.console import AsJson, By, perform, show, show_json
from eventwright.app.commands.runs import LOOK
from eventwright.app.commands.session import opened, the_one, whoami
from eventwright.runs.records import DeliveryOutcome

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from eventwright.app.web.models_webhooks import Delivery, ShownDelivery
    from eventwright.runs.store import Store

app = typer.Typer()
deliveries = typer.Typer(help="Read the log of webhooks.", no_args_is_help=True, rich_markup_mode="rich")

Which = Annotated[str, typer.Argument(metavar="DELIVERY", help="A delivery's id, or its beginning or end.")]


@deliveries.command("list")
def list_deliveries(
    source: Annotated[str | None, typer.Argument(metavar="SOURCE", help="Only those of this source.")] = None,
    outcome: Annotated[DeliveryOutcome | None, typer.Option(help="Only those of which this became.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List what was posted to the door for webhooks, and what became of it.

    Those that nobody had signed are counted in one line for every ten seconds.

      [cyan]eventwright deliveries list[/]
      [cyan]eventwright deliveries list stripe --outcome refused[/]

    Next: [cyan]eventwright deliveries show DELIVERY[/].
    """

    async def work() -> None:
        from eventwright.app.web.routes_webhooks import page

        async with opened() as app:
            name = None if source is None else source.lower().replace("_", "-")
            found, now = await page(app, source=name, outcome=outcome, limit=limit), await app.store.now()
        if as_json:
            show_json(found)
        else:
            show(_list_screen(found.items, now))

    perform(work(), as_json=as_json)


@deliveries.command("show")
def show_delivery(delivery: Which, as_json: AsJson = False) -> None:
    """Show one delivery, with its body where no event holds what it says.

      [cyan]eventwright deliveries show 5c0e77d1[/]

    Next: [cyan]eventwright deliveries replay DELIVERY[/].
    """

    async def work() -> None:
        from eventwright.app.web.models_webhooks import ShownDelivery
        from eventwright.runs.deliveries import get

        async with opened() as app:
            found = ShownDelivery.of(await get(app.store, await _whole_id(app.store, delivery)))
            now = await app.store.now()
        if as_json:
            show_json(found)
        else:
            show(_delivery_screen(found, now))

    perform(work(), as_json=as_json)


@deliveries.command("replay")
def replay_delivery(delivery: Which, by: By = None, as_json: AsJson = False) -> None:
    """Take in once more what a delivery brought.

    It is checked as the code is now: what was refused starts its runs once the
    model fits; what was accepted is answered with the same runs. The signature
    was checked when it came.

      [cyan]eventwright deliveries replay 5c0e77d1[/]

    Next: [cyan]eventwright runs[/].
    """

    async def work() -> None:
        from eventwright.app.commands.screens import sent_screen
        from eventwright.app.web.delivering import replay

        async with opened() as app:
            accepted = await replay(app, await _whole_id(app.store, delivery), by=whoami(by))
        told = accepted.model_dump(mode="json")
        if as_json:
            show_json(told)
        else:
            show(sent_screen(told["events"]))

    perform(work(), as_json=as_json)


async def _whole_id(store: Store, part: str) -> str:
    from eventwright.runs.deliveries import ids_like

    found = await ids_like(store, part) if part else []
    return the_one("delivery", part, found, "eventwright deliveries list")


def _list_screen(found: Sequence[Delivery], now: datetime) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from eventwright.app.commands.screens import ID, commands, table
    from eventwright.app.commands.telling import line, short, when
    from eventwright.app.commands.upkeep_screens import size

    if not found:
        return Text("Nothing was delivered.")
    made = table("delivery", "source", "outcome", "came", "size", "became", flexible="became")
    for one in found:
        made.add_row(
            Text(short(one.id), style=ID),
            line(one.source, 30),
            _outcome(one.outcome, one.times),
            Text(when(one.last_at or one.received_at, now), style="dim"),
            size(one.size),
            _became(one),
        )
    return Group(made, Text(), commands([f"eventwright deliveries show {short(found[0].id)}"]))


def _delivery_screen(found: ShownDelivery, now: datetime) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from eventwright.app.commands.screens import commands, facts, heading
    from eventwright.app.commands.telling import line, plain, short, when
    from eventwright.app.commands.upkeep_screens import size

    rows: list[tuple[str, RenderableType]] = [
        ("delivery", Text(found.id, style="bold")),
        ("source", line(found.source)),
        ("outcome", _outcome(found.outcome, found.times)),
        ("", Text(found.outcome.meaning, style="dim")),
        ("came", f"{found.received_at:%Y-%m-%d %H:%M:%S} UTC, {when(found.received_at, now)}"),
        ("size", size(found.size)),
    ]
    optional = {"digest": found.digest, "provider's id": found.message_id, "replayed by": found.replayed_by}
    rows += [(name, line(value)) for name, value in optional.items() if value]
    rows += [
        ("event", Text(f"{line(event.id or '')}  {event.outcome}  {line(event.uid or '')}")) for event in found.events
    ]
    rows.append(("became", _became(found)))
    parts: list[RenderableType] = [facts(rows)]
    if found.body is not None:
        parts += [heading("Body"), Text(plain(found.body))]
    if found.body is not None or any(event.uid for event in found.events):
        parts += [Text(), commands([f"eventwright deliveries replay {short(found.id)}"])]
    return Group(*parts)


def _outcome(outcome: DeliveryOutcome, times: int) -> Text:
    from eventwright.app.commands.screens import mark

    good = {DeliveryOutcome.ACCEPTED: "green", DeliveryOutcome.DUPLICATE: "dim", DeliveryOutcome.ANSWERED: "dim"}
    return mark(good.get(outcome, "red"), outcome if times == 1 else f"{outcome} ×{times}")


def _became(delivery: Delivery) -> str:
    """What became of a delivery in a line: its runs, or why there are none."""
    from eventwright.app.commands.telling import line, short

    runs = [f"run {short(run_id)}" for event in delivery.events for run_id in event.runs]
    problems = [event.problem for event in delivery.events] if delivery.events else [delivery.problem]
    why = [line(problem.get("detail") or problem.get("title", "")) for problem in problems if problem]
    return ", ".join([*runs, *why])


app.add_typer(deliveries, name="deliveries", rich_help_panel=LOOK)
