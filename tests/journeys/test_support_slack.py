"""The support workflow, started by Slack: answered in the thread, and nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from tests.journeys.support_desk import CHANNEL, USER, Desk, open_desk
from tests.journeys.support_world import CLEAR, REFUND, Outside

from eventwright.runs.records import ReviewKind
from eventwright.runs.states import Outcome, RunState

TS = "1700000000.000100"


@pytest.fixture
async def desk(outside: Outside, database_url: str) -> AsyncIterator[Desk]:
    async with open_desk(outside, database_url) as opened:
        yield opened


@pytest.mark.parametrize(
    "more",
    [
        {"bot_id": "B0EVENTWR1"},
        {"app_id": "A0EVENTWR1"},
        {"subtype": "bot_message"},
        {"subtype": "message_changed"},
        {"subtype": "channel_join"},
        {"thread_ts": "1699999999.000100"},
        {"text": None},
        {"user": None},
    ],
)
async def test_what_no_person_wrote_or_what_belongs_to_a_thread_starts_nothing(
    desk: Desk, more: dict[str, Any]
) -> None:
    receipt = await desk.says(**{"text": CLEAR, **more})
    assert receipt.runs == ()


async def test_a_message_in_another_channel_is_not_answered(desk: Desk) -> None:
    receipt = await desk.says(CLEAR, channel="C0RANDOM001")

    [run] = receipt.runs
    assert (await desk.of(run).run()).state is RunState.COMPLETED
    assert (desk.answers, desk.letters) == ([], [])


async def test_who_has_no_address_in_slack_is_named_by_a_person(desk: Desk) -> None:
    desk.workspace.users[USER] = {"id": USER, "profile": {}}
    receipt = await desk.says(CLEAR)

    [asked] = await desk.of(receipt.runs[0]).reviews()
    assert (asked.kind, asked.node) == (ReviewKind.MISSING_DATA, "ask_sender")
    assert desk.answers == []


async def test_a_message_is_answered_in_its_thread_once_however_often_slack_tells_it(desk: Desk) -> None:
    first = await desk.says(CLEAR, id="Ev1")
    again = await desk.says(CLEAR, id="Ev1")

    assert again.duplicate
    assert [run.id for run in again.runs] == [run.id for run in first.runs]
    assert (await desk.of(first.runs[0]).run()).outcome is Outcome.AUTO
    assert desk.answers == [(CHANNEL, TS)]
    assert desk.letters == []


async def test_the_answer_of_a_customer_in_the_thread_goes_on_and_that_of_another_does_not(desk: Desk) -> None:
    receipt = await desk.says(REFUND)
    run = desk.of(receipt.runs[0])
    assert (await run.run()).state is RunState.WAITING

    other = await desk.says("It was 99.00 GBP", ts="1700000001.000100", thread_ts=TS, user="U0BOB00001")
    assert (other.runs, await desk.refunded()) == ((), [])
    await desk.says("It was £20.50", ts="1700000002.000100", thread_ts=TS)

    assert (await run.run()).state is RunState.COMPLETED
    assert await desk.refunded() == ["20.50 GBP"]
    assert desk.answers == [(CHANNEL, TS)] * 2


async def test_a_late_answer_in_the_thread_is_answered_there(desk: Desk) -> None:
    receipt = await desk.says(REFUND)
    await desk.of(receipt.runs[0]).pass_time(timedelta(days=11))

    late = await desk.says(f"{REFUND} £20.50", ts="1700000009.000100", thread_ts=TS)

    assert [run.id for run in late.runs] != [run.id for run in receipt.runs]
    assert await desk.refunded() == ["20.50 GBP"]
    assert desk.answers == [(CHANNEL, TS)] * 3
    assert len(desk.letters) == 1, "the front desk is told"
