"""What providers deliver is taken in here, and every delivery leaves a record.

What their signature proves to be theirs is written down one by one: what is accepted or refused in the transaction that
stores its event, the rest in one of its own. What nobody has signed is only counted, and so is what we had no room for.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType

from starlette.datastructures import Headers

from eventwright.app.composition import App
from eventwright.app.web.bodies import read
from eventwright.app.web.models import Accepted, AcceptedEvent
from eventwright.app.web.refusals import logged_problem
from eventwright.app.web.taking_in import answer, take_in_each
from eventwright.app.wire.problems import Problem, ProblemType, Refused, problem_of
from eventwright.app.wire.strict_json import parse
from eventwright.queue import webhook_providers
from eventwright.queue.intake import Beside, Receipt
from eventwright.queue.webhook_providers import Options, Provider, Told, provider_of
from eventwright.queue.webhooks import BadWebhook, SignatureRefused, Verified, single_headers, verify
from eventwright.runs import deliveries
from eventwright.runs.deliveries import GATHERED, Delivered, Delivery, NothingToReplay
from eventwright.runs.errors import StoreUnavailable
from eventwright.runs.event import Event
from eventwright.runs.records import DeliveryOutcome, EventState
from eventwright.runs.transaction import Transaction

log = logging.getLogger(__name__)

#: What becomes of a delivery whose sender is told of a problem; of any other the trouble is ours.
_OUTCOMES: Mapping[ProblemType, DeliveryOutcome] = MappingProxyType(
    {
        ProblemType.BAD_SIGNATURE: DeliveryOutcome.UNAUTHORISED,
        ProblemType.TOO_LARGE: DeliveryOutcome.UNREAD,
        ProblemType.TOO_SLOW: DeliveryOutcome.UNREAD,
        ProblemType.TOO_BUSY: DeliveryOutcome.OVERLOADED,
        ProblemType.BAD_JSON: DeliveryOutcome.INVALID,
        ProblemType.BAD_EVENT: DeliveryOutcome.INVALID,
        ProblemType.FORBIDDEN: DeliveryOutcome.INVALID,
        ProblemType.EVENT_CONFLICT: DeliveryOutcome.CONFLICT,
        ProblemType.UNKNOWN_VERSION: DeliveryOutcome.REFUSED,
        ProblemType.INVALID_PAYLOAD: DeliveryOutcome.REFUSED,
    }
)
_STORED: Mapping[EventState, DeliveryOutcome] = MappingProxyType(
    {EventState.ACCEPTED: DeliveryOutcome.ACCEPTED, EventState.REFUSED: DeliveryOutcome.REFUSED}
)
#: Of an event that is stored with its runs, the one that is told of a whole delivery first.
_TAKEN = (DeliveryOutcome.ACCEPTED, DeliveryOutcome.DUPLICATE)
#: An event of which nothing is known yet.
_UNTOLD = Delivered(position=0, outcome=DeliveryOutcome.RECEIVED)


@dataclass(frozen=True)
class Signed:
    """A delivery whose signature was right, as it is put into the log."""

    provider: Provider
    raw: bytes
    headers: Mapping[str, str]
    verified: Verified
    record: Delivery

    def told(self) -> Told:
        """What it tells. Raises what the provider's `tell` does."""
        return self.provider.tell(
            webhook_providers.Delivery(
                source=self.record.source, raw=self.raw, headers=self.headers, verified=self.verified, parse=parse
            )
        )

    def whole(self, **news: object) -> Delivery:
        """The record with the body, for one whose events do not hold it."""
        return replace(self.record, body=self.raw, headers=dict(self.headers), **news)  # type: ignore[arg-type]


def outcome_of(problem: Problem) -> DeliveryOutcome:
    """What became of a delivery, or an event of it, whose sender is told this."""
    return _OUTCOMES.get(problem.type, DeliveryOutcome.FAILED)


def not_read(app: App, source: str, error: Exception) -> None:
    """Count a delivery whose body was not read to its end."""
    app.gatherer.add(_known(app, source), outcome_of(problem_of(error)), 0)


