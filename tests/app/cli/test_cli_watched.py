"""What is seen of processes: one trace across workers, metrics of a worker, logs in JSON."""

from __future__ import annotations

import json
import re
import signal
from typing import Any

import httpx
import pytest
from tests.app.observing.standins import Collector

ORDER = {"customer": "Ann", "amount": "80.00"}
CHEAP = {"customer": "Ann", "amount": "8.00"}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def state(shell: Any, run_id: str) -> str:
    found: str = shell("run", run_id, "--json").json["state"]
    return found


@pytest.mark.parametrize("away", ["refuses", "silent", "broken"])
def test_a_collector_that_is_away_keeps_no_run_and_no_process_from_ending(shell: Any, away: str) -> None:
    collector = Collector(status=500 if away == "broken" else 200)
    if away == "silent":
        collector.silent.set()
    with collector.serving():
        url = "http://127.0.0.1:1" if away == "refuses" else collector.url
        shell.send("order.returned", CHEAP)
        ended = shell("worker", "--burst", "--json", OTEL_EXPORTER_OTLP_ENDPOINT=url)
    assert ended.code == 0, ended.err
    assert [run["state"] for run in ended.json["runs"]] == ["completed"]


def test_an_exporter_that_is_not_installed_is_said_before_the_work_begins(shell: Any) -> None:
    ended = shell("worker", "--burst", OTEL_TRACES_EXPORTER="zipkin")
    assert ended.code == 1
    assert "there is no trace exporter 'zipkin' here" in ended.err


def test_one_trace_holds_a_run_that_paused_and_went_on_in_another_worker(shell: Any) -> None:
    collector = Collector()
    with collector.serving():
        tracing = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        event = {"specversion": "1.0", "id": "1", "source": "/test", "type": "order.returned", "data": ORDER}
        traced = json.dumps(event | {"traceparent": f"00-{TRACE}-{PARENT}-01"}).encode()
        assert shell("send", "-", given=traced).code == 0
        assert shell("worker", "--burst", **tracing).code == 0
        (review,) = shell("reviews", "--json").json["items"]
        assert shell("decide", review["id"], "approve").code == 0
        assert shell("worker", "--burst", **tracing, OTEL_SERVICE_NAME="second").code == 0
        assert state(shell, review["run_id"]) == "completed"
    found = collector.spans()
    assert {span.trace for span in found} == {TRACE}
    segments = [span for span in found if span.name == "invoke_workflow orders"]
    assert [span.attributes["eventwright.state"] for span in segments] == ["pending_approval", "completed"]
    assert {span.parent for span in segments} == {PARENT}
    assert [span.service for span in segments] == ["eventwright", "second"]
    assert len({span.attributes["eventwright.worker"] for span in segments}) == 2
    assert {span.name for span in found} >= {"node look", "node refund", "execute_tool cli_shop.pay"}
    assert not any(span.status == 2 for span in found)


def test_a_worker_logs_json_with_the_ids_of_its_runs_and_shows_its_metrics(shell: Any) -> None:
    run_id = shell.send("order.returned", CHEAP, "--json").json["events"][0]["runs"][0]["id"]
    process = shell.start("worker", "--metrics-port", "0", EVENTWRIGHT_LOG_FORMAT="json", EVENTWRIGHT_LOG_LEVEL="info")
    try:
        lines = (json.loads(line) for line in process.stderr if line.startswith("{"))
        found: dict[str, dict[str, Any]] = {}
        for line in lines:
            found[line["event"]] = line
            if "run completed" in found and any(event.startswith("metrics at") for event in found):
                break
        (address,) = [re.findall(r"http://\S+", event)[0] for event in found if event.startswith("metrics at")]
        metrics = httpx.get(address).text
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait() == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    ended = found["run completed"]
    assert (ended["run"], ended["workflow"], ended["outcome"], ended["attempt"]) == (run_id, "orders", "auto", 1)
    assert re.fullmatch("[0-9a-f]{32}", ended["trace_id"])
    paid = found["effect done"]
    assert (paid["tool"], paid["node"], paid["run"], paid["trace_id"]) == (
        "cli_shop.pay",
        "refund",
        run_id,
        ended["trace_id"],
    )
    assert 'eventwright_outcomes_total{outcome="auto",workflow="orders"} 1.0' in metrics
    assert "eventwright_database_up" not in metrics
