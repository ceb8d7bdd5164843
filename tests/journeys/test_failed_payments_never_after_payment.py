"""Whatever comes, in whatever order: nobody is reminded, charged or paused after having paid."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from tests.journeys.dunning_world import ANN, FAILED, OWED, Dunning, dunning, stripe_event

from eventwright.graphs.failed_payments import SETTLED
from eventwright.runs.event import Event
from eventwright.runs.states import RunState
from eventwright.tools.billing_ledger import BillingLedger
from eventwright.tools.stripe_billing import Invoice

HOURS = st.integers(0, 24 * 12)
THINGS = st.one_of(
    st.tuples(st.just("hours pass"), HOURS),
    st.tuples(st.just("hours pass"), HOURS),
    st.tuples(st.just("a failure is told"), st.integers(1, 4)),
    st.tuples(st.just("a settlement is told"), st.sampled_from(SETTLED)),
    st.tuples(st.just("an event is told again"), st.integers(0, 9)),
    st.tuples(st.just("the customer pays"), st.just(0)),
    st.tuples(st.just("the customer pays before a look"), st.integers(1, 4)),
    st.tuples(st.just("stripe tries by itself"), st.just(0)),
    st.tuples(st.just("the card"), st.sampled_from([None, "insufficient_funds", "lost_card", "a_new_word"])),
    st.tuples(st.just("the mail server refuses"), st.integers(0, 3)),
    st.tuples(st.just("somebody decides"), st.booleans()),
)


class Sudden(BillingLedger):
    """Here the customer can pay between two things that we do: just before we look for the n-th time."""

    looks_left: int | None = None

    async def invoice(self, invoice_id: str) -> Invoice:
        if self.looks_left is not None:
            self.looks_left -= 1
            if self.looks_left == 0:
                self.looks_left = None
                await self.settle(invoice_id)
        return await super().invoice(invoice_id)


class History:
    """One life of an invoice: it does what the example says."""

    def __init__(self, world: Dunning, sudden: Sudden) -> None:
        self.world, self.sudden = world, sudden
        self.told: list[Event] = []

    async def do(self, thing: str, how: object) -> None:
        world, ledger = self.world, self.sudden
        match thing, how:
            case "hours pass", int(hours):
                await world.pass_time(timedelta(hours=hours))
            case "a failure is told", int(attempt):
                await self.tell(stripe_event(FAILED, attempt_count=attempt))
            case "a settlement is told", str(kind):
                await self.tell(stripe_event(kind, status="paid"))
            case "an event is told again", int(number) if self.told:
                await self.tell(self.told[number % len(self.told)])
            case "the customer pays", _:
                await ledger.settle(OWED.id)
            case "the customer pays before a look", int(looks):
                ledger.looks_left = looks
            case "stripe tries by itself", _:
                await ledger.pay(OWED.id, idempotency_key=f"stripe's own {len(self.told)}")
            case "the card", reason:
                await ledger.set_card(ANN.id or "", reason if isinstance(reason, str) else None)
            case "the mail server refuses", int(times):
                world.smtp.refusing[ANN.email or ""] = times
            case "somebody decides", bool(yes):
                if await world.reviews():
                    await world.decide("approve" if yes else "reject")

    async def tell(self, told: Event) -> None:
        self.told.append(told)
        await self.world.receive(told)
        await self.world.work()


async def live(folder: Path, url: str, things: list[tuple[str, object]]) -> None:
    """The life of one invoice, and four months more in which nothing happens any more."""
    async with dunning(folder, database_url=url, kind=Sudden) as it:
        sudden = it.ledger
        assert isinstance(sudden, Sudden)
        history = History(it, sudden)
        for thing, how in things:
            await history.do(thing, how)
        await it.pass_time(timedelta(days=120))
        await judge(it, sudden)
        event(f"{len(it.mailer.sent)} mails, {'paid' if await sudden.paid_at(OWED.id) else 'open'}")


async def judge(world: Dunning, ledger: Sudden) -> None:
    """What the outside has seen, and not what we say of it."""
    paid_at = await ledger.paid_at(OWED.id)
    subjects = world.subjects
    assert len(subjects) == len(set(subjects)), f"the same reminder twice: {subjects}"
    if paid_at is not None:
        late = [sent for sent in world.mailer.sent if sent[0] > paid_at]
        assert late == [], f"paid at {paid_at}, and then reminded: {late}"
        charges = await ledger.execute("SELECT at FROM charges WHERE at > ?", (paid_at.isoformat(),))
        assert charges == []
        assert not (await ledger.subscription(OWED.subscription_id or "")).is_paused
    states = [(await world.run(number)).state for number in range(len(world.runs))]
    # Nobody is forgotten: it is over, or waits for a person by name.
    assert set(states) <= {RunState.COMPLETED, RunState.PENDING_APPROVAL}


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(things=st.lists(THINGS, min_size=3, max_size=14).map(lambda rest: [("a failure is told", 1), *rest]))
def test_nothing_is_sent_charged_or_paused_after_the_payment(
    migrated_sqlite: Path, things: list[tuple[str, object]]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with closing(sqlite3.connect(migrated_sqlite)) as template:
            template.execute("VACUUM INTO ?", (str(folder / "eventwright.db"),))
        asyncio.run(live(folder, f"sqlite+aiosqlite:///{folder / 'eventwright.db'}", things))
