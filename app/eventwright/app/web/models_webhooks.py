"""What the log of webhooks says over the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self

from pydantic import ConfigDict, Field

from eventwright.app.web import examples
from eventwright.app.web.models import Answer, example
from eventwright.runs import deliveries
from eventwright.runs.records import DeliveryOutcome


class DeliveredEvent(Answer):
    """One event of a delivery, and what became of it."""

    id: str | None = Field(description="the provider's")
    uid: str | None = Field(description="of the stored event, see `GET /v1/events/{uid}`; null while there is none")
    outcome: DeliveryOutcome
    problem: dict[str, Any] | None = Field(description="why it is not accepted")
    runs: list[str] = Field(description="the ids of the runs that the event started")


class Delivery(Answer):
    """Something that was posted to the door for webhooks."""

    model_config = ConfigDict(json_schema_extra=example(examples.DELIVERY))

    id: str
    source: str = Field(description="the name in the address; `unknown` for those that the settings do not know")
    outcome: DeliveryOutcome
    received_at: datetime
    last_at: datetime | None = Field(description="of those that are gathered, when the last one came")
    times: int = Field(description="how many there were: 1, but for those that are gathered")
    size: int = Field(description="bytes of the body; of those that are gathered, all together")
    digest: str | None = Field(description="SHA-256 of the body")
    message_id: str | None = Field(description="the provider's id of the delivery, where a header has it")
    signed_at: datetime | None = Field(description="when the provider says that it signed")
    problem: dict[str, Any] | None = Field(description="what its sender was told, where no event of it says so")
    events: list[DeliveredEvent]
    replayed_at: datetime | None
    replayed_by: str | None

    @classmethod
    def of(cls, delivery: deliveries.Delivery) -> Self:
        return cls(**_told(delivery))


class DeliveryPage(Answer):
    """Deliveries, newest first; `next` is the cursor of the next page."""

    model_config = ConfigDict(json_schema_extra=example({"items": [examples.DELIVERY], "next": None}))

    items: list[Delivery]
    next: str | None


class ShownDelivery(Delivery):
    """A delivery with its body, which is kept where no event holds what it says."""

    model_config = ConfigDict(json_schema_extra=example(examples.SHOWN_DELIVERY))

    headers: dict[str, str] | None = Field(description="those that are needed to read the body")
    body: str | None = Field(description="as text; what is no UTF-8 is replaced")

    @classmethod
    def of(cls, delivery: deliveries.Delivery) -> Self:
        body = None if delivery.body is None else delivery.body.decode(errors="replace")
        return cls(**_told(delivery) | {"headers": delivery.headers, "body": body})


def _told(delivery: deliveries.Delivery) -> dict[str, Any]:
    events = [
        DeliveredEvent(
            id=event.event_id,
            uid=event.event_uid,
            outcome=event.outcome,
            problem=event.problem,
            runs=list(event.run_ids),
        )
        for event in delivery.events
    ]
    return vars(delivery) | {"events": events}
