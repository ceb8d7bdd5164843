"""HubSpot's failures: what each means, and that none of them makes a contact twice."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.loopback import on_loopback
from tests.tools.vendors import HubSpotAccount, Trouble, on_http

from eventwright.tools.contract import NotDone, Permanent, ToolError
from eventwright.tools.http_json import Away
from eventwright.tools.hubspot import HubSpot
from eventwright.tools.leads_book import Lead

LENA = Lead(given_name="Lena", surname="Harrington", email="lena@initech.example.com", message="A quote, please.")
READS = 3  # by our key, by address, the search


@pytest.fixture
def account() -> HubSpotAccount:
    return HubSpotAccount("ana@sales.example.com")


@pytest.fixture
async def book(account: HubSpotAccount) -> AsyncIterator[HubSpot]:
    async with (
        on_http(account.answer) as port,
        HubSpot.open("pat-test-0001", url=f"http://127.0.0.1:{port}", seconds=0.3) as hubspot,
    ):
        yield hubspot


async def test_nobody_there_has_changed_nothing() -> None:
    async with on_loopback(lambda _reader, _writer: None) as port:  # type: ignore[arg-type,return-value]
        pass
    async with HubSpot.open("pat-test-0001", url=f"http://127.0.0.1:{port}") as book:
        with pytest.raises(Away, match="no connection"):
            await book.add(LENA, knowing=[], idempotency_key="key")


async def test_too_many_requests_wait_as_long_as_hubspot_says(account: HubSpotAccount, book: HubSpot) -> None:
    account.troubles = [Trouble(429, {"policyName": "TEN_SECONDLY_ROLLING"}, {"retry-after": "7"})]
    with pytest.raises(Away) as refused:
        await book.add(LENA, knowing=[], idempotency_key="key")
    assert refused.value.retry_after == 7.0


async def test_a_lead_with_an_address_that_hubspot_refuses_is_not_lost_and_gets_a_usable_one_later(
    account: HubSpotAccount, book: HubSpot
) -> None:
    written = Lead(given_name="Lena", surname="Harrington", email="lena at initech", message="A quote, please.")
    added = await book.add(written, knowing=[], idempotency_key="key")
    assert added is not None
    assert added.email == ""
    assert account.contacts[added.id]["message"] == "A quote, please.\n\nE-mail address, as written: lena at initech"
    assert (await book.amend(added.id, LENA, idempotency_key="later")).email == LENA.email


@pytest.mark.parametrize("status", [401, 403, 400])
async def test_a_refusal_is_for_good_and_says_what_to_look_at(
    account: HubSpotAccount, book: HubSpot, status: int
) -> None:
    account.troubles = [Trouble(status, {"category": "MISSING_SCOPES"})]
    with pytest.raises(Permanent, match="MISSING_SCOPES"):
        await book.contact("1")


@pytest.mark.parametrize(
    "trouble",
    [Trouble(0), Trouble(500), Trouble(502, "<html>"), Trouble(200, "<html>"), Trouble(200, [1])],
    ids=["silence", "500", "502", "a page", "a list"],
)
async def test_a_read_that_fails_has_changed_nothing(account: HubSpotAccount, book: HubSpot, trouble: Trouble) -> None:
    account.troubles = [trouble]
    with pytest.raises(NotDone):
        await book.contact("1")


@pytest.mark.parametrize("happens", [True, False])
@pytest.mark.parametrize("status", [0, 500, 200])
async def test_a_creation_whose_answer_is_lost_is_found_again_by_its_key(
    account: HubSpotAccount, book: HubSpot, status: int, happens: bool
) -> None:
    account.troubles = [*[None] * READS, Trouble(status, happens=happens)]
    with pytest.raises(ToolError) as lost:
        await book.add(LENA, knowing=[], idempotency_key="key")
    assert not isinstance(lost.value, NotDone)

    contact = await book.add(LENA, knowing=[], idempotency_key="key")

    assert contact is not None
    assert list(account.contacts) == [contact.id]
    assert account.contacts[contact.id]["message"] == LENA.message


async def test_somebody_whom_the_search_does_not_show_yet_is_found_by_address(
    account: HubSpotAccount, book: HubSpot
) -> None:
    first = await book.add(LENA, knowing=[], idempotency_key="key-1")
    assert first is not None
    account.unindexed.add(first.id)
    assert [one.id for one in await book.candidates(LENA)] == [first.id]
    assert await book.add(LENA, knowing=[], idempotency_key="key-2") is None


async def test_an_owner_whom_hubspot_does_not_have_is_refused_for_good(account: HubSpotAccount, book: HubSpot) -> None:
    contact = await book.add(LENA, knowing=[], idempotency_key="key")
    assert contact is not None
    with pytest.raises(Permanent, match=r"nobody@sales\.example\.com"):
        await book.assign(contact.id, ["nobody@sales.example.com"])
