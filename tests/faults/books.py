"""What the world outside writes down for itself, line by line, in files that outlive whatever process is killed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eventwright.tools.contract import Call


@dataclass(frozen=True)
class Book:
    """A file with one line of JSON for everything that somebody outside knows, and when, by their own clock."""

    path: Path
    clock: Callable[[], float] = time.time

    def write(self, **line: Any) -> None:
        """Add a line with the time; it is on the disk before this returns."""
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, json.dumps(line | {"at": self.clock()}).encode() + b"\n")
            os.fsync(file)
        finally:
            os.close(file)

    def lines(self) -> list[dict[str, Any]]:
        """Everything, in order."""
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []


@dataclass(frozen=True)
class Provider:
    """A system outside that keeps a ledger of all that was done there, whoever asked for it.

    Nobody waits for anybody here: whoever is frozen while they write must not keep the others from it.

    Attributes:
        seconds: how long an answer may take. It has happened by then, and whoever dies meanwhile does not know.
    """

    path: Path
    clock: Callable[[], float] = time.time
    seconds: float = 0.0

    async def do(self, what: str, call: Call, *, once: bool = False) -> None:
        """Do it, and answer after a while."""
        self.record(what, call, once=once)
        if self.seconds:
            await asyncio.sleep(random.uniform(0, self.seconds))

    def record(self, what: str, call: Call, *, once: bool = False) -> None:
        """Do it; with `once`, not if it was done for this key before: the provider honours our idempotency key."""
        line = {"what": what, "run": call.run_id, "key": call.idempotency_key, "attempt": call.attempt, "once": once}
        Book(self.path, self.clock).write(**line)

    def lines(self) -> list[dict[str, Any]]:
        """Everything that happened, in order."""
        done: set[tuple[str, str]] = set()
        happened = []
        for line in self._heard():
            deed = (line["what"], line["key"])
            if not (line["once"] and deed in done):
                happened.append(line)
            done.add(deed)
        return happened

    def find(self, what: str, key: str | None = None) -> list[dict[str, Any]]:
        """What happened of this kind, in order."""
        return [line for line in self.lines() if line["what"] == what and key in (None, line["key"])]

    def repeats(self) -> int:
        """How often somebody asked again for what was done for their key already."""
        return len(self._heard()) - len(self.lines())

    def _heard(self) -> list[dict[str, Any]]:
        return Book(self.path).lines()
