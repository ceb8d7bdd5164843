"""docs/versions.md says what the code does about changed graphs."""

from __future__ import annotations

import re
from pathlib import Path

from eventwright.graphs.comparing import table
from eventwright.queue.preflight import Break

PAGE = (Path(__file__).parents[2] / "docs/versions.md").read_text()


def test_the_page_lists_every_kind_of_change_with_the_runs_that_it_stops() -> None:
    (block,) = re.findall(r"<!-- changes -->\n(.*?)<!-- end of changes -->", PAGE, re.DOTALL)
    assert block == table()


def test_the_page_lists_everything_that_a_deploy_may_break() -> None:
    assert re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE) == [(str(kind), kind.meaning) for kind in Break]
