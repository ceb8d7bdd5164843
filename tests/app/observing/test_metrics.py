"""Metrics: what happened is counted, few labels, no secrets, and a dashboard that shows what there is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.app.observing.office import approve, go_on, office, opened, send

from eventwright.app.composition import App, open_app
from eventwright.app.observing import exposition
from eventwright.app.observing.exposition import OF_DATABASE
from eventwright.app.observing.metrics import MOST_VALUES, OTHER, Few
from eventwright.app.observing.page import own_metrics, table
from eventwright.app.settings import Settings
from eventwright.app.web.access import OpenToStrangers
from eventwright.app.web.api import create_api
from eventwright.app.web.metrics_server import serve_metrics
from eventwright.queue.intake import EventRefused
from eventwright.runs.errors import StoreUnavailable
from eventwright.runs.states import RunState

ROOT = Path(__file__).parents[3]
DASHBOARD = ROOT / "deploy" / "grafana" / "eventwright.json"


async def scraped(app: App) -> dict[tuple[str, ...], float]:
    """Every sample: its name and its labels' values, in the order of their names."""
    text = (await app.exposition.all()).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value for sample in samples}


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "FRESH", 0.0)
    monkeypatch.setattr(exposition, "SHARE", 1e9)


# -- what can go wrong -------------------------------------------------------------------------------------------------


async def test_without_its_database_a_process_still_shows_what_it_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_store: object) -> None:
        raise StoreUnavailable("the database did not answer")

    async with opened(tmp_path) as app:
        await go_on(app, await send(app, amount="20.00"))
        monkeypatch.setattr(exposition, "take_census", away)
        found = await scraped(app)
    assert found["eventwright_database_up",] == 0
    assert found["eventwright_events_total", "accepted"] == 1
    assert ("eventwright_runs", "completed", "office") not in found


async def test_who_looks_often_asks_the_database_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "FRESH", 3600.0)
    async with opened(tmp_path) as app:
        before = await scraped(app)
        await go_on(app, await send(app, amount="20.00"))
        after = await scraped(app)
    assert ("eventwright_runs", "completed", "office") not in before | after
    assert after["eventwright_events_total", "accepted"] == 1


def test_a_label_takes_few_values_of_strangers() -> None:
    few = Few({"bank.pay"}, most=2)
    given = ["bank.pay", "one", "two", "three", "one", "x" * 500, "two\nforged 1", ""]
    assert [few(value) for value in given] == ["bank.pay", "one", "two", OTHER, "one", OTHER, OTHER, OTHER]


async def test_tools_that_a_model_makes_up_do_not_fill_the_metrics(tmp_path: Path) -> None:
    async with opened(tmp_path) as app:
        few = app.engine.store.telemetry._instruments.tools  # type: ignore[attr-defined]
        made_up = {few(f"no such tool: {number}") for number in range(MOST_VALUES + 10)}
        assert len(made_up) == MOST_VALUES + 1
        assert few("bank.pay") == "bank.pay"


async def test_a_refused_event_is_counted_and_so_is_a_duplicate(tmp_path: Path) -> None:
    async with opened(tmp_path) as app:
        run = await send(app)
        await app.engine.receive(run.event)
        with pytest.raises(EventRefused):
            await send(app, amount="much")
        found = await scraped(app)
    assert found["eventwright_events_total", "accepted"] == 1
    assert found["eventwright_events_total", "duplicate"] == 1
    assert found["eventwright_events_total", "refused"] == 1
    assert found["eventwright_events_refused",] == 1


