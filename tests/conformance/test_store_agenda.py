"""What waits for people, in the order in which it has to be seen to, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

from datetime import timedelta

from tests.conformance.world import NOW, ask, begin

from eventwright.runs.agenda import agenda
from eventwright.runs.records import Decision, DecisionType, Review
from eventwright.runs.store import Store


async def asked(store: Store, hours: int | None, workflow: str = "support") -> Review:
    run = await begin(store, workflow=workflow)
    deadline = None if hours is None else NOW + timedelta(hours=hours)
    return await ask(store, run.id, deadline=deadline, workflow=workflow, evidence={"event": "x" * 1000})


async def test_the_earliest_deadline_comes_first_and_what_has_none_last(store: Store) -> None:
    none, late, soon, soon_too, another_none = [await asked(store, hours) for hours in (None, 9, 1, 1, None)]
    wanted = [soon.id, soon_too.id, late.id, none.id, another_none.id]

    assert [item.review.id for item in await agenda(store)] == wanted
    # And so it does page by page, whatever was decided meanwhile.
    found: list[str] = []
    last: Review | None = None
    while page := await agenda(store, after=last, limit=1):
        found.append(page[0].review.id)
        last = await store.review(found[-1])
        async with store.write() as tx:
            tx.decide(last, Decision(type=DecisionType.REJECT, by="ann"))
    assert found == wanted


async def test_it_holds_open_questions_of_one_workflow_if_asked_and_nothing_heavy(store: Store) -> None:
    await asked(store, 1, "invoices")
    mine = await asked(store, 2)
    [item] = await agenda(store, workflow="support")
    run = await store.run(mine.run_id)

    assert (item.review.id, item.review.question, item.review.allowed) == (mine.id, mine.question, mine.allowed)
    assert (item.review.evidence, item.review.arguments, item.review.response_schema) == ({}, None, None)
    assert (item.event_type, item.event_id, item.subject) == (run.event.type, run.event.id, run.event.subject)
