"""The page about reliability names tests that exist, and every row of the matrix says where it stands."""

from __future__ import annotations

import re

import pytest
from tests.faults.theatre import ROOT

PAGE = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)+)`", PAGE)))
ROWS = re.findall(r"^\| (F\d+) \|.*\| ([^|]+) \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("name", TESTS)
def test_every_test_that_the_page_names_exists(name: str) -> None:
    file, *parts = name.split("::")
    code = (ROOT / file).read_text()
    for part in parts[:-1]:
        assert f"class {part}" in code, name
    assert f"def {parts[-1]}(" in code, name


def test_every_row_from_f1_to_f32_names_its_test_or_says_that_there_is_none() -> None:
    assert [number for number, _ in ROWS] == [f"F{number}" for number in range(1, 33)]
    for number, shown in ROWS:
        assert "tests/" in shown or "not yet tested" in shown or number in ("F2", "F27"), number


def test_every_link_of_the_page_leads_somewhere() -> None:
    links = re.findall(r"\]\((\.\.[^)#]+)\)", PAGE)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
