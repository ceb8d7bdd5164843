"""The storm itself: a breath of it in every fault, and that it finds what is wrong and says so."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from tests.faults.books import Book
from tests.faults.storm import Storm, Weather, concluded, judge
from tests.faults.storm_faults import FAULTS
from tests.faults.storm_table import Report
from tests.faults.storm_world import StoreKind, a_world

BRISK = {"lease_seconds": 1.5, "heartbeat_seconds": 0.5, "sweep_seconds": 0.5}


def storm(store: StoreKind) -> Storm:
    return Storm(store=store, seed=1, seconds=0, plan=tuple(FAULTS[store]), pace=5, workers=2, times=BRISK)


def shown(report: Report) -> str:
    out = StringIO()
    report.show(Console(file=out, width=200))
    return out.getvalue()


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_a_storm_with_every_fault_once_breaks_no_promise(store: StoreKind, tmp_path: Path) -> None:
    report = await storm(store).rage(tmp_path)
    print(shown(report))  # noqa: T201 - worth reading with -s
    assert report.violations == []
    assert set(report.faults.values()) == {1}
    assert concluded([report], tmp_path, Console(file=StringIO()), keep=True) == 0


@pytest.mark.soak
@pytest.mark.timeout(240)
async def test_a_storm_tells_what_contradicts_the_books_and_ends_with_an_error(tmp_path: Path) -> None:
    books, servers = tmp_path / "storm", tmp_path / "servers"
    books.mkdir()
    servers.mkdir()
    breeze = Storm(store="sqlite", seed=1, seconds=0, plan=["FLUSHALL"], pace=5, workers=1, apis=1, times=BRISK)
    async with a_world(books, servers, "sqlite", apis=1, workers=1, times=BRISK) as world:
        weather = Weather(breeze, world)
        async with weather.lived_through():
            await weather.people.send_one(1)
            await weather.people.send_one(2)
        await weather.people.aclose()

        async def verdict() -> Report:
            return await judge(
                store="sqlite", seed=1, seconds=1, world=world, people=weather.people, faults=weather.faults
            )

        calm = await verdict()
        assert calm.violations == []
        assert concluded([calm], books, Console(file=StringIO()), keep=True) == 0

        told = world.provider.find("errand.tell")[0]
        Book(books / "provider").write(**{name: told[name] for name in ("what", "run", "key", "attempt", "once")})
        Book(books / "accepted").write(source="/storm", id="errand-lost", runs=["run_lost"])
        Book(books / "decided").write(review=weather.people.decided.lines()[0]["review"], by="eve", type="approve")
        found = await verdict()

    words = "\n".join(found.violations)
    assert f"errand.tell (plain, {told['key'][:12]}, run {told['run']}) happened 2 times" in words
    assert "event ('/storm', 'errand-lost') was answered with success and is not stored" in words
    assert "'eve'] about review" in words or "['eve'," in words
    assert "VIOLATION (sqlite, seed 1)" in shown(found)
    assert concluded([found], books, Console(file=StringIO())) == 1
    assert books.exists(), "what is needed to look into it was thrown away"
    assert json.loads((books / "provider").read_text().splitlines()[-1])["key"] == told["key"]
