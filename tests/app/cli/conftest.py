"""What the tests of the command line share: the real `eventwright` in a process and a home of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PROGRAM = str(Path(sys.executable).parent / "eventwright")
#: Colours, widths and the like of whoever runs the tests must not change what is tested.
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "SYSTEMROOT")


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Forking:
    """Starts commands from a process that has imported everything already; see `forking.py`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, words: Sequence[str], environment: dict[str, str], given: bytes) -> Said:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / name for name in ("in", "out", "err")]
            files[0].write_bytes(given)
            request = {"words": words, "environment": environment, "files": [str(file) for file in files]}
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            return Said(code, files[1].read_text(), files[2].read_text())


@pytest.fixture(scope="session")
def forking() -> Iterator[Forking]:
    program = [sys.executable, str(Path(__file__).with_name("forking.py"))]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Forking(process)


@dataclass(frozen=True)
class Shell:
    """A shell in a home of its own: `shell("runs", "--json").json`."""

    home: Path
    forking: Forking

    @property
    def environment(self) -> dict[str, str]:
        own = {name: os.environ[name] for name in INHERITED if name in os.environ}
        return own | {
            "EVENTWRIGHT_HOME": str(self.home),
            "EVENTWRIGHT_REDIS_URL": "none",
            "EVENTWRIGHT_WORKFLOWS": "cli_shop",
            "PYTHONPATH": str(Path(__file__).parent),
        }

    def __call__(self, *words: str, given: bytes = b"", **settings: str) -> Said:
        return self.forking.run(words, self.environment | settings, given)

    def send(self, type: str, data: Any, *words: str) -> Said:
        return self("send", "--type", type, "--data", json.dumps(data), *words)

    def start(self, *words: str, **settings: str) -> subprocess.Popen[str]:
        """The program itself, for a process that stays; whoever starts it ends it."""
        environment = self.environment | settings
        return subprocess.Popen(
            [PROGRAM, *words], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
        )


@pytest.fixture
def shell(tmp_path: Path, forking: Forking) -> Shell:
    return Shell(tmp_path / "home", forking)


@pytest.fixture(scope="session")
def shell_in(forking: Forking) -> Callable[[Path], Shell]:
    """A shell in a home that is given."""
    return lambda home: Shell(home, forking)


@pytest.fixture(scope="session")
def cli_shop() -> ModuleType:
    """The workflows that the shells load, in this process."""
    spec = importlib.util.spec_from_file_location("cli_shop", Path(__file__).with_name("cli_shop.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where the types of its graphs are looked up
    spec.loader.exec_module(module)
    return module


def lines(*events: dict[str, Any]) -> bytes:
    """Events as JSON lines."""
    return b"\n".join(json.dumps({"specversion": "1.0", "source": "/test"} | event).encode() for event in events)


@pytest.fixture(scope="session")
def json_lines() -> Callable[..., bytes]:
    return lines


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory, forking: Forking) -> Shell:
    """A home in which something has happened, for the tests of a module: they look and change nothing.

    `o-1` waits for an approval, `o-2` is completed, `f-1` failed, `o-3` was refused, `o-4` came from somebody bad.
    """
    shell = Shell(tmp_path_factory.mktemp("used") / "home", forking)
    bad = "\x1b[31mMallory\x1b[0m\u202e"
    events = lines(
        {"id": "o-1", "type": "order.returned", "data": {"customer": "Ann", "amount": "80.00"}},
        {"id": "o-2", "type": "order.returned", "data": {"customer": "Bob", "amount": "8.00"}},
        {"id": "f-1", "type": "file.needed", "data": {"needs": str(shell.home / "missing")}},
        {"id": "o-3", "type": "order.returned", "data": {"customer": "Cid"}},
        {"id": "o-4", "type": "order.returned", "data": {"customer": bad, "amount": "90.00"}},
    )
    assert shell("send", "-", given=events).code == 1
    assert shell("worker", "--burst").code == 0
    return shell
