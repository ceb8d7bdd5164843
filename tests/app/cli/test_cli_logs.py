"""The logs of a process that stays: what stands in them, and what must not."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from io import StringIO

import pytest

from eventwright.app.commands.logs import log_to_stderr


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(params=[Terminal, StringIO], ids=["terminal", "file"])
def stderr(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[StringIO]:
    """What stands on stderr once logging is set up for it; afterwards logging is as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    monkeypatch.setattr(sys, "stderr", stream := request.param())
    log_to_stderr()
    try:
        yield stream
    finally:
        root.handlers = handlers
        root.setLevel(level)


def charge(secret: str) -> None:
    raise ValueError(f"no card takes {len(secret)} \x1b]0;letters\x07")


def test_a_traceback_shows_where_and_no_value_of_any_variable(stderr: StringIO) -> None:
    try:
        charge("hunter" + "2")
    except ValueError:
        logging.getLogger("test").exception("it failed")
    told = stderr.getvalue()
    assert "it failed" in told
    assert "raise ValueError" in told
    assert "hunter2" not in told


def test_a_strangers_words_in_a_traceback_do_not_steer_the_terminal(stderr: StringIO) -> None:
    try:
        charge("x")
    except ValueError:
        logging.getLogger("test").exception("it failed: %s", "\x1b]0;owned\x07")
    told = stderr.getvalue()
    assert "no card takes 1" in told
    assert "\x1b]" not in told
    assert "\x07" not in told


def test_personal_data_are_not_logged_and_ids_are(stderr: StringIO) -> None:
    try:
        raise ValueError("no mail to ann@example.org")
    except ValueError:
        logging.getLogger("test").exception("run_%s failed for %s", "0" * 32, {"card": "4111 1111 1111 1111"})
    told = stderr.getvalue()
    assert f"run_{'0' * 32} failed" in told
    assert "no mail to [email" in told
    assert "ann@example.org" not in told
    assert "4111" not in told
