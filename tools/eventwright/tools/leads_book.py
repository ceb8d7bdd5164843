"""The book of leads: who has asked us something, written down once. What every CRM that keeps it has to do.

`LeadsFile` keeps it in a SQLite file, `HubSpot` in HubSpot; the tools below work with whichever this process was given.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from eventwright.tools import linkage
from eventwright.tools.contract import Call, Role, tool
from eventwright.tools.providers import Providers

#: How many contacts one lead is compared with at most.
MOST_CANDIDATES = 500
#: Days for which a lead counts among those that its owner has to do with.
LOAD_DAYS = 30

Text = Annotated[str, Field(max_length=200)]
Id = Annotated[str, Field(min_length=1, max_length=64)]


class Details(BaseModel):
    """What is known of a person. What is empty is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    given_name: Text = ""
    surname: Text = ""
    email: Annotated[str, Field(max_length=254)] = ""
    phone: Annotated[str, Field(max_length=40)] = ""
    company: Text = ""
    street_number: Annotated[str, Field(max_length=20)] = ""
    address_1: Text = ""
    address_2: Text = ""
    suburb: Text = ""
    postcode: Annotated[str, Field(max_length=20)] = ""
    state: Annotated[str, Field(max_length=60)] = ""
    #: `1972-10-09`
    date_of_birth: Annotated[str, Field(max_length=10)] = ""

    @property
    def name(self) -> str:
        """Both names, as far as they are known."""
        return " ".join(filter(None, (self.given_name, self.surname)))

    def person(self, id: str) -> linkage.Person:
        """The same, for a comparison."""
        return linkage.Person(id=id, **{name: getattr(self, name) for name in Details.model_fields})


class Lead(Details):
    """What one form said: the person, and what they wanted."""

    message: Annotated[str, Field(max_length=5000)] = ""
    #: Whether we may write to them with offers.
    consent: bool = False


class Contact(Details):
    """A person in the book: what was filled in first stays, what was empty is filled by later forms."""

    id: str
    #: The address of the colleague who has this lead; empty as long as nobody has.
    owner: str = ""
    #: What the score says: A, B or C; empty as long as there is none.
    grade: str = ""


class Match(BaseModel):
    """A contact who is, or may be, the person of a lead."""

    model_config = ConfigDict(frozen=True)

    contact: Contact
    #: The probability, 0 to 1.
    score: float
    verdict: linkage.Certainty
    reasons: tuple[str, ...]


class Found(BaseModel):
    """What the book has that looks like a lead."""

    model_config = ConfigDict(frozen=True)

    #: The surest first.
    matches: list[Match]
    #: The ids of all contacts that were compared with it.
    compared: list[str]


