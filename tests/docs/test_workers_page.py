"""What `docs/workers.md` shows works as it is written there."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from eventwright.app.composition import open_app
from eventwright.app.settings import Settings
from eventwright.queue.stall import STALLED, TIMES
from eventwright.runs.claims import MOST_CRASHES, SUSPECT
from eventwright.runs.event import Event
from eventwright.runs.states import RunState

PAGE = (Path(__file__).parents[2] / "docs/workers.md").read_text()


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The page's workflow, saved and imported as a reader would do it."""
    _, code = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "tickets_of_the_page.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("EVENTWRIGHT_SECRET_HELPDESK", "a key of the help desk")
    yield importlib.import_module("tickets_of_the_page")
    del sys.modules["tickets_of_the_page"]


async def test_the_clients_of_the_page_are_open_while_the_process_is(shown: Any, tmp_path: Path) -> None:
    async with open_app(Settings(home=tmp_path, redis_url="none"), workflows=[shown.tickets], works=True) as app:
        helpdesk = app.resources.use(shown.Helpdesk)
        assert (helpdesk.is_closed, str(helpdesk.base_url)) == (False, "https://helpdesk.example.org")
    assert helpdesk.is_closed


async def test_the_tool_of_the_page_asks_the_help_desk_with_its_secret(shown: Any, tmp_path: Path) -> None:
    async def answers(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text=f"{request.url.path} for {request.headers['authorization']}")

    stand_in = shown.Helpdesk(transport=httpx.MockTransport(answers), base_url="https://desk.test")
    settings = Settings(home=tmp_path, redis_url="none")
    async with stand_in, open_app(settings, workflows=[shown.tickets], resources=[stand_in], works=True) as app:
        receipt = await app.engine.receive(Event(id="1", source="/test", type="ticket.asked", data={"number": "7"}))
        run_id = receipt.runs[0].id
        assert await app.engine.advance(run_id) is RunState.COMPLETED
        [effect] = await app.store.effects(run_id)
    assert effect.result == "/tickets/7 for Bearer a key of the help desk"


def test_the_figures_of_the_page_are_those_of_the_code() -> None:
    default = Settings.model_fields["stall_seconds"].default
    assert f"`EVENTWRIGHT_STALL_SECONDS` ({default:g})" in PAGE
    assert f"exit code {STALLED}" in PAGE
    words = {3: "three"}
    assert f"After {words[TIMES]} times as long" in PAGE
    assert f"after {words[MOST_CRASHES - SUSPECT + 1]} such ends" in PAGE
