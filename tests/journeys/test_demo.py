"""The demo: what a newcomer sees first has to be true, every time, on every machine."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from eventwright.app.commands.screens import STATES
from eventwright.app.composition import open_app
from eventwright.app.demo.messages import Case, messages
from eventwright.app.demo.play import HomeTaken, Story, demo, demo_settings
from eventwright.app.demo.table import Scene, board
from eventwright.app.web.api import serve_api
from eventwright.graphs.support import TEAMS
from eventwright.runs.event import Event
from eventwright.runs.records import Run
from eventwright.runs.states import RunState
from eventwright.tools.crm import packaged_accounts
from eventwright.tools.smtp_server import local_smtp

#: Settings of a user's own, none of which may reach the demo.
FOREIGN = {
    "EVENTWRIGHT_API_KEY": "somebody's",
    "EVENTWRIGHT_DATABASE_URL": "postgresql://nobody@localhost:1/none",
    "EVENTWRIGHT_REDIS_URL": "redis://localhost:1",
    "EVENTWRIGHT_WORKFLOWS": "nothing.of.the.kind",
    "EVENTWRIGHT_PORT": "1",
    "OPENAI_API_KEY": "sk-nobody",
    "OPENAI_BASE_URL": "http://127.0.0.1:1/v1",
}


def start(*options: str, folder: Path) -> subprocess.Popen[str]:
    """The demo as `make demo` starts it, without a terminal."""
    program = "import sys; from eventwright.app.cli import main; sys.argv[0] = 'eventwright'; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program, "demo", *options],
        cwd=folder,
        env={**os.environ, **FOREIGN, "TMPDIR": str(folder), "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.timeout(300)
def test_the_demo_plays_every_hard_case_to_its_end_and_leaves_nothing_behind(tmp_path: Path) -> None:
    process = start("--once", folder=tmp_path)
    told, complaints = process.communicate(timeout=280)

    assert (process.returncode, complaints) == (0, "")
    before, _, after = told.partition("so three colleagues do it by a script")
    for case in Case:
        assert case is Case.PLAIN or case is Case.REFUND or case is Case.FLAKY_MAIL or case.meaning in before, case
    for words in (
        "What became of 40 messages",
        "Done automatically  30",
        "Waits for a person  7",
        "Dead letters  1",
        "Recognised as a duplicate  1",
        "Refused, and kept  1",
        "20.50 GBP given back",
        "refused twice; sent at attempt 3",
        "480.00 GBP is above the limit of 85.00",
        "payload version '7' of 'ticket.created' is not known",
    ):
        assert words in before, words
    assert len(re.findall(r"^ +eventwright decide \w{8} ", before, re.MULTILINE)) == 7
    assert len(re.findall(r"^ +eventwright (replay|run) \w{8}$", before, re.MULTILINE)) == 2
    assert "piet would reject 13, and is told (409) that noor was first: approve" in after
    assert "Waits for a person" not in after
    assert "Dead letters" not in after
    assert "38 runs, all completed; 38 mails, one each." in after
    assert "\x1b" not in told
    assert not list(tmp_path.iterdir())


def test_a_signal_ends_the_demo_early_and_cleanly(tmp_path: Path) -> None:
    process = start(folder=tmp_path)
    assert process.stdout is not None
    assert "Eventwright serves at" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, complaints = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "Traceback" not in complaints
    assert not list(tmp_path.iterdir())


async def test_a_demo_whose_story_goes_wrong_says_where_and_fails(tmp_path: Path) -> None:
    """Here the workflow is missing, so the payload of an unknown version is refused by nobody."""
    shown = io.StringIO()
    settings = demo_settings(tmp_path)
    stopping = asyncio.Event()
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with local_smtp() as smtp, open_app(settings, workflows=[], rings=False) as app:
        serving = asyncio.create_task(serve_api(app, stopping, on_ready=ready.set_result))
        story = Story(app, smtp, Console(file=shown, width=200), tmp_path, settings.helpdesk_secret)
        assert await story.tell(ready, once=True) == 1
        stopping.set()
        await serving

    assert "The demo went wrong: POST /v1/webhooks/helpdesk was answered with 202 instead of 422" in shown.getvalue()


async def test_the_demo_asks_for_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(HomeTaken):
        await demo(once=True, home=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_the_messages_are_real_tickets_of_forty_customers_with_each_hard_case_among_them() -> None:
    sent = messages()
    known = {account.email for account in packaged_accounts()}
    assert {message.case for message in sent} == set(Case)
    assert all(message.account.email in known for message in sent)
    assert len({message.account.email for message in sent}) == len(sent)
    assert [m.case for m in sent if m.sender not in known] == [Case.NO_SENDER, Case.STRANGER]
    # The board shows all at once on a terminal of 80 by 24; a reader sees more than one kind of ticket.
    assert len(sent) < 42
    assert len({message.subject for message in sent}) > len(TEAMS)


@pytest.mark.parametrize(("width", "height"), [(80, 26), (80, 24), (140, 40), (200, 24), (40, 60)])
def test_the_board_shows_every_run_and_fits_the_terminal(width: int, height: int) -> None:
    scene = Scene(messages())
    for message in scene.messages:
        scene.runs[message.number] = _run(RunState.PENDING_APPROVAL)
    shown = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    with shown.capture() as captured:
        shown.print(board(scene, width, height))
    lines = captured.get().splitlines()

    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    for message in scene.messages:
        assert re.search(rf"(^|\s){message.number}  ", captured.get()), message.number


def test_each_state_of_a_run_has_a_colour_on_the_board() -> None:
    assert set(STATES) == set(RunState)


def _run(state: RunState) -> Run:
    event = Event(id="e", source="/s", type="t", data={})
    return Run(
        id="run_1",
        workflow="support",
        version="1",
        state=state,
        lane="default",
        event=event,
        created_at=event.received_at,
        updated_at=event.received_at,
    )
