"""The documentation says what the code does, or these fail."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from eventwright.app.composition import open_app
from eventwright.app.settings import Settings
from eventwright.app.settings_page import page
from eventwright.app.simulate import simulate
from eventwright.app.web.api import create_api
from eventwright.runs.states import RunState

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_page_of_settings_holds_every_setting() -> None:
    """`docs/settings.md` is made from the settings: python -m eventwright.app.settings_page > docs/settings.md"""
    assert (ROOT / "docs/settings.md").read_text() == page()


def test_every_relative_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_file_that_the_readme_names_in_its_map_exists() -> None:
    files = re.findall(r"`((?:runs|tools|guardrails|graphs|queue|app)/eventwright/[\w/]+\.py)`", README)

    assert files
    assert [file for file in files if not (ROOT / file).is_file()] == []


@pytest.fixture
def orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The workflow of the README's example, saved and imported as a reader would do it."""
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "orders_of_the_readme.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("orders_of_the_readme").orders
    del sys.modules["orders_of_the_readme"]


async def test_the_example_of_the_readme_pays_a_small_refund_by_itself(orders: Any) -> None:
    async with simulate(orders, {"customer": "ann", "refund": "25"}) as simulation:
        assert (await simulation.run()).state is RunState.COMPLETED
        assert (await simulation.values())["receipt"].startswith("25 to ann, once")


async def test_the_example_of_the_readme_asks_a_person_about_a_large_refund(orders: Any) -> None:
    async with simulate(orders, {"customer": "ann", "refund": "250"}) as simulation:
        (review,) = await simulation.reviews()
        assert review.question == "Pay back?"
        assert review.arguments == {"customer": "ann", "amount": "250"}

        run = await simulation.approve()

        assert run.state is RunState.COMPLETED
        assert (await simulation.values())["receipt"].startswith("250 to ann, once")


async def test_the_page_of_the_api_names_every_call(tmp_path: Path) -> None:
    async with open_app(Settings(home=tmp_path, redis_url="none"), workflows=[]) as app:
        paths = create_api(app).openapi()["paths"]
    calls = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods} - {"GET /"}

    assert calls == set(re.findall(r"^\| `((?:GET|POST) [^`]+)`", (ROOT / "docs/api.md").read_text(), re.MULTILINE))
