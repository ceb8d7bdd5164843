"""A real browser without a window: Chromium, spoken to in its own DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--no-first-run", "--disable-extensions", "--disable-background-networking", "--disable-component-update",
    "--remote-debugging-port=0",
)  # fmt: skip
_KEYS = {"Enter": ("\r", 13), "Escape": ("", 27), "Tab": ("\t", 9)}


def browser_here() -> str | None:
    """Where a browser is on this machine, if there is one; pip brings none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One page of the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, session: str) -> None:
        self._socket, self._session = socket, session
        self._numbers = itertools.count(1)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol, and its answer."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters, "sessionId": self._session})
        while True:
            answer = await self._socket.receive_json(timeout=30)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    async def open(self, url: str) -> None:
        """Load an address, until it has loaded."""
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def run(self, expression: str) -> Any:
        """What JavaScript says in the page."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until it is so; a test that waits in vain is ended by its own time limit."""
        while True:
            with suppress(AssertionError):  # between two pages there is none to ask
                if await self.run(expression):
                    return
            await asyncio.sleep(0.02)

    async def press(self, *keys: str) -> None:
        """Keys, one after the other, as a keyboard sends them."""
        for key in keys:
            text, code = _KEYS.get(key, (key, ord(key.upper()) if len(key) == 1 else 0))
            about = {"key": key, "text": text, "windowsVirtualKeyCode": code, "code": key if len(key) > 1 else ""}
            await self.call("Input.dispatchKeyEvent", type="keyDown", **about)
            await self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    async def write(self, text: str) -> None:
        """Text into whatever has the focus."""
        await self.call("Input.insertText", text=text)

    async def look(self, width: int, *, height: int = 900, dark: bool = False, scripts: bool = True) -> None:
        """Be a screen of this width."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        await self.call("Emulation.setScriptExecutionDisabled", value=not scripts)

    async def photograph(self, file: Path, *, whole: bool = True) -> None:
        """A picture of the page."""
        answer = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(answer["data"]))


@asynccontextmanager
async def a_browser(program: str, profile: Path) -> AsyncIterator[Page]:
    """A browser with an empty page, closed at the end."""
    process = await asyncio.create_subprocess_exec(
        program, *_FLAGS, f"--user-data-dir={profile}", "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        address = await _address(process.stderr)
        async with aiohttp.ClientSession() as client, client.ws_connect(address, max_msg_size=0) as socket:
            yield await _page(socket)
    finally:
        # Its children hold the profile for a moment longer than it does.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


async def _address(lines: asyncio.StreamReader) -> str:
    """Where it listens, as it says itself."""
    async for line in lines:
        if b"DevTools listening on " in line:
            return line.decode().partition("listening on ")[2].strip()
    raise AssertionError("the browser ended before it listened")


async def _page(socket: aiohttp.ClientWebSocketResponse) -> Page:
    async def ask(method: str, **parameters: Any) -> dict[str, Any]:
        await socket.send_json({"id": 0, "method": method, "params": parameters})
        while True:
            answer = await socket.receive_json(timeout=30)
            if answer.get("id") == 0:
                result: dict[str, Any] = answer["result"]
                return result

    targets = (await ask("Target.getTargets"))["targetInfos"]
    target = next(one["targetId"] for one in targets if one["type"] == "page")
    session = (await ask("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
    return Page(socket, session)
