"""The demo: forty signed webhooks through the real doors, a live board, and what became of each of them.

It sets everything up by itself and needs no account and no key: an embedded Valkey, SQLite, the API, a worker, a local
mail server and the offline model. Its retries wait fractions of a second.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from eventwright.app.commands.console import console
from eventwright.app.commands.processes import stopped_by_signals, together
from eventwright.app.composition import App, open_app
from eventwright.app.demo.messages import SOURCE, Case, Message, break_mail, mend_mail, messages
from eventwright.app.demo.script import Door, StoryBroken, answer_everything
from eventwright.app.demo.table import Scene, board, counts, summary
from eventwright.app.settings import Settings
from eventwright.app.web.api import serve_api
from eventwright.graphs.support import support
from eventwright.graphs.workflow import Workflow
from eventwright.guardrails.policy import Backoff, Policy
from eventwright.queue.webhooks import sign
from eventwright.runs.errors import EventwrightError
from eventwright.runs.records import ReviewState
from eventwright.runs.states import Outcome, RunState
from eventwright.tools.mail import Mailer
from eventwright.tools.payments import PaymentLedger
from eventwright.tools.smtp_server import LocalSmtp, local_smtp

#: Seconds between two messages when somebody watches.
PACE = 0.15
#: Seconds between two looks at the runs.
LOOK = 0.1
#: Seconds in which everything has to come to rest.
PATIENCE = 45.0
#: Seconds between two lines of progress where nobody sees a board.
LINES = 2.0
#: More runs than the demo has.
MOST = 200

#: How each case ends once everybody has answered.
ENDS = {
    Case.UNCLEAR: Outcome.EDITED,
    Case.NO_SENDER: Outcome.APPROVED,
    Case.STRANGER: Outcome.APPROVED,
    Case.REFUND_TO_APPROVE: Outcome.APPROVED,
    Case.REFUND_TO_REJECT: Outcome.REJECTED,
    Case.REFUND_TO_EDIT: Outcome.EDITED,
}
#: Whom the first part of the story leaves waiting.
ASKS = {*ENDS, Case.LOST_ANSWER}


class HomeTaken(EventwrightError, FileExistsError):
    """The demo begins in an empty folder, or its story would be another."""

    def __init__(self, home: Path) -> None:
        self.home = home
        super().__init__(
            f"{home} is not empty; name another folder for the demo, or none for one that is gone at the end"
        )


class DemoSettings(Settings):
    """Settings that owe nothing to the environment, with a secret that the help desk shares."""

    helpdesk_secret: str

    def webhook_secrets(self, source: str) -> tuple[str, ...]:
        return (self.helpdesk_secret,) if source == SOURCE else ()

    def webhook_setting(self, source: str, what: str) -> str:
        return ""


def demo_settings(home: Path) -> DemoSettings:
    """Everything embedded, under `home`, on a free port."""
    return DemoSettings(
        home=home,
        database_url="",
        redis_url="none" if sys.platform == "win32" else "",
        host="127.0.0.1",
        port=0,
        workflows="eventwright.graphs.support",
        lane="default",
        api_key=None,
        smtp_url="",
        model=None,
        openai_api_key=None,
        openai_base_url=None,
        helpdesk_secret="whsec_" + base64.b64encode(secrets.token_bytes(24)).decode(),
    )


def hurried(workflow: Workflow) -> Workflow:
    """The workflow with three attempts that follow each other fast."""

    def sooner(policy: Policy) -> Policy:
        return replace(policy, retries=min(policy.most_retries, 2), backoff=Backoff(first=0.2, most=1.0))

    return workflow.map_policies(sooner)


async def demo(*, once: bool, home: Path | None = None) -> int:
    """Play the demo.

    Args:
        once: let colleagues answer by a script, and end; so it is without a terminal, too. Else go on serving.
        home: an empty folder to keep everything in; by default one that is gone at the end.

    Returns:
        The exit code: 0 if every run ended as the story goes, 1 if not, 130 if it was ended before.

    Raises:
        HomeTaken.
    """
    out = console()
    once = once or not out.is_terminal
    async with stopped_by_signals() as stopping, local_smtp() as smtp:
        with _home(home) as folder, _logging_to(folder / "demo.log"):
            settings, mailer = demo_settings(folder), Mailer(smtp.url)
            async with open_app(settings, workflows=[hurried(support)], resources=[mailer], works=True) as app:
                return await _serve_and_play(Story(app, smtp, out, folder, settings.helpdesk_secret), stopping, once)


async def _serve_and_play(story: Story, stopping: asyncio.Event, once: bool) -> int:
    """API and worker, and beside them the story."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    code = 130

    async def serve(stopping: asyncio.Event) -> None:
        await serve_api(story.app, stopping, on_ready=ready.set_result)

    async def play(stopping: asyncio.Event) -> None:
        nonlocal code
        told = asyncio.create_task(story.tell(ready, once=once), name="story")
        ended = asyncio.create_task(stopping.wait(), name="end of the demo")
        try:
            await asyncio.wait({told, ended}, return_when=asyncio.FIRST_COMPLETED)
            if told.done():
                code = told.result()
                if not once:
                    await stopping.wait()
        finally:
            told.cancel()
            ended.cancel()
            await asyncio.gather(told, ended, return_exceptions=True)

    await together(stopping, serve, story.app.work, play)
    return code


