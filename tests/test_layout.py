"""The house stands as docs/decisions/0001-layout.md says, and what is shipped is complete."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = ["runs", "tools", "guardrails", "graphs", "queue", "app"]
OURS = [*ROOMS, "tests", "bench", "notebooks"]


def shipped() -> Iterator[Path]:
    """Every file of every room that belongs into the wheel, relative to its room."""
    for room in ROOMS:
        for file in (ROOT / room).rglob("*"):
            ignored = "__pycache__" in file.parts or file.name == "README.md"
            if file.is_file() and not ignored:
                yield file.relative_to(ROOT / room)


def sources() -> list[Path]:
    return [file for folder in OURS for file in (ROOT / folder).rglob("*.py") if ".ipynb_checkpoints" not in file.parts]


def test_a_file_called_init_is_found_nowhere() -> None:
    found = [str(file.relative_to(ROOT)) for file in sources() if file.name == "__init__.py"]
    assert found == [], "an __init__.py hides the other rooms, or Python's own queue; delete it"


@pytest.mark.parametrize("folder", [".", "notebooks", "queue", "queue/eventwright"])
def test_import_queue_is_pythons_own_wherever_one_stands(folder: str) -> None:
    program = "import queue, concurrent.futures, logging.handlers; print(queue.__file__)"
    process = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT / folder, capture_output=True, text=True, check=True
    )
    assert not Path(process.stdout.strip()).is_relative_to(ROOT / "queue")


def test_every_list_of_the_rooms_is_the_same() -> None:
    tool = PYPROJECT["tool"]
    wheel = tool["hatch"]["build"]["targets"]["wheel"]
    layers = tool["importlinter"]["contracts"][0]["layers"]
    assert tool["hatch"]["build"]["dev-mode-dirs"] == ROOMS
    assert wheel["only-include"] == ROOMS
    assert wheel["sources"] == ROOMS
    assert tool["mypy"]["mypy_path"].split(":") == ROOMS
    assert tool["mypy"]["files"] == ROOMS
    assert tool["ruff"]["src"] == ROOMS
    assert [layer for layer in reversed(layers) if layer != "(sdk)"] == ROOMS


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_a_card_that_names_its_main_files_and_a_portion_with_types(room: str) -> None:
    card = (ROOT / room / "README.md").read_text()
    portion = ROOT / room / "eventwright" / room
    assert (portion / "py.typed").is_file()
    main = re.search(r"^Main files?: (.+)$", card, re.MULTILINE)
    assert main, "the card has no line `Main file: ...`"
    for name in re.findall(r"`([^`]+)`", main[1]):
        assert (portion / name).is_file(), f"{room}/README.md calls {name} a main file, and there is none"


def test_the_constraints_are_names_and_versions_and_nothing_else() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+", line), line


def test_the_constraints_hold_every_dependency() -> None:
    def canonical(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    project = PYPROJECT["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    held = {canonical(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {canonical(re.split(r"[^\w.-]", line)[0]) for line in wanted} <= held


def test_make_help_names_each_target() -> None:
    targets = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets
    process = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.findall(r"^  make ([\w-]+) +\S", process.stdout, re.MULTILINE) == targets[1].split()


def test_the_wheel_holds_every_file_of_the_rooms_and_no_card(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {Path(name) for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == set(shipped())


def test_every_file_can_be_read_in_one_sitting() -> None:
    long = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in sources()}
    assert {name: lines for name, lines in long.items() if lines > 400} == {}


def test_every_function_can_be_read_in_one_glance() -> None:
    long = {
        f"{file.relative_to(ROOT)}:{function.lineno} {function.name}": lines
        for file in sources()
        if "migrations" not in file.parts  # a migration is a list of what it creates, not a thought
        for function in ast.walk(ast.parse(file.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        if (lines := body_lines(function)) > 60
    }
    assert long == {}


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function's body without its docstring."""
    first, last = function.body[0], function.body[-1]
    has_docstring = ast.get_docstring(function) is not None
    start = (first.end_lineno or first.lineno) + 1 if has_docstring else first.lineno
    return (last.end_lineno or last.lineno) - start + 1
