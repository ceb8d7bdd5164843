"""A workflow that people start with a form, and a browser without a window."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal

import httpx
from lxml import html
from pydantic import BaseModel, ConfigDict, Field, model_validator
from tests.outside import chain

from eventwright.app.composition import App
from eventwright.app.web.api import create_api
from eventwright.graphs.forms import Form
from eventwright.graphs.workflow import On, Workflow
from eventwright.runs.event import Event

PATH = "/forms/quotes/quote.wanted"


class Size(StrEnum):
    SMALL = "small"
    VERY_BIG = "very_big"


class Wanted(BaseModel):
    """What a customer wants a quote for."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=2, max_length=80)
    email: str = Field(pattern=r"^[^@\s]+@[^@\s]+$", max_length=254)
    size: Size
    seats: int = Field(5, ge=1, lt=1000)
    budget: Decimal | None = Field(None, gt=0, decimal_places=2, description="In euros, for a year.")
    start: date | None = None
    billed: Literal["monthly", "yearly"] | None = None
    newsletter: bool = False
    message: str | None = Field(None, max_length=5000)

    @model_validator(mode="after")
    def _big_ones_have_seats(self) -> Wanted:
        if self.size is Size.VERY_BIG and self.seats < 50:
            raise ValueError("very big ones begin with 50 seats")
        return self


FORM = Form(
    title="Ask for a <quote>",
    intro="We answer within two days.",
    fields={"seats": "How many seats?", "newsletter": "Send me news"},
    thanks="Thank you, we will write to you.",
)
GOOD = {
    "name": "Zoë Maß",
    "email": "zoe@example.org",
    "size": "small",
    "seats": "7",
    "budget": "12.50",
    "newsletter": "true",
}


async def look(state: Any) -> dict[str, Any]:
    return {}


def quotes(**more: Any) -> Workflow:
    triggers = [On("quote.wanted", payload={"1": Wanted}, **{"form": FORM, **more}), On("quote.counted")]
    return Workflow("quotes", version="1", graph=chain(look=look), triggers=triggers)


def browser(app: App) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(create_api(app), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers={"accept": "text/html"})


def page(answer: httpx.Response) -> Any:
    return html.fromstring(answer.content.decode())


def value(answer: httpx.Response, name: str) -> str | None:
    [field] = page(answer).xpath(f"//*[@name='{name}']")
    written: str | None = field.value
    return written


def summary(answer: httpx.Response) -> list[str]:
    return [item.text_content() for item in page(answer).xpath("//*[@role='alert']//li")]


async def events(app: App) -> list[Event]:
    return [stored.event for stored in reversed(await app.store.events())]