async def test_with_a_key_the_metrics_need_it_and_without_one_they_do_not_leave_the_machine(tmp_path: Path) -> None:
    async with open_app(Settings(home=tmp_path, redis_url="none", api_key="made-up"), workflows=[office]) as app:
        transport = httpx.ASGITransport(create_api(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://example.org") as client:
            assert (await client.get("/metrics")).status_code == 401
            answer = await client.get("/metrics", headers={"authorization": "Bearer made-up"})
    assert answer.status_code == 200
    assert "made-up" not in answer.text


async def test_a_worker_shows_its_metrics_to_no_stranger(tmp_path: Path) -> None:
    import asyncio

    settings = Settings(home=tmp_path, redis_url="none", host="192.0.2.1", metrics_port=0)
    async with open_app(settings, workflows=[office]) as app:
        with pytest.raises(OpenToStrangers):
            await serve_metrics(app, asyncio.Event())


# -- what is counted ---------------------------------------------------------------------------------------------------


async def test_the_way_of_a_run_is_counted_and_timed(tmp_path: Path) -> None:
    async with opened(tmp_path) as app:
        run = await go_on(app, await send(app))
        found = await scraped(app)
        assert found["eventwright_runs", "pending_approval", "office"] == 1
        assert found["eventwright_reviews_open", "office"] == 1
        assert found["eventwright_reviews_oldest_seconds", "office"] >= 0
        assert found["eventwright_effects_total", "asked", "bank.pay"] == 1
        await approve(app, run)
        await go_on(app, run)
        waits = await send(app)
        found = await scraped(app)
        assert found["eventwright_due_runs", "default"] == 1
        assert found["eventwright_wakeups", "default", "waiting"] == 1
        await app.engine.cancel(waits.id, by="dana")
    assert found["eventwright_runs", "completed", "office"] == 1
    assert found["eventwright_transitions_total", "completed", "office"] == 1
    assert found["eventwright_outcomes_total", "approved", "office"] == 1
    assert found["eventwright_effects_total", "done", "bank.pay"] == 1
    assert found["eventwright_effects_total", "done", "model.ask"] == 1
    assert found["eventwright_decisions_total", "approve", "office"] == 1
    assert found["eventwright_model_tokens_total", "input", "offline-rules"] > 0
    assert found["eventwright_model_tokens_total", "output", "offline-rules"] > 0
    for rested in ("received", "pending_approval"):
        assert found["eventwright_first_node_seconds_count", rested] == 1
        assert found["eventwright_claim_wait_seconds_count", rested] == 1
    assert found["eventwright_segment_seconds_count", "completed", "office"] == 1
    assert found["eventwright_node_seconds_count", "settle", "office"] == 2
    assert found["eventwright_call_seconds_count", "bank.pay"] == 1
    assert found["eventwright_active_segments",] == 0
    assert found["eventwright_commits_total",] > 0


async def test_what_a_model_costs_is_counted_by_model_and_currency(tmp_path: Path) -> None:
    from tests.loopback import on_loopback
    from tests.tools.model_provider import Provider, called

    provider = Provider(script=[called({"value": "low", "confidence": 0.9, "reason": "x"}, name="choose")])
    async with on_loopback(provider.serve) as port:
        settings = Settings(
            home=tmp_path,
            redis_url="none",
            openai_base_url=f"http://127.0.0.1:{port}/v1",
            openai_api_key="made-up",
            model="gpt-4.1",
        )
        async with open_app(settings, workflows=[office], works=True) as app:
            await go_on(app, await send(app, amount="20.00"))
            found = await scraped(app)
    assert found["eventwright_model_tokens_total", "input", "gpt-test-2026"] == 31
    assert found["eventwright_model_tokens_total", "output", "gpt-test-2026"] == 7
    assert found["eventwright_model_cost_total", "USD", "gpt-test-2026"] > 0


async def test_attempts_and_failures_are_counted(tmp_path: Path) -> None:
    async with opened(tmp_path) as app:
        assert (await go_on(app, await send(app, account="busy", amount="20.00"))).state is RunState.RETRYING
        assert (await go_on(app, await send(app, account="closed", amount="20.00"))).state is RunState.FAILED
        found = await scraped(app)
    assert found["eventwright_retries_total", "office"] == 1
    assert found["eventwright_failures_total", "not_retryable", "office"] == 1
    assert found["eventwright_effects_total", "failed", "bank.pay"] >= 1


# -- the page and the dashboard ----------------------------------------------------------------------------------------


ALL = [*own_metrics(), *OF_DATABASE]


def test_every_metric_is_in_the_documentation() -> None:
    page = (ROOT / "docs" / "observability.md").read_text()
    assert table(OF_DATABASE) in page
    assert table(own_metrics()) in page


async def test_a_process_prints_the_metrics_that_are_declared(tmp_path: Path) -> None:
    async with opened(tmp_path) as app:
        text = (await app.exposition.all()).decode()
    printed = {family.name for family in text_string_to_metric_families(text) if family.name.startswith("eventwright")}
    assert printed == {family.name.removesuffix("_total") for family in ALL}


def panels() -> Iterator[dict[str, Any]]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        if panel["type"] != "row":
            yield panel


def test_every_panel_of_the_dashboard_has_a_title_and_a_unit_and_says_what_it_shows() -> None:
    found = list(panels())
    assert len(found) >= 12
    for panel in found:
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in found]
    assert len(places) == len(set(places))


def test_every_metric_and_label_of_the_dashboard_is_one_that_a_process_prints() -> None:
    labels: dict[str, set[str]] = {"process_resident_memory_bytes": set(), "process_cpu_seconds_total": set()}
    for family in ALL:
        suffixes = ["_bucket", "_sum", "_count"] if family.kind == "histogram" else [""]
        labels |= {f"{family.name}{suffix}": set(family.labels) for suffix in suffixes}
    for panel in panels():
        for target in panel["targets"]:
            named = set(re.findall(r"\b(?:eventwright|process)_\w+", target["expr"]))
            assert named, panel["title"]
            assert named <= labels.keys(), panel["title"]
            groups = re.findall(r"by \(([^)]*)\)", target["expr"])
            by = {label.strip() for group in groups for label in group.split(",")} - {"le", "instance"}
            chosen = set(re.findall(r"(\w+)(?:=~?|!~?)\"", target["expr"])) - {"instance"}
            assert by | chosen <= set().union(*(labels[name] for name in named)), panel["title"]
