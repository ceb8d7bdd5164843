"""Roles at the command line, in the real program."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest


@pytest.mark.soak
def test_without_the_role_the_command_fails_and_says_who_may(shell: Any) -> None:
    shop = partial(shell, EVENTWRIGHT_WORKFLOWS="cli_roles", EVENTWRIGHT_ROLES="manager=mona,max")
    sent = shop("send", "--type", "wanted", "--data", '{"amount": "10"}', "--json")
    run_id = sent.json["events"][0]["runs"][0]["id"]
    shop("worker", "--burst")
    [asked] = shop("reviews", "--json").json["items"]
    told = shop("reviews").out
    assert "in the role" in told
    assert "manager" in told

    refused = shop("decide", asked["id"], "approve", "--by", "eve")
    assert refused.code == 1
    assert "those who may: mona, max" in " ".join(refused.err.split())
    assert shop("decide", asked["id"], "approve", "--by", "max").code == 0
    shop("worker", "--burst")
    assert shop("run", run_id, "--json").json["outcome"] == "approved"
    assert "only in the role manager" in shop("policy", "show", "shop").out


def test_roles_that_nobody_understands_are_told(shell: Any) -> None:
    said = shell("reviews", EVENTWRIGHT_ROLES="manager")
    assert said.code != 0
    assert "EVENTWRIGHT_ROLES" in said.err
    assert "does not say who has the role" in " ".join(said.err.split())


def test_the_discounts_pass_every_check(shell: Any) -> None:
    said = shell("check", EVENTWRIGHT_WORKFLOWS="eventwright.graphs.discounts")
    assert said.code == 0, said.out + said.err
