"""Makes the pictures on docs/inbox.md, with a browser of this machine: `python -m tests.app.inbox_pictures`."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import timedelta
from pathlib import Path

from tests.app.conftest import Bank, paying
from tests.app.inbox_browser import a_browser, browser_here
from tests.journeys.support_world import ANN, REFUND

from eventwright.app.composition import App, open_app
from eventwright.app.settings import Settings
from eventwright.app.web.api import serve_api
from eventwright.graphs.support import support
from eventwright.guardrails.policy import review
from eventwright.guardrails.rules import above, always
from eventwright.runs.event import Event

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
REFUNDS = paying(
    "refunds",
    "order.returned",
    approve_when=above("amount", 100),
    approval=review("Pay this refund?", deadline=timedelta(hours=4)),
)
PARTNERS = paying(
    "partners",
    "partner.invoiced",
    approve_when=always,
    approval=review("May this partner be paid?", roles=["finance"], deadline=timedelta(minutes=40)),
)
EVENTS = [
    Event(
        id="r-1", source="/shop", type="order.returned", subject="order 4711", data={"account": "ann", "amount": "250"}
    ),
    Event(
        id="p-1", source="/erp", type="partner.invoiced", subject="Initech", data={"account": "initech", "amount": "80"}
    ),
    Event(
        id="t-1", source="/desk", type="ticket.created", data={"sender": ANN.email, "subject": "Card", "text": REFUND}
    ),
    Event(
        id="t-2",
        source="/desk",
        type="ticket.created",
        data={"sender": ANN.email, "subject": "Hello", "text": "Blue is a colour, I think."},
    ),
]


async def make(folder: Path) -> None:
    """Photograph the list and one question. They are of this machine's fonts."""
    settings = Settings(home=folder / "home", redis_url="none", port=0, roles="finance=mona")
    workflows = [REFUNDS, PARTNERS, support]
    async with open_app(settings, workflows=workflows, resources=[Bank()], works=True, rings=False) as app:
        for event in EVENTS:
            for run in (await app.engine.receive(event)).runs:
                await app.engine.advance(run.id)
        stopping, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
        served = asyncio.create_task(serve_api(app, stopping, on_ready=ready.set_result))
        await photograph(app, await ready, folder)
        stopping.set()
        await served


async def photograph(app: App, url: str, folder: Path) -> None:
    """Both pages, as they look in daylight."""
    question = next(one for one in await app.store.reviews() if one.workflow == REFUNDS.name)
    async with a_browser(str(browser_here()), folder / "browser") as page:
        for name, place, height in (("inbox", "", 520), ("inbox-review", f"/reviews/{question.id}", 840)):
            await page.look(1000, height=height)
            await page.open(f"{url}/inbox{place}")
            await page.photograph(PICTURES / f"{name}.png", whole=False)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        asyncio.run(make(Path(temporary)))
