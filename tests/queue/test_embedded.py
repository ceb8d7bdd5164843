"""A service without a Redis has one, whatever was killed before."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from eventwright.queue.embedded import ValkeyNotStarted, embedded_valkey

# Joins the server of the home, says so, and leaves when its input ends.
MEMBER = """
import asyncio, sys
from pathlib import Path
from eventwright.queue.embedded import embedded_valkey

async def main():
    async with embedded_valkey(Path(sys.argv[1])) as url:
        print(url, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


class Member:
    """Another process that uses the server of a home."""

    def __init__(self, home: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", MEMBER, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def leave(self) -> None:
        self.process.communicate()
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def server_pid(url: str) -> int:
    with Redis.from_url(url) as client:
        return int(client.info("server")["process_id"])


def answers(url: str) -> bool:
    with Redis.from_url(url) as client:
        try:
            return bool(client.ping())
        except RedisConnectionError:
            return False


def test_a_server_outlives_the_killed_process_that_started_it(tmp_path: Path) -> None:
    first, second = Member(tmp_path), Member(tmp_path)
    pid = server_pid(first.url)
    first.kill()
    assert server_pid(second.url) == pid
    second.leave()
    assert not answers(second.url)


def test_a_server_that_every_member_left_by_being_killed_is_taken_over(tmp_path: Path) -> None:
    killed = Member(tmp_path)
    pid = server_pid(killed.url)
    killed.kill()
    assert answers(killed.url)
    heir = Member(tmp_path)
    assert server_pid(heir.url) == pid
    heir.leave()
    assert not answers(heir.url)


async def test_a_killed_server_is_replaced_at_the_same_address(tmp_path: Path) -> None:
    async with embedded_valkey(tmp_path) as url:
        pid = server_pid(url)
        os.kill(pid, signal.SIGKILL)
        async with embedded_valkey(tmp_path) as again:
            assert again == url
            assert server_pid(url) != pid
        assert answers(url), "the first member is still in"
    assert not answers(url)


@pytest.mark.parametrize("note", [json.dumps({"pid": 1, "socket": "/gone/valkey.sock"}), "", "[]", "{}"])
async def test_a_stale_or_broken_note_is_not_believed(tmp_path: Path, note: str) -> None:
    (tmp_path / "valkey").mkdir()
    (tmp_path / "valkey" / "server.json").write_text(note)
    async with embedded_valkey(tmp_path) as url:
        assert answers(url)


async def test_a_server_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventwright.queue.embedded.START_SECONDS", 0.5)
    (tmp_path / "valkey" / "valkey.sock").mkdir(parents=True)
    with pytest.raises(ValkeyNotStarted, match="did not come up"):
        async with embedded_valkey(tmp_path):
            pass


def test_two_processes_share_one_server_and_the_last_one_stops_it(tmp_path: Path) -> None:
    first, second = Member(tmp_path), Member(tmp_path)
    assert first.url == second.url
    assert server_pid(first.url) == server_pid(second.url)
    first.leave()
    assert answers(second.url)
    second.leave()
    assert not answers(second.url)


def test_processes_that_start_at_the_same_moment_share_one_server(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MEMBER, str(tmp_path)]
    racers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    urls = {racer.stdout.readline().strip() for racer in racers if racer.stdout}
    assert len(urls) == 1
    for racer in racers:
        racer.communicate()
        assert racer.returncode == 0


@pytest.mark.parametrize("name", ["d" * 150, "with spaces, 100% öäü? #1"])
def test_any_home_will_do(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    member = Member(home)
    assert answers(member.url)
    socket = Path(json.loads((home / "valkey" / "server.json").read_text())["socket"])
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    member.leave()
    assert not socket.exists()
    assert home in socket.parents or not socket.parent.exists()


async def test_the_server_opens_no_port_and_keeps_nothing_on_disk(tmp_path: Path) -> None:
    async with embedded_valkey(tmp_path) as url:
        with Redis.from_url(url) as client:
            assert client.config_get("port") == {"port": "0"}
            client.set("key", "value")
    assert {file.name for file in (tmp_path / "valkey").iterdir()} == {"lock", "members", "valkey.log"}