class Qualification(BaseModel):
    """What is thought of a lead, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    points: int
    grade: Annotated[str, Field(pattern=r"^[ABC]$")]
    reasons: list[Text] = Field(max_length=30)
    #: What the enrichment provider knows of the company; None if it was not asked, or did not answer.
    company: dict[str, Any] | None = None


class LeadsBook(ABC):
    """Six verbs. Each may be repeated with its key, and has happened once.

    All raise NotDone (nothing was changed, it may be tried again), Permanent (it was refused and would be again) and,
    where they write, ToolError (whether it happened is unknown; a repeat with the same key finds out).
    """

    #: The system outside, for what the process knows of its health.
    host = "the book of leads"

    @abstractmethod
    async def contact(self, id: str) -> Contact | None:
        """The contact with this id."""

    @abstractmethod
    async def candidates(self, details: Details) -> list[Contact]:
        """The contacts who are worth a comparison with this person, `MOST_CANDIDATES` at most."""

    @abstractmethod
    async def add(self, lead: Lead, *, knowing: Sequence[str], idempotency_key: str) -> Contact | None:
        """A new contact; None, and nothing is added, if the book has somebody who is worth a comparison and is none of
        those that the caller knows. Who knows `MOST_CANDIDATES` cannot know all, and is not held up."""

    @abstractmethod
    async def amend(self, id: str, lead: Lead, *, idempotency_key: str) -> Contact:
        """Write one more form of a contact down; it fills what was empty. Raises Permanent if there is no such one."""

    @abstractmethod
    async def qualify(self, id: str, qualification: Qualification) -> Contact:
        """Write down what is thought of the lead. Raises Permanent if there is no such contact."""

    @abstractmethod
    async def assign(self, id: str, among: Sequence[str]) -> Contact:
        """Give the lead to the one of these who has had fewest in the last `LOAD_DAYS` days, the first of several; one
        that has an owner keeps it. Raises Permanent if there is no such contact."""


@tool(trusted=True, sensitive=True)
async def find_matches(lead: Lead, *, call: Call) -> Found:
    """Find who in the book is, or may be, the person of this lead, the surest first."""
    async with _book(call) as book:
        contacts = {contact.id: contact for contact in await book.candidates(lead)}
    people = [contact.person(contact.id) for contact in contacts.values()]
    # In a thread: the first comparison of a process loads the library, which takes seconds.
    found = await asyncio.to_thread(linkage.match, lead.person(""), people)
    matches = [
        Match(contact=contacts[one.second], score=one.score, verdict=one.verdict, reasons=one.reasons) for one in found
    ]
    return Found(matches=matches, compared=list(contacts))


@tool(trusted=True, sensitive=True)
async def find_by_email(email: Annotated[str, Field(max_length=254)], *, call: Call) -> Contact | None:
    """Look up the person in the book who has this address, in whatever case it is written."""
    async with _book(call) as book:
        found = await book.candidates(Details(email=email.strip()))
    return next((one for one in found if one.email.casefold() == email.strip().casefold()), None)


@tool(writes="keyed", trusted=True, sensitive=True)
async def add(
    lead: Annotated[Lead, Role.DESTINATION],
    knowing: Annotated[list[Id], Field(max_length=MOST_CANDIDATES), Role.DESTINATION],
    *,
    call: Call,
) -> Contact | None:
    """Write a new person into the book, unless a look-alike has come who is none of those already known of."""
    async with _book(call) as book:
        return await book.add(lead, knowing=knowing, idempotency_key=call.idempotency_key)


@tool(writes="keyed", trusted=True, sensitive=True)
async def amend(
    contact_id: Annotated[Id, Role.DESTINATION], lead: Annotated[Lead, Role.DESTINATION], *, call: Call
) -> Contact:
    """Write one more form of a known person into the book."""
    async with _book(call) as book:
        return await book.amend(contact_id, lead, idempotency_key=call.idempotency_key)


@tool(writes="keyed", trusted=True, sensitive=True)
async def qualify(
    contact_id: Annotated[Id, Role.DESTINATION],
    qualification: Annotated[Qualification, Role.DESTINATION],
    *,
    call: Call,
) -> Contact:
    """Write down what is thought of a lead, and why."""
    async with _book(call) as book:
        return await book.qualify(contact_id, qualification)


@tool(writes="keyed", trusted=True, sensitive=True)
async def assign(
    contact_id: Annotated[Id, Role.DESTINATION],
    among: Annotated[list[Annotated[str, Field(max_length=254)]], Field(min_length=1, max_length=50), Role.DESTINATION],
    *,
    call: Call,
) -> Contact:
    """Give a lead to the colleague who has fewest; one that has an owner keeps it."""
    async with _book(call) as book:
        return await book.assign(contact_id, among)


@asynccontextmanager
async def _book(call: Call) -> AsyncIterator[LeadsBook]:
    """Whichever the process was given. While it is down, it is not asked."""
    book = call.use(LeadsBook)  # type: ignore[type-abstract]  # one of its kinds
    async with Providers.of(call.resources).asked(book.host):
        yield book
