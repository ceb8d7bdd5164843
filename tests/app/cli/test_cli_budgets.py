"""What an operator sees of budgets: the list, and the record of the run that used them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eventwright.app.commands.timeline import timeline
from eventwright.app.simulate import simulate


def test_no_budget_used_is_said_in_a_sentence(shell: Any) -> None:
    assert shell("db", "upgrade").code == 0
    assert "No call has used a budget yet" in shell("budgets").out
    assert shell("budgets", "--json").json == {"items": [], "next": None}


def test_what_is_used_of_each_budget_is_listed_page_by_page(shell: Any, json_lines: Callable[..., bytes]) -> None:
    who = ["Ann", "Ann", "Ann", "Bob", "\x1b[31mMallory"]
    events = [
        {"id": str(number), "type": "gift.wanted", "data": {"customer": name, "amount": "5"}}
        for number, name in enumerate(who)
    ]
    assert shell("send", "-", given=json_lines(*events)).code == 0
    shell("worker", "--burst")

    said = shell("budgets")
    assert said.code == 0
    assert "2     2   all runs · gifts / refund · cli_shop.pay calls · customer=Ann" in said.out
    assert "1     2   all runs · gifts / refund · cli_shop.pay calls · customer=Bob" in said.out
    assert "\x1b" not in said.out

    everything = shell("budgets", "--json").json["items"]
    assert sorted(item["used"] for item in everything) == ["1", "1", "2"]
    assert {item["most"] for item in everything} == {"2"}
    first = shell("budgets", "--json", "--limit", "1").json
    rest = shell("budgets", "--json", "--before", first["next"]).json
    assert first["items"] + rest["items"] == everything
    assert rest["next"] is None
    assert f"eventwright budgets --before {first['next']}" in shell("budgets", "--limit", "1").out


async def test_the_record_of_a_run_tells_what_was_reserved(cli_shop: Any) -> None:
    async with simulate(cli_shop.gifts, {"customer": "Ann", "amount": "5"}) as run:
        told = [moment.text for moment in timeline(await run.journal())]
        picture = (await run.timeline()).svg
    assert "reserves 1 of all runs · gifts / refund · cli_shop.pay calls · customer=Ann" in told
    assert "all runs" not in picture
