"""The log of webhooks, on SQLite and on PostgreSQL alike: what is kept of it and for how long."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.conformance.world import NOW, Clock, begin, event

from eventwright.runs import deliveries
from eventwright.runs.deliveries import Delivered, Delivery, UnknownDelivery
from eventwright.runs.records import DeliveryOutcome
from eventwright.runs.retention import MOST_DELIVERIES, Keep, Removed, removable, remove_some
from eventwright.runs.store import Store

DAY = timedelta(days=1).total_seconds()
FOR_EVER = Keep(checkpoints=None, payloads=None, deliveries=None)


async def add(store: Store, **fields: object) -> Delivery:
    delivery = Delivery(**{"source": "shop", "outcome": DeliveryOutcome.ACCEPTED} | fields)  # type: ignore[arg-type]
    async with store.write() as tx:
        tx.add_delivery(delivery)
    return await deliveries.get(store, delivery.id)


async def test_a_delivery_that_is_not_there_is_told_with_the_way_to_those_that_are(store: Store) -> None:
    with pytest.raises(UnknownDelivery, match="eventwright deliveries list"):
        await deliveries.get(store, "dlv_1")


async def test_deliveries_go_after_their_time_and_the_events_that_they_brought_stay(store: Store, clock: Clock) -> None:
    run = await begin(store, event=event(received_at=NOW))
    brought = Delivered(position=0, outcome=DeliveryOutcome.ACCEPTED, event_id=run.event.id, event_uid=run.event.uid)
    old = await add(store, events=(brought,), body=b"\xff\x00", headers={"a": "b"}, size=10**10)
    assert (old.received_at, old.body, old.size) == (clock.now, b"\xff\x00", 10**10)
    assert [one.run_ids for one in old.events] == [(run.id,)]
    clock.pass_seconds(30 * DAY + 1)
    new = await add(store)

    assert await removable(store, Keep()) == await remove_some(store, Keep()) == Removed(deliveries=1)

    assert await deliveries.find(store) == [new]
    assert (await store.event(run.event.uid)).run_ids == (run.id,)
    assert not await remove_some(store, Keep())


async def test_deliveries_go_with_payloads_for_their_bodies_may_hold_some(store: Store, clock: Clock) -> None:
    await add(store, body=b"the secret of Ann")
    clock.pass_seconds(8 * DAY)

    assert not await remove_some(store, FOR_EVER)
    assert (await remove_some(store, Keep(payloads=timedelta(days=7), deliveries=None))).deliveries == 1


async def test_many_deliveries_go_a_few_at_a_time(store: Store, clock: Clock) -> None:
    async with store.write() as tx:
        for _ in range(MOST_DELIVERIES + 1):
            tx.add_delivery(Delivery(source="shop", outcome=DeliveryOutcome.DUPLICATE))
    clock.pass_seconds(31 * DAY)

    assert (await removable(store, Keep())).deliveries == MOST_DELIVERIES + 1
    assert [(await remove_some(store, Keep())).deliveries for _ in range(3)] == [MOST_DELIVERIES, 1, 0]