async def deliver(app: App, source: str, body: bytes, headers: Headers) -> tuple[Told, Accepted]:
    """Take in what a provider delivers: all its events or, when we are in trouble, it is to send them again.

    Args:
        app: who takes it in.
        source: the name in the address.
        body: as it came.
        headers: of the request.

    Raises:
        SignatureRefused: it was counted.
        BadWebhook, BadJSON, Refused: and whatever else the engine's `receive` says of an event.
    """
    try:
        signed = _signed(app, source, body, headers)
    except Exception as error:
        app.gatherer.add(_known(app, source), outcome_of(problem_of(error)), len(body))
        raise
    try:
        told = await read(body, lambda _: signed.told())
    except Exception as error:
        await _write_problem(app, signed, problem_of(error))
        raise
    match told.events:
        case ():
            await _write(app, replace(signed.record, outcome=DeliveryOutcome.ANSWERED))
            return told, Accepted(events=[])
        case (BadWebhook() as fault,):
            await _write_problem(app, signed, problem_of(fault))
            raise fault
        case (Event() as event,):
            return told, await _one(app, signed, event)
    return told, await _several(app, signed, told.events)


async def replay(app: App, delivery_id: str, *, by: str) -> Accepted:
    """Take in once more what a delivery brought, as the code is now: what is stored is answered with its runs.

    Its signature is not checked again: that was done when it came.

    Raises:
        UnknownDelivery, NothingToReplay, StoreUnavailable.
        EventExpired: the event that it brought was kept long enough.
        BadWebhook, BadJSON: its body still names no event.
        Refused: what it brought is still not accepted.
    """
    delivery = await deliveries.get(app.store, delivery_id)
    before = {event.position: event for event in delivery.events}
    if delivery.body is None and not any(event.event_uid for event in delivery.events):
        raise NothingToReplay(delivery)
    told = {} if delivery.body is None else dict(enumerate(_told_again(app, delivery, delivery.body)))
    answers, news = [], []
    for position in sorted({*before, *told}):
        came = before.get(position, replace(_UNTOLD, position=position))
        became = await _again(app, came.event_uid, told.get(position))
        answers.append(became)
        news.append(_replayed(came, told.get(position), became))
    settled = replace(delivery, outcome=_of_all(news), problem=None, events=tuple(news))
    async with app.store.write() as tx:
        tx.settle_delivery(_without_needless_body(settled), replayed_by=by)
    problems = [became for became in answers if isinstance(became, Problem)]
    if len(problems) == len(answers):
        raise Refused(problems[0])
    return Accepted(events=[AcceptedEvent.of(became) for became in answers if isinstance(became, Receipt)])


def _signed(app: App, source: str, body: bytes, headers: Headers) -> Signed:
    """The delivery, if its signature is right. Raises SignatureRefused, and what is wrong with our settings."""
    secrets, provider = app.settings.webhook_secrets(source), _provider(app, source)
    settings = app.settings
    options = Options(url=settings.webhook_setting(source, "URL"), header=settings.webhook_setting(source, "HEADER"))
    try:
        verified = verify(body, headers, secrets, datetime.now(UTC), scheme=provider.scheme(options))
    except SignatureRefused:
        app.store.telemetry.webhook_refused(source if secrets else "")
        raise
    record = Delivery(
        source=source,
        outcome=DeliveryOutcome.RECEIVED,
        size=len(body),
        digest=hashlib.sha256(body).hexdigest(),
        message_id=verified.message_id,
        signed_at=verified.timestamp,
    )
    once = {name: value for name, value in single_headers(headers).items() if name in provider.reads}
    return Signed(provider, body, once, verified, record)


def _provider(app: App, source: str) -> Provider:
    return provider_of(source, app.settings.webhook_setting(source, "SCHEME"))


def _known(app: App, source: str) -> str:
    return source if app.settings.webhook_secrets(source) else ""


async def _one(app: App, signed: Signed, event: Event) -> Accepted:
    def with_event(tx: Transaction, stored: Event, state: EventState) -> None:
        brought = Delivered(position=0, outcome=_STORED[state], event_id=stored.id, event_uid=stored.uid)
        tx.add_delivery(replace(signed.record, outcome=_STORED[state], events=(brought,)))

    try:
        receipt = await app.engine.receive(event, beside=with_event)
    except Exception as error:
        problem = problem_of(error)
        if outcome_of(problem) is not DeliveryOutcome.REFUSED:  # that one is written, with its event
            await _write_problem(app, signed, problem, event)
        raise
    if receipt.duplicate:
        again = _delivered(_UNTOLD, event, receipt)
        await _write(app, replace(signed.record, outcome=again.outcome, events=(again,)))
    return Accepted(events=[AcceptedEvent.of(receipt)])


