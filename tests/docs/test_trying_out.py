"""What the pages of the shipped workflows tell a reader to send is taken in, and starts what the page is about."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from eventwright.app.composition import open_app
from eventwright.app.settings import Settings
from eventwright.app.simulate import simulate
from eventwright.app.web.api import create_api
from eventwright.graphs.invoices import invoices
from eventwright.runs.states import RunState
from eventwright.tools.accounting import Books
from eventwright.tools.accounting_export import CsvExport

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {
    "support.md": "support",
    "invoices.md": "invoices",
    "leads.md": "leads",
    "discounts.md": "discounts",
    "failed-payments.md": "failed_payments",
    "api.md": "support",
}


def events_on(page: str) -> list[dict[str, Any]]:
    """What the page's curl lines send, as a shell reads them."""
    return [json.loads(body) for body in re.findall(r"-d '(\{[^']*\"specversion\"[^']*)'", (DOCS / page).read_text())]


@pytest.mark.parametrize("page", PAGES)
async def test_what_a_page_says_to_send_is_taken_in_and_starts_its_workflow(page: str, tmp_path: Path) -> None:
    (first, *_) = events_on(page)
    async with open_app(Settings(home=tmp_path, redis_url="none"), rings=False) as app:
        transport = httpx.ASGITransport(create_api(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            answer = await client.post(
                "/v1/events", json=first, headers={"content-type": "application/cloudevents+json"}
            )
        (run,) = await app.store.runs()

    assert answer.status_code == 202
    assert run.workflow == PAGES[page]


def test_every_page_calls_the_port_that_the_service_listens_on() -> None:
    ports = {
        (file.name, port)
        for file in DOCS.glob("*.md")
        for port in re.findall(r"(?:localhost|127\.0\.0\.1):(\d+)/", file.read_text())
    }

    assert {port for _, port in ports} == {str(Settings().port)}, ports


async def test_the_letter_on_the_page_of_invoices_is_booked_and_nobody_is_asked(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(import asyncio\n.*?)```", (DOCS / "invoices.md").read_text(), re.DOTALL)
    (tmp_path / ".eventwright").mkdir()
    program = await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=tmp_path)
    assert await program.wait() == 0
    (letter,) = events_on("invoices.md")

    async with Books.open(tmp_path / ".eventwright/accounting.db") as books:
        outside = [books, CsvExport(tmp_path / "entries.csv")]
        async with simulate(invoices, letter["data"], resources=outside) as simulation:
            run = await simulation.run()
        (payment,) = await books.payments()

    assert run.state is RunState.COMPLETED
    assert (payment.amount, payment.account) == (Decimal("75.00"), "DE89370400440532013000")
