"""What goes through the store's redactor and what does not, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from tests.conformance.world import NOW, Clock, assert_unbroken, begin, event, leased, question

from eventwright.runs.records import Decision, DecisionType, Effect, EffectState
from eventwright.runs.states import Reason, RunState
from eventwright.runs.store import Store

SEEN: list[tuple[str, str]] = []


def redact(workflow: str, version: str, value: Any) -> Any:
    SEEN.append((workflow, version))
    return json.loads(json.dumps(value).replace("ann@example.org", "[email 1]"))


@pytest.fixture
async def store(database_url: str, clock: Clock) -> AsyncIterator[Store]:
    async with Store.open(database_url, clock=clock, redact=redact) as store:
        yield store


async def test_every_way_into_the_journal_goes_through_it_and_the_chain_holds(store: Store) -> None:
    run = await begin(store, event=event("ann@example.org"))
    lease = await leased(store, run.id)
    asked = question(run.id, question="Write to ann@example.org?")
    decision = Decision(
        type=DecisionType.RESPOND, by="ann@example.org", response="ann@example.org", comment="to ann@example.org"
    )
    async with store.write(lease) as tx:
        tx.note(run.id, actor="test", data={"to": "ann@example.org"})
        tx.open_review(asked)
        tx.decide(asked, decision)
        tx.move(
            run.id,
            RunState.FAILED,
            actor="test",
            reason=Reason.ATTEMPTS,
            error="no ann@example.org",
            data={"to": "ann@example.org"},
        )

    entries = await store.journal(run.id)

    assert_unbroken(entries)
    assert len(entries) == 6
    assert all("ann@example.org" not in json.dumps(entry.data) for entry in entries)
    assert sum("[email 1]" in json.dumps(entry.data) for entry in entries) == 5
    assert set(SEEN) == {("test", "1")}
    # Who did it is no content: it can be read in the journal, or the journal proves nothing.
    assert entries[4].actor == "ann@example.org"


async def test_the_words_of_errors_go_through_it(store: Store) -> None:
    run = await begin(store)
    lease = await leased(store, run.id)
    failure = {"classes": [], "words": "ann@example.org is unknown", "attributes": {"to": "ann@example.org"}}
    effect = an_effect(run.id, error="ann@example.org is unknown", failures=(failure,))
    async with store.write(lease) as tx:
        tx.put_effect(effect)
        tx.move(run.id, RunState.FAILED, actor="test", reason=Reason.ATTEMPTS, error="no ann@example.org")

    assert (await store.run(run.id)).error == "no [email 1]"
    [kept] = await store.effects(run.id)
    assert kept.error == "[email 1] is unknown"
    assert kept.failures == (failure | {"words": "[email 1] is unknown", "attributes": {"to": "[email 1]"}},)


async def test_the_ledger_and_the_reviews_keep_what_is_executed_and_judged(store: Store) -> None:
    run = await begin(store, event=event(data={"to": "ann@example.org"}))
    lease = await leased(store, run.id)
    asked = question(run.id, arguments={"to": "ann@example.org"})
    async with store.write(lease) as tx:
        tx.open_review(asked)
        tx.put_effect(an_effect(run.id))

    assert (await store.run(run.id)).event.data == {"to": "ann@example.org"}
    assert (await store.review(asked.id)).arguments == {"to": "ann@example.org"}
    [kept] = await store.effects(run.id)
    assert (kept.arguments, kept.result) == ({"to": "ann@example.org"}, "sent to ann@example.org")


def an_effect(run_id: str, **changes: Any) -> Effect:
    effect = Effect(
        key="0" * 64,
        run_id=run_id,
        node="n",
        visit=1,
        tool="mail.send",
        ordinal="0",
        tool_class="plain",
        state=EffectState.DONE,
        requested_digest="1" * 64,
        executed_digest="1" * 64,
        arguments={"to": "ann@example.org"},
        result="sent to ann@example.org",
        updated_at=NOW,
    )
    return replace(effect, **changes)
