"""The seven exceptions of the failed payments: what happens in each, and who decides."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.journeys.dunning_world import ANN, DAY, FAILED, OWED, Dunning, TimedMailer, dunning, stripe_event
from tests.tools.model_provider import reset
from tests.tools.stripe_server import Failure, StripeServer, client_of, stripe_server

from eventwright.graphs.failed_payments import LAST, PAUSED, STEPS, TIME_TO_DECIDE, failed_payments
from eventwright.runs.records import ReviewKind
from eventwright.runs.states import Reason, RunState
from eventwright.tools.mail import Sent
from eventwright.tools.stripe_billing import Customer

#: Stripe's library hands httpx a form as text, which httpx would rather call `content`.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
NOBODY = Customer(id="cus_a", name="Ann", email=None)
LARGE_INVOICE = OWED.model_copy(update={"due": OWED.due * 100})


@pytest.fixture
async def world(tmp_path: Path, database_url: str) -> AsyncIterator[Dunning]:
    async with dunning(tmp_path, database_url=database_url) as it:
        yield it


@pytest.fixture
async def nameless(tmp_path: Path, database_url: str) -> AsyncIterator[Dunning]:
    async with dunning(tmp_path, database_url=database_url, customer=NOBODY) as it:
        yield it


@pytest.fixture
async def large(tmp_path: Path, database_url: str) -> AsyncIterator[Dunning]:
    async with dunning(tmp_path, database_url=database_url, invoice=LARGE_INVOICE) as it:
        yield it


@pytest.fixture
async def stripe(tmp_path: Path, database_url: str) -> AsyncIterator[tuple[Dunning, StripeServer]]:
    """The same customer at Stripe, asked through its own library."""
    async with stripe_server() as server, client_of(server) as billing:
        await server.add(ANN, OWED)
        async with dunning(tmp_path, database_url=database_url, resources=(billing,)) as it:
            yield it, server


def test_the_workflow_says_what_happens_in_each_of_the_seven() -> None:
    assert failed_payments.exceptions is not None


# -- missing data ------------------------------------------------------------------------------------------------------


async def test_missing_data_a_customer_without_an_address_gets_one_from_a_person(nameless: Dunning) -> None:
    await nameless.happens(FAILED)
    [review] = await nameless.reviews()
    assert review.kind is ReviewKind.MISSING_DATA
    await nameless.pass_time(60 * DAY)
    assert (await nameless.ledger.invoice("in_a")).attempts == 1

    await nameless.decide("respond", {"email": "ann@example.net"})
    assert [to for _, to, _ in nameless.mailer.sent] == ["ann@example.net"]


async def test_missing_data_nobody_is_paused_whom_nobody_could_remind(nameless: Dunning) -> None:
    await nameless.happens(FAILED)
    await nameless.decide("reject")
    await nameless.pass_time(90 * DAY)
    assert (await nameless.run()).state is RunState.COMPLETED
    assert nameless.subjects == []
    assert not (await nameless.ledger.subscription("sub_a")).is_paused


# -- low confidence ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "attempts"), [("approve", LAST - 1), ("reject", 2)])
async def test_low_confidence_a_reason_that_is_in_no_table_is_decided_by_a_person(
    world: Dunning, answer: str, attempts: int
) -> None:
    await world.ledger.set_card("cus_a", "a_reason_of_next_year")
    await world.happens(FAILED)
    await world.pass_time(15 * DAY)
    [review] = await world.reviews()
    assert review.node == "ask_about_card"
    assert len(world.subjects) == 2

    await world.decide(answer)
    assert (await world.ledger.invoice("in_a")).attempts == attempts
    assert world.subjects == [STEPS[number].subject for number in (1, 2, 3)]


# -- a tool fails ------------------------------------------------------------------------------------------------------


async def test_tool_error_a_stripe_that_is_away_delays_everything_and_doubles_nothing(
    stripe: tuple[Dunning, StripeServer],
) -> None:
    world, server = stripe
    server.failing.extend([Failure(503), Failure(429)])
    await world.happens(FAILED)
    assert world.subjects == []
    await world.pass_time(DAY)
    assert world.subjects == [STEPS[1].subject]

    server.failing.append(Failure(500))
    server.failing_payments.extend([Failure(503), Failure(broken=reset, after_the_work=True)])
    await world.pass_time(3 * DAY)
    assert world.subjects == [STEPS[1].subject, STEPS[2].subject]
    assert server.invoices["in_a"]["attempt_count"] == 2
    paid = [key for _, path, key in server.requests if path.endswith("/pay")]
    assert (len(paid), len(set(paid))) == (3, 1)


async def test_tool_error_a_payment_whose_answer_is_lost_is_taken_once(stripe: tuple[Dunning, StripeServer]) -> None:
    world, server = stripe
    await world.happens(FAILED)
    await server.set_card("cus_a", None)
    server.failing_payments.append(Failure(500, after_the_work=True, kept=True))
    await world.pass_time(4 * DAY)
    assert server.invoices["in_a"]["status"] == "paid"
    assert (await world.run()).state is RunState.COMPLETED
    assert world.subjects == [STEPS[1].subject]


async def test_tool_error_a_stripe_that_stays_away_leaves_a_dead_letter_that_a_replay_takes_up(
    stripe: tuple[Dunning, StripeServer],
) -> None:
    world, server = stripe
    server.failing.extend([Failure(403)])
    await world.happens(FAILED)
    dead = await world.run()
    assert (dead.state, dead.reason) == (RunState.FAILED, Reason.NOT_RETRYABLE)
    assert "EVENTWRIGHT_STRIPE_API_KEY" in (dead.error or "")

    await world.engine.replay(dead.id, by="dana")
    await world.work()
    assert world.subjects == [STEPS[1].subject]


async def test_tool_error_who_pays_while_the_mail_server_is_away_is_not_reminded_when_it_is_back(
    world: Dunning,
) -> None:
    world.smtp.refusing[ANN.email or ""] = 1
    await world.happens(FAILED)
    assert (await world.run()).state is RunState.RETRYING
    await world.ledger.settle("in_a")
    await world.pass_time(DAY)
    assert world.subjects == []
    assert (await world.run()).state is RunState.COMPLETED


class PowerCut(BaseException):
    """The process ends here, without a word."""


class MailerCutOff(TimedMailer):
    """Sends one mail, and then the lights go out; after that it works."""

    cut = False

    async def send(self, to: str, subject: str, body: str, *, idempotency_key: str) -> Sent:
        sent = await super().send(to, subject, body, idempotency_key=idempotency_key)
        if not self.cut:
            self.cut = True
            raise PowerCut
        return sent


@pytest.mark.parametrize(("paid", "mails"), [(True, 1), (False, 2)])
async def test_tool_error_a_reminder_in_doubt_is_sent_again_only_if_the_invoice_is_still_open(
    tmp_path: Path, database_url: str, paid: bool, mails: int
) -> None:
    mailer = MailerCutOff("smtp://127.0.0.1:1")
    async with dunning(tmp_path, database_url=database_url, resources=(mailer,)) as world:
        mailer.server, mailer.clock = world.mailer.server, world.clock
        with pytest.raises(PowerCut):
            await world.happens(FAILED)
        await world.pass_time(DAY)
        [review] = await world.reviews()
        assert review.kind is ReviewKind.IN_DOUBT
        if paid:
            await world.ledger.settle("in_a")
        await world.decide("respond", {"happened": False})
        assert len(world.smtp.messages) == mails
        assert (await world.run()).state is (RunState.COMPLETED if paid else RunState.WAITING)


# -- the same event again ----------------------------------------------------------------------------------------------


async def test_duplicate_event_the_same_event_is_answered_with_its_run(world: Dunning) -> None:
    event = stripe_event(FAILED, "evt_1")
    first, second = await world.receive(event), await world.receive(event)
    await world.work()
    assert (second.duplicate, second.runs[0].id) == (True, first.runs[0].id)
    assert len(world.subjects) == 1


async def test_duplicate_event_another_event_about_the_invoice_finds_it_taken_on(world: Dunning) -> None:
    for number in (2, 1, 1, 3):
        await world.happens(FAILED, attempt_count=number)
    states = [(await world.run(number)).state for number in range(4)]
    assert states == [RunState.WAITING, *[RunState.COMPLETED] * 3]
    assert world.subjects == [STEPS[1].subject]


async def test_duplicate_event_one_that_comes_when_all_is_over_begins_nothing_anew(world: Dunning) -> None:
    await world.happens(FAILED)
    await world.pass_time(30 * DAY + PAUSED.time)
    mails = world.subjects
    await world.happens(FAILED, attempt_count=4)
    await world.pass_time(90 * DAY)
    assert world.subjects == mails
    assert (await world.run(1)).state is RunState.COMPLETED


# -- nobody answers in time --------------------------------------------------------------------------------------------


async def test_timeout_nobody_pays_and_the_next_step_comes(world: Dunning) -> None:
    await world.happens(FAILED)
    await world.pass_time(STEPS[1].time - DAY)
    assert len(world.subjects) == 1
    await world.pass_time(2 * DAY)
    assert world.subjects == [STEPS[1].subject, STEPS[2].subject]


async def test_timeout_a_pause_that_nobody_approves_does_not_happen(large: Dunning) -> None:
    await large.happens(FAILED)
    await large.decide("approve")
    await large.pass_time(23 * DAY)
    [review] = await large.reviews()
    assert review.node == "pause"
    await large.pass_time(TIME_TO_DECIDE)
    assert not (await large.ledger.subscription("sub_a")).is_paused
    assert (await large.run()).state is RunState.COMPLETED


# -- a person decides --------------------------------------------------------------------------------------------------


async def test_human_approval_a_large_account_is_not_written_to_before_its_manager_says_so(large: Dunning) -> None:
    await large.happens(FAILED)
    await large.pass_time(30 * DAY)
    assert large.subjects == []
    assert "above the limit" in (await large.reviews())[0].question
    await large.decide("approve")
    assert large.subjects == [STEPS[1].subject]


async def test_human_approval_a_large_account_that_its_manager_takes_over_is_left_alone(large: Dunning) -> None:
    await large.happens(FAILED)
    await large.decide("reject")
    await large.pass_time(90 * DAY)
    assert large.subjects == []
    assert (await large.ledger.invoice("in_a")).attempts == 1


async def test_human_approval_a_large_account_is_paused_only_if_its_manager_agrees(large: Dunning) -> None:
    await large.happens(FAILED)
    await large.decide("approve")
    await large.pass_time(23 * DAY)
    await large.decide("approve")
    assert (await large.ledger.subscription("sub_a")).is_paused
    assert large.subjects[-1] == PAUSED.subject


async def test_human_approval_who_pays_while_the_pause_is_decided_is_not_paused(large: Dunning) -> None:
    await large.happens(FAILED)
    await large.decide("approve")
    await large.pass_time(23 * DAY)
    await large.ledger.settle("in_a")
    await large.decide("approve")
    assert await large.ledger.execute("SELECT * FROM pauses") == []
    assert PAUSED.subject not in large.subjects


async def test_human_approval_an_invoice_without_a_subscription_is_handed_over(
    tmp_path: Path, database_url: str
) -> None:
    single = OWED.model_copy(update={"subscription_id": None})
    async with dunning(tmp_path, database_url=database_url, invoice=single) as world:
        await world.happens(FAILED)
        await world.pass_time(30 * DAY)
        assert (await world.reviews())[0].node == "hand_over"
        await world.decide("approve")
        assert (await world.run()).state is RunState.COMPLETED


# -- half done ---------------------------------------------------------------------------------------------------------


async def test_partial_completion_a_pause_whose_mail_cannot_leave_is_made_once_and_told_by_a_replay(
    world: Dunning,
) -> None:
    await world.happens(FAILED)
    await world.pass_time(20 * DAY)
    world.smtp.refusing[ANN.email or ""] = math.inf
    await world.pass_time(5 * DAY)
    dead = await world.run()
    assert (dead.state, dead.reason) == (RunState.FAILED, Reason.ATTEMPTS)
    assert (await world.ledger.subscription("sub_a")).is_paused

    world.smtp.refusing.clear()
    await world.engine.replay(dead.id, by="dana")
    await world.work()
    assert world.subjects[-1] == PAUSED.subject
    pauses = [effect for effect in await world.engine.store.effects(dead.id) if "pause" in effect.tool]
    assert [effect.attempt for effect in pauses] == [1]
