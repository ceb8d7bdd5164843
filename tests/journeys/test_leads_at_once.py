"""Forms of one person at the same moment make one lead, on both stores, with two machines at work."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.journeys.leads_world import a_market, submitted

from eventwright.app.simulate import simulator
from eventwright.graphs.leads import leads
from eventwright.queue.engine import Engine
from eventwright.runs.states import FINAL, Outcome, RunState


async def all_ended(engines: list[Engine], runs: list[str]) -> list[Any]:
    """Both machines take on every run at once, again and again, until each has ended."""
    for _ in range(200):
        found = [await engines[0].store.run(run) for run in runs]
        if all(run.state in FINAL or run.state is RunState.FAILED for run in found):
            return found
        for engine in engines:
            await engine.tick()
        await asyncio.gather(*(engine.advance(run) for run in runs for engine in engines))
    raise AssertionError([(run.state, run.error) for run in found])


async def test_forms_with_one_address_make_one_lead(tmp_path: Path, database_url: str) -> None:
    async with (
        a_market(tmp_path) as market,
        simulator(leads, resources=market.clients, database_url=database_url) as (one, _),
        simulator(leads, resources=market.clients, database_url=database_url) as (two, _),
    ):
        events = [submitted(message=f"A quote for {number} licences, please.") for number in range(6)]
        receipts = await asyncio.gather(
            *(engine.receive(event) for event, engine in zip(events, [one, two] * 3, strict=True))
        )
        ended = await all_ended([one, two], [receipt.runs[0].id for receipt in receipts])

        assert {run.outcome for run in ended} == {Outcome.AUTO}
        assert await market.contacts() == 1
        [contact] = await market.book.candidates((await market.book.leads_of(await the_id(market)))[0])
        assert len(await market.book.leads_of(contact.id)) == 6


async def test_forms_of_one_person_under_two_addresses_make_one_lead_too(tmp_path: Path, database_url: str) -> None:
    # They share no serial key, so both look while the book is empty; the book itself lets one of them in.
    async with (
        a_market(tmp_path) as market,
        simulator(leads, resources=market.clients, database_url=database_url) as (one, _),
        simulator(leads, resources=market.clients, database_url=database_url) as (two, _),
    ):
        everybody_has_looked = asyncio.Barrier(2)
        real = market.book.candidates
        looked: set[str] = set()

        async def candidates(details: Any) -> Any:
            found = await real(details)
            if details.email not in looked:
                looked.add(details.email)
                await everybody_has_looked.wait()
            return found

        market.book.candidates = candidates  # type: ignore[method-assign]
        events = [submitted(), submitted(email="l.harrington@example.org", surname="Harington")]
        receipts = await asyncio.gather(
            *(engine.receive(event) for event, engine in zip(events, (one, two), strict=True))
        )
        ended = await all_ended([one, two], [receipt.runs[0].id for receipt in receipts])

        assert {run.outcome for run in ended} == {Outcome.AUTO}
        assert await market.contacts() == 1
        assert len(await market.book.leads_of(await the_id(market))) == 2


async def the_id(market: Any) -> str:
    [row] = await market.book.execute("SELECT id FROM contacts")
    return str(row["id"])
