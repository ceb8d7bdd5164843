"""docs/waiting.md: its example runs, and does what the page says."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from eventwright.app.simulate import Simulation

PAGE = (Path(__file__).parents[2] / "docs/waiting.md").read_text()


@pytest.fixture
def names() -> dict[str, Any]:
    """What the first example of the page declares."""
    declares, _ = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    found: dict[str, Any] = {"__name__": "the_page"}
    exec(compile(declares, "docs/waiting.md", "exec", dont_inherit=True), found)  # noqa: S102 - the page is ours
    return found


async def test_the_example_that_tries_it_out_says_what_it_says(
    names: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    _, tries = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    code = compile(tries, "docs/waiting.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    running = eval(code, names)  # noqa: S307 - the page is ours
    assert inspect.iscoroutine(running)
    await running
    assert capsys.readouterr().out.split("\n") == ["in time", "no", ""]


async def test_what_comes_late_is_told_who_had_waited(names: dict[str, Any]) -> None:
    from eventwright.sdk import simulate

    async with simulate(names["invoices"], {"invoice_id": "7"}) as run:
        await run.pass_time()
        await run.send("payment.succeeded", {"invoice_id": "7", "by": "Ann"})
        (late,) = [one for one in await run.engine.store.runs() if one.id != run.run_id]
        new = Simulation(run.engine, late.id, run.clock)
        await new.go_on()
        assert (await new.values())["told"] == "paid late, by Ann"
