"""A worker whose event loop is blocked by a node ends itself; started again, it has the node put aside in the end."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import pytest

from eventwright.queue.stall import STALLED

STALLING = {
    "EVENTWRIGHT_WORKFLOWS": "cli_stall",
    "EVENTWRIGHT_STALL_SECONDS": "0.3",
    "EVENTWRIGHT_LEASE_SECONDS": "1.5",
    "EVENTWRIGHT_HEARTBEAT_SECONDS": "0.5",
    "EVENTWRIGHT_SWEEP_SECONDS": "0.5",
}


def send(shell: Any, name: str) -> str:
    said = shell("send", "--type", f"{name}.wanted", "--data", "{}", "--json", **STALLING)
    run_id: str = said.json["events"][0]["runs"][0]["id"]
    return run_id


def death_of(worker: subprocess.Popen[str]) -> tuple[int, str]:
    """How the worker ended, and its last words."""
    with worker:
        try:
            _, words = worker.communicate()
        finally:
            worker.kill()
        return worker.returncode, words


def test_the_worker_says_which_node_it_was_and_ends(shell: Any) -> None:
    run_id = send(shell, "hog")
    code, words = death_of(shell.start("worker", **STALLING))
    assert code == STALLED
    assert f"node 'hog' of run {run_id}" in words
    assert "time.sleep(3600)" in words
    assert "blocked its worker" in shell("run", run_id, **STALLING).out


@pytest.mark.soak
def test_a_synchronous_node_that_does_not_end_does_not_keep_a_worker_that_was_told_to(shell: Any) -> None:
    run_id = send(shell, "slow")
    worker = shell.start("worker", **STALLING, EVENTWRIGHT_DRAIN_SECONDS="0.5")
    while shell("run", run_id, "--json", **STALLING).json["state"] != "processing":
        time.sleep(0.2)
    worker.terminate()
    code, words = death_of(worker)
    assert (code, "finishing what is under way" in words) == (0, True)


@pytest.mark.soak
def test_restarted_again_and_again_it_ends_with_the_run_put_aside_and_all_others_done(shell: Any) -> None:
    guilty, deaths = send(shell, "hog"), 0
    others = [send(shell, "nap") for _ in range(20)]
    while (run := shell("run", guilty, "--json", **STALLING).json)["state"] != "failed":
        worker = shell.start("worker", **STALLING)
        while worker.poll() is None and shell("run", guilty, "--json", **STALLING).json["state"] != "failed":
            time.sleep(0.2)
        if worker.poll() is None:
            worker.terminate()
        code, _ = death_of(worker)
        deaths += code == STALLED
    assert (run["reason"], deaths) == ("quarantined", 3)
    assert shell("worker", "--burst", **STALLING).code == 0
    states = {shell("run", run_id, "--json", **STALLING).json["state"] for run_id in others}
    assert states == {"completed"}
