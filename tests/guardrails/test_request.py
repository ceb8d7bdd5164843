"""What an approval is bound to, and what the ledger knows a call by."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as some

from eventwright.guardrails.request import bound_to, call_digest, validate
from eventwright.runs.event import Event, canonical, digest_of
from eventwright.runs.records import Run
from eventwright.runs.states import RunState
from eventwright.tools.contract import tool

NAMES = some.text(some.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**53) + 1, 2**53 - 1) | NAMES,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


@tool(writes="plain")
async def pay(amount: Decimal, to: str) -> str:
    """Pay nobody."""
    return f"{amount} {to}"


def a_run(name: str, version: str) -> Run:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    event = Event(id="1", source="/test", type="test", data={})
    state = RunState.PROCESSING
    return Run(
        id="run", workflow=name, version=version, state=state, lane="x", event=event, created_at=now, updated_at=now
    )


@given(NAMES, NAMES, NAMES, NAMES, some.dictionaries(NAMES, VALUES, max_size=4))
def test_an_approval_is_bound_to_the_canonical_json_of_all_that_makes_the_call(
    workflow: str, version: str, node: str, name: str, arguments: dict[str, object]
) -> None:
    all_of_it = {"workflow": workflow, "version": version, "run": "run", "node": node, "tool": name}
    digest = call_digest(bound_to(a_run(workflow, version), node, name), canonical(arguments))

    assert digest == digest_of(all_of_it | {"arguments": arguments})


@pytest.mark.parametrize("amount", ["1.0", "1.00", "1E+2"])
def test_the_text_that_digests_are_made_of_says_what_people_are_shown(amount: str) -> None:
    arguments = validate(pay, {"to": "ann", "amount": Decimal(amount)})

    assert arguments.text == canonical(arguments.values)
    assert arguments.values == {"amount": str(Decimal(amount)), "to": "ann"}
    assert arguments.validated.model_dump() == {"amount": Decimal(amount), "to": "ann"}
