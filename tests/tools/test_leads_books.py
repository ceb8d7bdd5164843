"""What every book of leads has to do, proven on the embedded one and on HubSpot alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.tools.vendors import HubSpotAccount, on_http

from eventwright.tools.contract import Permanent
from eventwright.tools.hubspot import HubSpot
from eventwright.tools.leads_book import Lead, LeadsBook, Qualification
from eventwright.tools.leads_file import LeadsFile

OWNERS = ["ana@sales.example.com", "ben@sales.example.com"]
LENA = Lead(given_name="Lena", surname="Harrington", email="lena@initech.example.com", postcode="2000", consent=True)
OTTO = Lead(given_name="Otto", surname="Purdon", phone="+61 2 5550 9999", message="Call me.")


@pytest.fixture(params=["file", "hubspot"])
async def book(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LeadsBook]:
    if request.param == "file":
        async with LeadsFile.open(tmp_path / "leads.db") as file:
            yield file
        return
    account = HubSpotAccount(*OWNERS)
    async with (
        on_http(account.answer) as port,
        HubSpot.open("pat-test-0001", url=f"http://127.0.0.1:{port}") as hubspot,
    ):
        yield hubspot


async def added(book: LeadsBook, lead: Lead = LENA, key: str = "key-1") -> str:
    contact = await book.add(lead, knowing=[], idempotency_key=key)
    assert contact is not None
    return contact.id


async def test_nobody_is_found_in_an_empty_book(book: LeadsBook) -> None:
    assert await book.candidates(LENA) == []
    assert await book.contact("4711") is None


async def test_a_contact_that_is_not_there_is_refused_for_good(book: LeadsBook) -> None:
    with pytest.raises(Permanent, match="'4711'"):
        await book.amend("4711", LENA, idempotency_key="key")
    with pytest.raises(Permanent, match="'4711'"):
        await book.qualify("4711", Qualification(points=1, grade="C", reasons=[]))
    with pytest.raises(Permanent, match="'4711'"):
        await book.assign("4711", OWNERS)


async def test_the_same_key_again_is_the_same_contact(book: LeadsBook) -> None:
    first = await book.add(LENA, knowing=[], idempotency_key="key-1")
    assert await book.add(LENA, knowing=[], idempotency_key="key-1") == first
    assert [one.id for one in await book.candidates(LENA)] == [first and first.id]


async def test_who_does_not_know_of_a_look_alike_adds_nobody(book: LeadsBook) -> None:
    known = await added(book)
    twice = LENA.model_copy(update={"given_name": "Lena M."})
    assert await book.add(twice, knowing=[], idempotency_key="key-2") is None
    assert [one.id for one in await book.candidates(LENA)] == [known]


async def test_who_knows_the_look_alike_may_add_somebody_beside_it(book: LeadsBook) -> None:
    known = await added(book)
    sister = LENA.model_copy(update={"email": "martha@initech.example.com", "given_name": "Lena"})
    contact = await book.add(sister, knowing=[known], idempotency_key="key-2")
    assert contact is not None
    assert contact.id != known
    assert {one.id for one in await book.candidates(sister)} == {known, contact.id}


async def test_people_who_add_one_person_at_the_same_moment_make_one_contact(book: LeadsBook) -> None:
    answers = await asyncio.gather(*(book.add(LENA, knowing=[], idempotency_key=f"key-{n}") for n in range(8)))
    assert len([one for one in answers if one is not None]) == 1
    assert len(await book.candidates(LENA)) == 1


async def test_a_further_form_fills_what_was_empty_and_changes_nothing_else(book: LeadsBook) -> None:
    id = await added(book)
    more = Lead(given_name="Helena", surname="Harrington", phone="+61 2 5550 1234", company="Initech")
    for _ in range(2):
        contact = await book.amend(id, more, idempotency_key="key-2")
        assert (contact.given_name, contact.phone, contact.company) == ("Lena", "+61 2 5550 1234", "Initech")
        assert contact.email == LENA.email
    assert await book.contact(id) == contact


async def test_a_contact_is_found_by_mail_by_telephone_and_by_name_and_place(book: LeadsBook) -> None:
    lena, otto = await added(book), await added(book, OTTO, "key-2")
    assert [one.id for one in await book.candidates(Lead(email="LENA@initech.example.com"))] == [lena]
    assert [one.id for one in await book.candidates(Lead(phone=OTTO.phone))] == [otto]
    assert [one.id for one in await book.candidates(Lead(surname="Harrington", postcode="2000"))] == [lena]


async def test_what_is_thought_of_a_lead_stands_at_the_contact(book: LeadsBook) -> None:
    id = await added(book)
    worth = Qualification(points=65, grade="A", reasons=["wants: buying: +40"], company={"name": "Initech"})
    assert (await book.qualify(id, worth)).grade == "A"
    assert (await book.qualify(id, worth)).grade == "A"


async def test_leads_go_to_who_has_fewest_and_stay_with_their_owner(book: LeadsBook) -> None:
    first, second = await added(book), await added(book, OTTO, "key-2")
    assert (await book.assign(first, OWNERS)).owner == OWNERS[0]
    assert (await book.assign(second, OWNERS)).owner == OWNERS[1]
    assert (await book.assign(first, OWNERS[1:])).owner == OWNERS[0]
