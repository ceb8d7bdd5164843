"""The logs of a process that stays: what stands in them, and what must not."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator
from io import StringIO

import pytest

from eventwright.app.commands.logs import log_to_stderr
from eventwright.app.commands.processes import together
from eventwright.tools.linkage import Person, link


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


def test_the_library_that_compares_people_does_not_write_its_steps_between_our_lines(stderr: StringIO) -> None:
    ann = Person(id="1", given_name="Ann", surname="Miller", email="ann@example.org")
    assert link([ann, ann.model_copy(update={"id": "2"})])
    assert stderr.getvalue() == ""


async def test_a_process_in_which_something_breaks_logs_where_and_ends_the_rest_warmly(stderr: StringIO) -> None:
    ended = asyncio.Event()

    async def breaks(_stopping: asyncio.Event) -> None:
        async with asyncio.TaskGroup():
            charge("hunter" + "2")

    async def serves(stopping: asyncio.Event) -> None:
        await stopping.wait()
        ended.set()

    with pytest.raises(ExceptionGroup):
        await together(asyncio.Event(), serves, breaks)

    assert ended.is_set()
    assert "raise ValueError" in stderr.getvalue()
