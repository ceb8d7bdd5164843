"""LangSmith: traces leave by its usual variables, without what may not leave; its absence disturbs nobody."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import langsmith
import langsmith.utils
import pytest
from tests.app.observing.office import approve, go_on, office, opened, send
from tests.app.observing.standins import LangSmith

from eventwright.app.observing import langsmith_tracing
from eventwright.app.simulate import simulate
from eventwright.guardrails.detectors import PERSONAL, Detector
from eventwright.guardrails.redaction import Redaction
from eventwright.runs.states import RunState

SECRET = "sk_live_canary_7f21"
SONG = f"write to ann@example.org, card 4111 1111 1111 1111, key {SECRET}"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[LangSmith]:
    monkeypatch.setenv("EVENTWRIGHT_SECRET_STRIPE", SECRET)
    service = LangSmith.ready()
    with service.serving(), service.chosen(monkeypatch):
        yield service


async def test_what_is_kept_from_models_does_not_leave_to_langsmith(tmp_path: Path, service: LangSmith) -> None:
    async with opened(tmp_path) as app:
        run = await go_on(app, await send(app, f"urgent: {SONG}", amount="20.00"))
        failed = await go_on(app, await send(app, SONG, account="closed", amount="20.00"))
    assert (run.state, failed.state) == (RunState.COMPLETED, RunState.FAILED)
    assert "urgent" in service.text
    assert "[email 1]" in service.text
    assert "ann@example.org" not in service.text
    assert SECRET not in service.text
    assert "4111" not in service.text


async def test_a_workflow_that_hides_more_hides_it_from_langsmith_too(service: LangSmith) -> None:
    orders = Detector("order", lambda text: (found.span() for found in re.finditer(r"ORD-\d+", text)))
    shy = dataclasses.replace(office, redaction=Redaction(model=[*PERSONAL, orders]))
    async with simulate(shy, {"text": "urgent: ORD-4711", "amount": "20.00"}) as simulation:
        assert (await simulation.run()).state is RunState.COMPLETED
    assert "[order 1]" in service.text
    assert "ORD-4711" not in service.text


async def test_every_node_arrives_with_its_run_and_its_workflow(tmp_path: Path, service: LangSmith) -> None:
    async with opened(tmp_path) as app:
        run = await go_on(app, await send(app))
        await approve(app, run)
        await go_on(app, run)
    found = [one for one in service.runs().values() if one.get("name") in ("judge", "settle")]
    assert {one["name"] for one in found} == {"judge", "settle"}
    for one in found:
        about = one["extra"]["metadata"]
        assert (about["run_id"], about["workflow"], about["workflow_version"]) == (run.id, "office", "1")
        assert one["session_name"] == "support-desk"


@pytest.mark.parametrize("away", ["refuses", "silent", "broken"])
async def test_a_langsmith_that_is_away_fails_no_run(
    tmp_path: Path,
    service: LangSmith,
    away: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(langsmith_tracing, "FAREWELL", 0.2)
    if away == "refuses":
        monkeypatch.setenv("LANGSMITH_ENDPOINT", "http://127.0.0.1:1")
        langsmith.utils.get_env_var.cache_clear()
    if away == "silent":
        service.silent.set()
    service.status = 500 if away == "broken" else 200
    with caplog.at_level(logging.CRITICAL):
        async with opened(tmp_path) as app:
            for _ in range(3):
                assert (await go_on(app, await send(app, amount="20.00"))).state is RunState.COMPLETED


async def test_traces_that_cannot_leave_are_dropped_and_do_not_pile_up(
    tmp_path: Path, service: LangSmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(langsmith_tracing, "FAREWELL", 0.0)
    monkeypatch.setattr(langsmith_tracing, "MOST_WAITING", 5)
    service.silent.set()
    async with opened(tmp_path) as app:
        for _ in range(5):
            assert (await go_on(app, await send(app, amount="20.00"))).state is RunState.COMPLETED
        client = langsmith.run_trees.get_cached_client()
        assert client.tracing_queue is not None
        assert client.tracing_queue.qsize() <= 5


async def test_settings_that_langsmith_does_not_take_turn_its_tracing_off(
    tmp_path: Path, service: LangSmith, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LANGSMITH_TRACING_SAMPLING_RATE", "7")
    langsmith.utils.get_env_var.cache_clear()
    async with opened(tmp_path) as app:
        assert (await go_on(app, await send(app, amount="20.00"))).state is RunState.COMPLETED
    assert "LangSmith tracing is off" in caplog.text
    assert service.bodies == []


async def test_without_its_variables_nothing_leaves(
    tmp_path: Path, service: LangSmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LANGSMITH_TRACING")
    langsmith.utils.get_env_var.cache_clear()
    async with opened(tmp_path) as app:
        await go_on(app, await send(app, amount="20.00"))
    assert service.bodies == []
