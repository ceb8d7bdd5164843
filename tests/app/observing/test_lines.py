"""Log lines: what happened, where, in one line each; no stranger writes a line of his own, and nothing is told that may
not be."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import structlog
from tests.app.observing.office import approve, go_on, opened, send

from eventwright.app.commands.logs import Format, log_to_stderr
from eventwright.guardrails.redaction import Redaction
from eventwright.queue.intake import EventRefused
from eventwright.runs.states import RunState

SECRET = "sk_live_canary_7f21"
FORGED = '{"event": "run completed", "run": "run_1"}'


class Lines:
    """What was logged, line by line."""

    def __init__(self, stream: StringIO) -> None:
        self._stream = stream

    @property
    def text(self) -> list[str]:
        return self._stream.getvalue().splitlines()

    def all(self, event: str) -> list[dict[str, Any]]:
        return [line for line in map(json.loads, self.text) if line["event"] == event]

    def the(self, event: str) -> dict[str, Any]:
        (line,) = self.all(event)
        return line


def logging_to(monkeypatch: pytest.MonkeyPatch, format: Format, level: int = logging.INFO) -> Iterator[Lines]:
    root = logging.getLogger()
    handlers, before = root.handlers, root.level
    monkeypatch.setattr(sys, "stderr", stream := StringIO())
    log_to_stderr(level, redaction=Redaction(literals=(SECRET,)), format=format)
    try:
        yield Lines(stream)
    finally:
        root.handlers = handlers
        root.setLevel(before)
        structlog.reset_defaults()


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    yield from logging_to(monkeypatch, "json")


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    yield from logging_to(monkeypatch, "console")


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    yield from logging_to(monkeypatch, "json", logging.ERROR)


# -- what a stranger writes --------------------------------------------------------------------------------------------


async def test_a_strangers_words_make_no_line_of_json(tmp_path: Path, lines: Lines) -> None:
    async with opened(tmp_path) as app:
        run = await go_on(app, await send(app, f"urgent\n{FORGED}\r\n{FORGED}", amount="20.00"))
        logging.getLogger("stranger").info("he said\n%s", FORGED)
    assert [line["run"] for line in lines.all("run completed")] == [run.id]
    assert all(isinstance(json.loads(line), dict) for line in lines.text)


async def test_a_strangers_words_make_no_line_at_a_terminal(tmp_path: Path, console: Lines) -> None:
    forged = "12:00:00 [error] the database is gone"
    async with opened(tmp_path) as app:
        await go_on(app, await send(app, f"urgent\n{forged}\x1b[31m", amount="20.00"))
        logging.getLogger("stranger").warning("he said\n%s", forged, extra={"note": {"deep": [f"\n{forged}"]}})
        try:
            raise ValueError(f"no\n{forged}")
        except ValueError:
            logging.getLogger("stranger").exception("it failed")
    assert not any(line.startswith(forged) for line in console.text)
    assert any(forged in line for line in console.text)
    assert not any("\x1b" in line for line in console.text)


async def test_no_secret_and_no_personal_data_is_logged(tmp_path: Path, lines: Lines) -> None:
    song = f"ann@example.org, 4111 1111 1111 1111, {SECRET}"
    async with opened(tmp_path) as app:
        await go_on(app, await send(app, song, amount="20.00"))
        await go_on(app, await send(app, account="closed", amount="20.00"))
        structlog.get_logger("node").info("by structlog", song=song)
    told = "\n".join(lines.text)
    assert "ann@example.org" not in told
    assert "4111" not in told
    assert SECRET not in told
    assert "[email 1]" in lines.the("by structlog")["song"]


async def test_a_long_answer_is_shortened(tmp_path: Path, lines: Lines) -> None:
    async with opened(tmp_path) as app:
        await go_on(app, await send(app, "urgent " * 500, amount="20.00"))
    assert max(len(line) for line in lines.text if '"effect done"' in line) < 2000


# -- what is told ------------------------------------------------------------------------------------------------------


async def test_the_lines_of_a_run_answer_what_came_in_what_was_done_and_how_it_ended(
    tmp_path: Path, lines: Lines
) -> None:
    async with opened(tmp_path) as app:
        run = await go_on(app, await send(app))
        await approve(app, run)
        await go_on(app, run)
    accepted = lines.the("event accepted")
    assert (accepted["source"], accepted["type"], accepted["payload_version"]) == ("/test", "claim.made", "1")
    assert accepted["runs"] == [run.id]
    asked, paid = lines.all("effect done")
    assert (asked["tool"], asked["node"], asked["result"]["value"]) == ("model.ask", "judge", "urgent")
    assert (paid["tool"], paid["arguments"]["amount"], paid["result"]) == ("bank.pay", "80.00", "paid 80.00")
    assert (paid["class"], paid["attempt"]) == ("keyed", 1)
    assert lines.the("run pending_approval")["run"] == run.id
    assert lines.the("decision")["by"] == "dana"
    assert (lines.the("run completed")["outcome"], lines.the("run completed")["attempt"]) == ("approved", 1)
    ids = {line["trace_id"] for line in map(json.loads, lines.text) if "trace_id" in line}
    assert len(ids) == 1


async def test_a_failure_is_told_with_its_reason_and_how_often_it_was_tried(tmp_path: Path, lines: Lines) -> None:
    async with opened(tmp_path) as app:
        run = await go_on(app, await send(app, account="busy", amount="20.00"))
        assert run.state is RunState.RETRYING
        failed = await go_on(app, await send(app, account="closed", amount="20.00"))
        with pytest.raises(EventRefused):
            await send(app, amount="much")
    tried = lines.the("run retrying")
    assert (tried["run"], tried["attempt"], tried["node"], tried["level"]) == (run.id, 2, "settle", "warning")
    assert "the bank is busy" in tried["error"]
    ended = lines.the("run failed")
    assert (ended["run"], ended["reason"]) == (failed.id, "not_retryable")
    assert "is closed" in ended["error"]
    refused = lines.the("event refused")
    assert (refused["reason"], refused["level"]) == ("EventRefused", "warning")


async def test_every_line_from_within_a_node_says_which_run_it_belongs_to(tmp_path: Path, lines: Lines) -> None:
    async with opened(tmp_path) as app:
        run = await go_on(app, await send(app, amount="20.00"))
        logging.getLogger("outside").info("a line from elsewhere")
    for event in ("a line from a node", "a line by structlog"):
        line = lines.the(event)
        assert (line["run"], line["workflow"], line["node"], line["logger"]) == (run.id, "office", "judge", "office")
        assert line["worker"] == app.engine.worker
        assert line["trace_id"] in (run.trace or "")
    assert "run" not in lines.the("a line from elsewhere")


async def test_below_its_level_nothing_is_told(tmp_path: Path, quiet: Lines) -> None:
    async with opened(tmp_path) as app:
        await go_on(app, await send(app, amount="20.00"))
        await go_on(app, await send(app, account="closed", amount="20.00"))
    assert quiet.text == []


def test_a_library_that_finds_nobody_says_so_once_a_minute(lines: Lines) -> None:
    for number in range(5):
        logging.getLogger("opentelemetry.exporter").error("could not send batch %s", number)
        logging.getLogger("eventwright.test").error("line %s", number)
    assert len([line for line in lines.text if "could not send" in line]) == 1
    assert len([line for line in lines.text if "eventwright.test" in line]) == 5
