"""Roles through the HTTP door."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from eventwright.app.settings import Settings
from eventwright.graphs.workflow import Workflow
from eventwright.guardrails.policy import review
from eventwright.guardrails.rules import above


@pytest.fixture
def asking_a_manager(paying_workflow: Callable[..., Workflow]) -> Workflow:
    approval = review("May this be paid?", roles=["manager"])
    return paying_workflow("shared", "shared.wanted", approve_when=above("amount", 5), approval=approval)


async def test_without_the_role_it_is_a_403_that_says_who_may(
    opened: Any, client_of: Any, bank: Any, asking_a_manager: Workflow
) -> None:
    async with opened(asking_a_manager, roles="manager=mona;director=cleo") as app, client_of(app) as client:
        wish = {"account": "ann", "amount": "10.00"}
        event = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "shared.wanted", "data": wish}
        told = await client.post("/v1/events", json=event, headers={"content-type": "application/cloudevents+json"})
        run_id = told.json()["events"][0]["runs"][0]["id"]
        await app.engine.advance(run_id)
        [asked] = (await client.get("/v1/reviews?state=open")).json()["items"]
        assert asked["roles"] == ["manager"]

        async def answered(by: str) -> Any:
            path, headers = f"/v1/reviews/{asked['id']}/decision", {"eventwright-actor": by}
            return await client.post(path, json={"type": "approve"}, headers=headers)

        for by in ("eve", "cleo"):
            refused = await answered(by)
            assert (refused.status_code, refused.json()["type"]) == (403, "urn:eventwright:problem:forbidden")
            assert "those who may: mona" in refused.json()["detail"]
        assert (await answered("mona")).status_code == 200
        await app.engine.advance(run_id)
        assert (await client.get(f"/v1/runs/{run_id}")).json()["outcome"] == "approved"
        assert len(bank.paid) == 1


def test_roles_that_nobody_understands_stop_the_process_at_its_start() -> None:
    with pytest.raises(ValidationError, match="does not say who has the role"):
        Settings(roles="manager")
