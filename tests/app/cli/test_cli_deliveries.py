"""The log of webhooks at the terminal: what came, why one was refused, and that one once more."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from eventwright.app.composition import open_app
from eventwright.app.settings import Settings
from eventwright.app.web.api import create_api
from eventwright.queue.webhooks import sign

SECRET = "c2VjcmV0IG9mIHRoZSBzaG9w"


async def deliver(settings: Settings, **orders: dict[str, str]) -> list[int]:
    """Post an order under each of the names, and garbage twice."""
    statuses = []
    async with open_app(settings, rings=False) as app:
        transport = httpx.ASGITransport(app=create_api(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            for name, data in orders.items():
                body = json.dumps({"type": "order.returned", "data": data}).encode()
                headers = sign(body, name, datetime.now(UTC), SECRET)
                statuses.append((await client.post("/v1/webhooks/shop", content=body, headers=headers)).status_code)
            for _ in range(2):
                statuses.append((await client.post("/v1/webhooks/shop", content=b"\x1b[31m")).status_code)
    return statuses


def test_a_delivery_is_found_understood_and_taken_in_again(
    shell: Any, cli_shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shell("deliveries", "list").out == "Nothing was delivered.\n"
    monkeypatch.setenv("EVENTWRIGHT_WEBHOOK_SHOP_SECRET", SECRET)
    settings = Settings(home=shell.home, redis_url="none", workflows="cli_shop")
    posted = asyncio.run(deliver(settings, good={"customer": "Ann", "amount": "8"}, bad={"customer": "Bob"}))
    assert posted == [202, 422, 401, 401]

    screen = shell("deliveries", "list", "Shop").out
    assert "unauthorised ×2" in screen
    assert "amount" in screen  # what the refused one lacks
    garbage, refused, accepted = shell("deliveries", "list", "--json").json["items"]
    assert [one["outcome"] for one in (garbage, refused, accepted)] == ["unauthorised", "refused", "accepted"]
    assert f"run {accepted['events'][0]['runs'][0][-8:]}" in screen

    shown = shell("deliveries", "show", refused["id"][-8:])
    assert "its data fits no payload model" in shown.out
    assert f"eventwright deliveries replay {refused['id'][-8:]}" in shown.out
    assert shell("deliveries", "show", refused["id"], "--json").json["message_id"] == "bad"

    again = shell("deliveries", "replay", accepted["id"], "--json")
    assert (again.code, again.json["events"][0]["duplicate"]) == (0, True)
    still = shell("deliveries", "replay", refused["id"], "--by", "ann")
    assert (still.code, "amount" in still.err) == (1, True)
    assert shell("deliveries", "show", refused["id"], "--json").json["replayed_by"] == "ann"

    assert "nothing to replay" in shell("deliveries", "replay", garbage["id"]).err
    assert "`eventwright deliveries list` lists them" in shell("deliveries", "show", "nonsense").err
    assert "fits several deliveries" in shell("deliveries", "show", "dlv_").err
