"""The processes: they come up, say where they are, work together, and end when they are told to."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def running(shell: Any, *words: str, **settings: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A process that is up, and what it says on stderr, growing; killed at the end if it still runs."""
    process = shell.start(*words, **settings)
    said: list[str] = []
    up = threading.Event()

    def listen() -> None:
        for line in process.stderr or ():
            said.append(line)
            if "is up" in line:
                up.set()
        up.set()

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        up.wait()
        assert process.poll() is None, "".join(said)
        yield process, said
    finally:
        process.kill()
        process.wait()
        listener.join()
        if process.stderr:
            process.stderr.close()


def until(holds: Any) -> None:
    """Wait until something holds; pytest's timeout is the only limit."""
    while not holds():
        time.sleep(0.05)


def test_up_does_everything_in_one_process_and_ends_warmly(shell: Any) -> None:
    embedded = {"EVENTWRIGHT_REDIS_URL": ""}
    with running(shell, "up", "--port", "0", **embedded) as (process, said):
        (address,) = re.findall(r"is up at (http://127\.0\.0\.1:\d+)", "".join(said))
        order = '{"customer": "Ann", "amount": "80.00"}'
        sent = shell("send", "--type", "order.returned", "--data", order, "--to", address, "--json").json
        run_id = sent["events"][0]["runs"][0]["id"]

        def state() -> str:
            found: str = shell("run", run_id, "--json", **embedded).json["state"]
            return found

        until(lambda: state() == "pending_approval")
        doctor = shell("doctor", "--json", **embedded).json
        workers = next(check for check in doctor["checks"] if check["name"] == "workers")
        assert workers["status"] == "ok"

        (review,) = shell("reviews", "--json", **embedded).json["items"]
        assert shell("decide", review["id"], "approve", **embedded).code == 0
        until(lambda: state() == "completed")

        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    assert not (shell.home / "valkey" / "server.json").exists()


def test_an_api_for_strangers_is_not_started_without_a_key(shell: Any) -> None:
    said = shell("api", "--host", "192.0.2.1", "--port", "0")
    assert said.code == 1
    assert "EVENTWRIGHT_API_KEY" in said.err.splitlines()[-1]


@pytest.mark.soak
def test_a_second_signal_ends_a_worker_that_is_still_finishing(shell: Any) -> None:
    shell.send("nap.wanted", {})
    with running(shell, "worker", EVENTWRIGHT_DRAIN_SECONDS="600") as (process, said):
        until(lambda: "processing" in shell("runs").out)
        process.send_signal(signal.SIGINT)
        until(lambda: any("once more to end at once" in line for line in said))
        process.send_signal(signal.SIGINT)
        assert process.wait() != 0


def test_a_lane_that_is_named_twice_is_refused_with_what_to_do(shell: Any) -> None:
    said = shell("worker", "--burst", "--lane", "urgent,default,urgent")
    assert said.code == 1
    assert "EVENTWRIGHT_LANE" in said.err
    assert "leave it where it is most urgent" in " ".join(said.err.split())


def test_a_worker_names_its_lanes_and_the_doctor_those_that_nobody_works_on(shell: Any) -> None:
    embedded = {"EVENTWRIGHT_REDIS_URL": ""}
    with running(shell, "worker", "--lane", "llm,default", **embedded) as (process, said):
        until(lambda: re.search(r"lanes +llm, default", "".join(said)))

        def workers(lane: str) -> Any:
            checks = shell("doctor", "--json", **embedded, EVENTWRIGHT_LANE=lane).json["checks"]
            return next(check for check in checks if check["name"] == "workers")

        until(lambda: workers("default")["status"] == "ok")
        assert "1 on lane llm" in workers("llm,default")["detail"]
        assert workers("urgent,default,late") == {
            "name": "workers",
            "status": "warn",
            "detail": "nobody works on lane urgent, late",
            "advice": "eventwright up, or eventwright worker --lane urgent,late",
        }
        process.send_signal(signal.SIGTERM)  # takes its Valkey with it
        assert process.wait() == 0


def test_sending_to_a_machine_where_nobody_answers_says_so(shell: Any) -> None:
    said = shell("send", "--type", "t", "--data", "{}", "--to", "http://127.0.0.1:1")
    assert said.code == 1
    assert "no Eventwright answers at http://127.0.0.1:1" in said.err