class Story:
    """The demo's course.

    Args:
        app: the open service.
        smtp: its mail server.
        out: where it is shown.
        home: the folder of the service.
        secret: with which the help desk signs.
    """

    def __init__(self, app: App, smtp: LocalSmtp, out: Console, home: Path, secret: str) -> None:
        self.app = app
        self._smtp, self._out, self._home, self._secret = smtp, out, home, secret
        self._scene = Scene(messages())

    async def tell(self, ready: asyncio.Future[str], *, once: bool) -> int:
        """Send, watch, sum up; with `once` answer everything as well. Returns the exit code."""
        door = Door(await ready)
        self._say(f"Eventwright serves at {door.address}. The model is the offline one: keyword rules, no key.")
        try:
            break_mail(self._smtp, self._scene.messages)
            await self._show_until_rest(self._send_all(door))
            self._out.print(summary(self._scene, self._home), crop=False)  # its commands stay whole
            self._check_first_part()
            mend_mail(self._smtp)
            if once:
                await self._second_part(door)
            else:
                self._stay(door)
        except StoryBroken as broken:
            self._out.print(f"\nThe demo went wrong: {broken}", style="red")
            return 1
        return 0

    # -- sending -----------------------------------------------------------------------------------------------------

    async def _send_all(self, door: Door) -> None:
        for message in self._scene.messages:
            await self._send(door, message)
            if message.case is Case.TWICE:
                await self._send(door, message)
            if self._out.is_terminal:
                await asyncio.sleep(PACE)

    async def _send(self, door: Door, message: Message) -> None:
        """Deliver one webhook, signed as the help desk signs."""
        headers = {"content-type": "application/json"}
        headers |= sign(message.body, message.id, datetime.now(UTC), self._secret)
        expect = 422 if message.case is Case.UNKNOWN_VERSION else 202
        document = await door.post(f"/v1/webhooks/{SOURCE}", message.body, headers, expect=expect)
        self._scene.sent += 1
        if expect == 422:
            self._scene.refused.append((message, str(document["detail"])))
        elif document["events"][0]["duplicate"]:
            self._scene.duplicates.append(message)

    # -- watching ----------------------------------------------------------------------------------------------------

    async def _show_until_rest(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work, and show the runs until nothing moves by itself any more. Raises StoryBroken."""
        working = asyncio.create_task(work)
        deadline = time.monotonic() + PATIENCE
        try:
            with self._display() as show:
                while not (working.done() and self._scene.at_rest):
                    if time.monotonic() > deadline:
                        raise StoryBroken(f"not at rest after {PATIENCE:.0f} s: {counts(self._scene)}")
                    await asyncio.wait({working}, timeout=LOOK) if not working.done() else await asyncio.sleep(LOOK)
                    await self._look()
                    show()
            await working
        finally:
            working.cancel()

    async def _look(self) -> None:
        numbers = {message.id: message.number for message in self._scene.messages}
        runs = await self.app.store.runs(limit=MOST)
        self._scene.runs = {numbers[run.event.id]: run for run in runs}
        by_run = {run.id: numbers[run.event.id] for run in runs}
        asked = await self.app.store.reviews(state=ReviewState.OPEN, limit=MOST)
        self._scene.asked = {by_run[review.run_id]: review for review in asked if review.run_id in by_run}

    @contextmanager
    def _display(self) -> Iterator[Callable[[], None]]:
        """How the runs are shown: a board on a terminal, else a line now and then."""
        if self._out.is_terminal:
            with Live(console=self._out, auto_refresh=False) as live:
                yield lambda: live.update(board(self._scene, *self._out.size), refresh=True)
            return
        last = time.monotonic()
        said = ""

        def now_and_then() -> None:
            nonlocal last, said
            line = str(counts(self._scene))
            if line != said and time.monotonic() - last >= LINES:
                last, said = time.monotonic(), line
                self._say(line)

        yield now_and_then
        self._say(str(counts(self._scene)))

    # -- the end -----------------------------------------------------------------------------------------------------

    def _check_first_part(self) -> None:
        """Everything has to wait where the story says. Raises StoryBroken."""
        scene = self._scene
        asked = {message.case for message in scene.messages if message.number in scene.asked}
        dead = {message.case for message, _ in scene.in_state(RunState.FAILED)}
        facts = {
            "who is asked": (asked, ASKS),
            "what is a dead letter": (dead, {Case.DEAD_MAIL}),
            "what came twice": ({message.case for message in scene.duplicates}, {Case.TWICE}),
            "what is refused": ({message.case for message, _ in scene.refused}, {Case.UNKNOWN_VERSION}),
            "how many mails left": (len(self._smtp.messages), len(scene.runs) - len(ASKS)),
        }
        _insist(facts)

    async def _second_part(self, door: Door) -> None:
        """Colleagues answer, the runs finish, and what has to be true is checked. Raises StoryBroken."""
        self._say("\nNobody is here to answer, so three colleagues do it by a script, through the API:\n")
        await self._show_until_rest(answer_everything(door, self._scene, self._say))
        self._out.print(summary(self._scene, None))
        await self._check_ends()
        sent = len(self._smtp.messages)
        self._say(
            f"\n{len(self._scene.runs)} runs, all completed; {sent} mails, one each. `make demo` goes on serving."
        )

    async def _check_ends(self) -> None:
        scene = self._scene
        ends = {m.number: (run.state, run.outcome) for m, run in scene.in_state(*RunState)}
        due = {m.number: (RunState.COMPLETED, ENDS.get(m.case, Outcome.AUTO)) for m in scene.messages}
        del due[scene.message(Case.UNKNOWN_VERSION).number]
        mails = Counter(message.to for message in self._smtp.messages)
        addressees = Counter(str(m.sender or m.account.email) for m in scene.messages if m.number in due)
        refunds = {}
        for case in (Case.REFUND, Case.REFUND_TO_APPROVE, Case.REFUND_TO_REJECT, Case.REFUND_TO_EDIT):
            given = await self.app.resources.use(PaymentLedger).refunds_of(scene.message(case).account.id)
            refunds[case] = [refund.amount for refund in given]
        approved = {Case.REFUND: ["20.50"], Case.REFUND_TO_APPROVE: ["480.00"], Case.REFUND_TO_EDIT: ["60.00"]}
        owed = {case: [Decimal(amount) for amount in approved.get(case, [])] for case in refunds}
        _insist({"how the runs ended": (ends, due), "the mails": (mails, addressees), "the refunds": (refunds, owed)})

    def _stay(self, door: Door) -> None:
        self._say(f"\nServing on at {door.address} until Ctrl-C. The mail server is mended: a replay will end well.")

    def _say(self, words: str) -> None:
        self._out.print(words)


def _insist(facts: dict[str, tuple[object, object]]) -> None:
    for what, (found, expected) in facts.items():
        if found != expected:
            raise StoryBroken(f"{what}: found {found}, expected {expected}")


@contextmanager
def _home(home: Path | None) -> Iterator[Path]:
    """The folder to work in. Raises HomeTaken."""
    if home is not None:
        home.mkdir(parents=True, exist_ok=True)
        if any(home.iterdir()):
            raise HomeTaken(home)
        yield home.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="eventwright-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def _logging_to(file: Path) -> Iterator[None]:
    """Logs go into a file, where they do not write over the board."""
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    before, root.handlers = root.handlers, [handler]
    try:
        yield
    finally:
        root.handlers = before
        handler.close()
