"""A TCP proxy that stands in a line and makes it bad: cut, silent, slow, or nobody there.

async with Proxy(host, port) as proxy:
    ...  # connect to 127.0.0.1:proxy.port
    proxy.cut()
"""

from __future__ import annotations

import asyncio
import socket
import struct
from asyncio import Queue, Task, TaskGroup
from types import TracebackType

#: Closes at once with a reset, whatever was not sent yet.
NO_LINGER = struct.pack("ii", 1, 0)
#: The other side has reset the connection; the end of a stream is an empty chunk.
RESET = None


class Proxy:
    """Takes connections on a port of its own on the loopback and passes them on to `host` and `port`.

    The verbs work at once and on every connection, those that are open and those to come. What is said on a held or
    slow line keeps its order, its ends and resets too.

    Args:
        host: an IPv4 host; or the path of a Unix socket, without a port.

    Attributes:
        port: where it listens; the same for its whole life.
    """

    port: int

    def __init__(self, host: str, port: int | None = None) -> None:
        self._to: str | tuple[str, int] = host if port is None else (host, port)
        self._flows = asyncio.Event()
        self._flows.set()
        self._delay = 0.0
        self._listener: socket.socket | None = None
        self._lines: set[Task[bool]] = set()

    async def __aenter__(self) -> Proxy:
        self.port = 0
        self.accept()
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.refuse()
        lines = list(self._lines)
        self.cut()
        await asyncio.gather(*lines, return_exceptions=True)

    # -- verbs -------------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Reset every connection; new ones are taken."""
        for line in self._lines:
            line.cancel()

    def hold(self) -> None:
        """Say nothing any more: bytes are taken and kept, connections too, nothing is closed."""
        self._flows.clear()

    def release(self) -> None:
        """Pass on what was held."""
        self._flows.set()

    def delay(self, seconds: float) -> None:
        """From now on, pass each chunk on so much later, in both directions; 0 for at once."""
        self._delay = seconds

    def refuse(self) -> None:
        """Listen no more: new connections are refused, open ones stay."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def accept(self) -> None:
        """Listen again, on the same port."""
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=200)
            self._listener.setblocking(False)
            self.port = self._listener.getsockname()[1]
            asyncio.get_running_loop().add_reader(self._listener, self._take)

    # -- lines -------------------------------------------------------------------------------------------------------

    def _take(self) -> None:
        assert self._listener is not None
        try:
            near, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # whoever knocked has gone
        far = socket.socket(socket.AF_UNIX if isinstance(self._to, str) else socket.AF_INET)
        for end in (near, far):
            end.setblocking(False)

        def close(line: Task[bool]) -> None:
            self._lines.discard(line)
            orderly = not line.cancelled() and line.result()
            for end in (near, far):
                if not orderly:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
                end.close()

        line = asyncio.get_running_loop().create_task(self._carry(near, far))
        self._lines.add(line)
        # Not in the task itself: it may be cut before its first step.
        line.add_done_callback(close)

    async def _carry(self, near: socket.socket, far: socket.socket) -> bool:
        """Both directions of a line, until both have ended; False if it broke."""
        there: Queue[tuple[float, bytes | None]] = Queue()
        back: Queue[tuple[float, bytes | None]] = Queue()
        whole = True
        try:
            async with TaskGroup() as group:
                group.create_task(self._hear(near, there))
                await self._flows.wait()
                await asyncio.get_running_loop().sock_connect(far, self._to)
                group.create_task(self._hear(far, back))
                group.create_task(self._say(far, there))
                group.create_task(self._say(near, back))
        except* OSError:
            whole = False
        return whole

    async def _hear(self, end: socket.socket, heard: Queue[tuple[float, bytes | None]]) -> None:
        loop = asyncio.get_running_loop()
        chunk: bytes | None = b"anything"
        while chunk:
            try:
                chunk = await loop.sock_recv(end, 65536)
            except ConnectionError:
                chunk = RESET
            heard.put_nowait((loop.time() + self._delay, chunk))

    async def _say(self, end: socket.socket, heard: Queue[tuple[float, bytes | None]]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, chunk = await heard.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            await self._flows.wait()
            if chunk is RESET:
                raise ConnectionResetError
            if not chunk:
                return end.shutdown(socket.SHUT_WR)
            await loop.sock_sendall(end, chunk)
