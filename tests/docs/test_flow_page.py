"""docs/flow.md: its example runs, and does what the page says."""

from __future__ import annotations

import ast
import inspect
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from eventwright.sdk import Batch, Flow, Throttle

PAGE = (Path(__file__).parents[2] / "docs/flow.md").read_text()


async def test_the_example_says_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    declares, tries, superseding = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {"__name__": "the_page"}
    exec(compile(declares, "docs/flow.md", "exec", dont_inherit=True), names)  # noqa: S102 - the page is ours
    code = compile(tries, "docs/flow.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    running = eval(code, names)  # noqa: S307 - the page is ours
    assert inspect.iscoroutine(running)
    await running
    said = capsys.readouterr().out.strip()
    assert f"It prints `{said}`" in PAGE
    eval(superseding, names)  # noqa: S307 - the page is ours


def test_every_part_of_a_flow_that_the_page_tells_can_be_declared() -> None:
    told = re.findall(r"^\| `(.*?)` \|", PAGE, re.MULTILINE)[1:]
    assert len(told) == 5
    names = {"timedelta": timedelta, "Batch": Batch, "Throttle": Throttle, "Flow": Flow}
    for part in told:
        bounded = f"{told[0]}, {part}" if part.startswith("at_most") else part
        eval(f"Flow({bounded})", names)  # noqa: S307 - the page is ours