async def _several(app: App, signed: Signed, told: Sequence[Event | BadWebhook]) -> Accepted:
    """Several events of one body. That it came is written before; what becomes of each, with its event."""
    record = signed.whole()

    def beside(position: int) -> Beside:
        def with_event(tx: Transaction, stored: Event, state: EventState) -> None:
            brought = Delivered(position=position, outcome=_STORED[state], event_id=stored.id, event_uid=stored.uid)
            tx.add_delivered(record.id, brought)

        return with_event

    try:
        async with app.store.write() as tx:
            tx.add_delivery(record)
    except StoreUnavailable:
        app.gatherer.add(record.source, DeliveryOutcome.FAILED, record.size)
        raise
    items = [problem_of(item) if isinstance(item, BadWebhook) else item for item in told]
    answers = await take_in_each(app, items, beside)
    news = [
        _delivered(replace(_UNTOLD, position=position), item, became)
        for position, (item, became) in enumerate(zip(told, answers, strict=True))
    ]
    settled = replace(record, outcome=_of_all(news), events=tuple(news))
    await _write(app, _without_needless_body(settled), settles=True)
    return answer(items, answers, together=True)


def _told_again(app: App, delivery: Delivery, body: bytes) -> Sequence[Event | BadWebhook]:
    verified = Verified(message_id=delivery.message_id, timestamp=delivery.signed_at)
    signed = Signed(_provider(app, delivery.source), body, delivery.headers or {}, verified, delivery)
    return signed.told().events


async def _again(app: App, uid: str | None, told: Event | BadWebhook | None) -> Receipt | Problem:
    """Take in the stored event of this uid, or the one that the body tells of."""
    try:
        if uid is not None:
            return await app.engine.receive_again(uid)
        if isinstance(told, Event):
            return await app.engine.receive(told)
    except StoreUnavailable:
        raise
    except Exception as error:  # noqa: BLE001 - each event answers for itself, and a fault of ours is logged
        return logged_problem(error)
    return Problem(type=ProblemType.BAD_EVENT) if told is None else problem_of(told)


def _delivered(came: Delivered, told: Event | BadWebhook | None, became: Receipt | Problem) -> Delivered:
    """The event of a delivery with what became of it."""
    if isinstance(became, Receipt):
        outcome = DeliveryOutcome.DUPLICATE if became.duplicate else DeliveryOutcome.ACCEPTED
        return Delivered(position=came.position, outcome=outcome, event_id=became.event.id, event_uid=became.event.uid)
    return Delivered(
        position=came.position,
        outcome=outcome_of(became),
        event_id=told.id if isinstance(told, Event) else came.event_id,
        event_uid=became.extensions.get("uid", came.event_uid),
        problem=became.document(),
    )


def _replayed(came: Delivered, told: Event | BadWebhook | None, became: Receipt | Problem) -> Delivered:
    """The same after a replay: what is stored with its runs stays so, and a trouble of ours says nothing new of it."""
    said_nothing = isinstance(became, Problem) and outcome_of(became) in GATHERED
    if came.outcome in _TAKEN or (said_nothing and came.outcome is not DeliveryOutcome.RECEIVED):
        return came
    return _delivered(came, told, became)


def _of_all(events: Sequence[Delivered]) -> DeliveryOutcome:
    """What became of a delivery of several events: trouble of ours first, for then its sender comes again."""
    outcomes = [event.outcome for event in events]
    trouble = [outcome for outcome in outcomes if outcome in GATHERED]
    return (trouble or [outcome for outcome in _TAKEN if outcome in outcomes] or outcomes)[0]


def _without_needless_body(delivery: Delivery) -> Delivery:
    """The delivery without its body, if stored events hold all that it says."""
    stored = all(event.event_uid is not None for event in delivery.events)
    return replace(delivery, body=None, headers=None) if stored else delivery


async def _write_problem(app: App, signed: Signed, problem: Problem, event: Event | None = None) -> None:
    """Put one that is not accepted into the log, with its body; or count it, when the trouble is ours."""
    outcome = outcome_of(problem)
    if outcome in GATHERED:
        app.gatherer.add(signed.record.source, outcome, signed.record.size)
        return
    events = () if event is None else (_delivered(_UNTOLD, event, problem),)
    told = problem.document() if event is None else None
    await _write(app, signed.whole(outcome=outcome, problem=told, events=events))


async def _write(app: App, delivery: Delivery, *, settles: bool = False) -> None:
    """Nothing depends on it: who delivered is answered as it is, whether the log says so or not."""
    try:
        async with app.store.write() as tx:
            if settles:
                tx.settle_delivery(delivery)
            else:
                tx.add_delivery(delivery)
    except StoreUnavailable as error:
        log.warning("a delivery from %s (%s) is not in the log: %s", delivery.source, delivery.outcome, error)
