"""What the world outside writes down for itself, line by line, in files that outlive whatever process is killed."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eventwright.tools.contract import Call


@dataclass(frozen=True)
class Book:
    """A file with one line of JSON for everything that somebody outside knows."""

    path: Path

    def write(self, **line: Any) -> None:
        """Add a line with the time; it is on the disk before this returns."""
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, json.dumps(line | {"at": time.time()}).encode() + b"\n")
            os.fsync(file)
        finally:
            os.close(file)

    def lines(self) -> list[dict[str, Any]]:
        """Everything, in order."""
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else looks before they write, while this is open; a process that dies in here lets go of it."""
        with self.path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@dataclass(frozen=True)
class Provider:
    """A system outside that keeps a ledger of all that was done there, whoever asked for it."""

    path: Path

    def record(self, what: str, call: Call, *, once: bool = False) -> None:
        """Do it; with `once`, not if it was done for this key before: the provider honours our idempotency key."""
        book = Book(self.path)
        with book.locked():
            if not (once and self.find(what, call.idempotency_key)):
                book.write(what=what, run=call.run_id, key=call.idempotency_key, attempt=call.attempt)

    def lines(self) -> list[dict[str, Any]]:
        """Everything that happened, in order."""
        return Book(self.path).lines()

    def find(self, what: str, key: str | None = None) -> list[dict[str, Any]]:
        """What happened of this kind, in order."""
        return [line for line in self.lines() if line["what"] == what and key in (None, line["key"])]
