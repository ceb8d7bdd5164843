"""Narrow workers on the command line: which lanes there are, who is missing, and where a run was handed over."""

from __future__ import annotations

import re
from typing import Any

NARROW = {"EVENTWRIGHT_WORKFLOWS": "cli_narrow"}


def test_a_lane_without_a_worker_is_told_with_the_command_that_starts_one(shell: Any) -> None:
    (found,) = [check for check in shell("doctor", "--json", **NARROW).json["checks"] if check["name"] == "workflows"]
    assert (found["status"], found["advice"]) == ("warn", "eventwright worker --lane llm")
    both = shell("doctor", "--json", **NARROW, EVENTWRIGHT_LANE="llm,default").json["checks"]
    assert [check["status"] for check in both if check["name"] == "workflows"] == ["ok"]


def test_a_run_is_seen_to_wait_for_the_lane_and_the_timeline_tells_its_way(shell: Any) -> None:
    shell("send", "--type", "letter.came", "--data", "{}", **NARROW)
    shell("worker", "--burst", **NARROW)
    (waiting,) = shell("runs", "--json", **NARROW).json["items"]
    assert (waiting["state"], waiting["lane"]) == ("received", "llm")
    assert "waits for a worker of lane llm" in shell("run", waiting["id"], **NARROW).out

    shell("worker", "--burst", "--lane", "llm", **NARROW)
    shell("worker", "--burst", **NARROW)
    shown = shell("run", waiting["id"], **NARROW).out
    assert "completed" in shown
    assert re.findall(r"handed over to lane (\w+)", shown) == ["llm", "default"]


def test_who_runs_a_node_stands_in_its_policy(shell: Any) -> None:
    assert re.search(r"draft +runs in +lane llm", shell("policy", "show", "letters", **NARROW).out)
    assert "lane llm" in shell("workflows", "letters", **NARROW).out
    nodes = shell("workflows", "letters", "--json", **NARROW).json["nodes"]
    assert [node["lane"] for node in nodes] == ["default", "llm", "default"]
