"""Every notebook runs from top to bottom in a fresh kernel, and shows in the repository what it does today."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parent.parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FIRST = ROOT / "notebooks" / "01-your-first-workflow.ipynb"


@pytest.fixture(scope="session")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The notebook after a run in a kernel of its own; each is run once."""
    folder = tmp_path_factory.mktemp("executed")

    def run(file: Path) -> nbformat.NotebookNode:
        if not (folder / file.name).exists():
            command = [sys.executable, str(ROOT / "notebooks" / "execute.py"), "--to", str(folder), str(file)]
            process = subprocess.run(command, capture_output=True, text=True)
            assert process.returncode == 0, process.stderr
        return nbformat.read(folder / file.name, as_version=4)

    return run


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(notebook: nbformat.NotebookNode) -> list[str]:
    """What a reader sees below the cells; of a picture only that it is one."""
    found = []
    for output in (output for cell in code_cells(notebook) for output in cell.outputs):
        data = output.get("data", {})
        if "image/svg+xml" in data:
            found.append("a picture")
        else:
            found.append(output.get("text") or data.get("text/markdown") or data.get("text/plain") or "")
    return found


def test_there_is_a_notebook_to_begin_with() -> None:
    assert FIRST in NOTEBOOKS


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_no_cell_fails_or_warns(file: Path, executed: Any) -> None:
    for cell in code_cells(executed(file)):
        noise = [o for o in cell.outputs if o.output_type == "error" or o.get("name") == "stderr"]
        assert noise == [], cell.source


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_what_a_notebook_shows_in_the_repository_is_what_it_does_today(file: Path, executed: Any) -> None:
    committed = nbformat.read(file, as_version=4)
    assert shown(committed) == shown(executed(file)), "run notebooks/execute.py and look at what changed"
    assert [cell.execution_count for cell in code_cells(committed)] == list(range(1, len(code_cells(committed)) + 1))


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_tells_nothing_about_the_machine_it_ran_on(file: Path) -> None:
    text = file.read_text()
    assert re.findall(r"/(?:home|root|tmp|Users|work)/\S*| at 0x[0-9a-f]+|iopub\.\w+", text) == []


def test_the_first_notebook_tells_the_whole_story(executed: Any) -> None:
    story = shown(executed(FIRST))
    beginning = story.index("pending_approval\n{}\n")
    assert "a picture" in story[:beginning], "the graph is seen before it runs"
    assert story[beginning + 2] == "a picture", "then the node that asks"
    for words in ("completed approved", "completed rejected {}", "completed edited", "completed auto after 3 attempts"):
        assert any(text.startswith(words) for text in story[beginning:]), words
    assert story.count("a picture") == 5
    assert any("| 13 | transition |" in text for text in story), "the journal stands there as a table"


def test_the_cells_of_the_first_notebook_are_what_is_deployed(tmp_path: Path) -> None:
    cells = code_cells(nbformat.read(FIRST, as_version=4))
    module = [cell.source for cell in cells if "refunds.py" in cell.metadata.get("tags", ())]
    (tmp_path / "refunds.py").write_text("\n\n".join(module))
    program = "from eventwright.app.loading import load_workflows; print(load_workflows('refunds'))"
    process = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert process.stdout == "[<Workflow refunds version 1>]\n", process.stderr
