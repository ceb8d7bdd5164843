"""The leads workflow, its seven exceptions first, on both stores: real mail, and vendors that fail on the loopback."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.journeys.leads_world import Market, a_market, form, submitted
from tests.journeys.stores import ON_ONE_STORE
from tests.tools.vendors import Trouble

from eventwright.app.simulate import Simulation, simulator
from eventwright.graphs.check import check
from eventwright.graphs.leads import NOT_FOR_SALES, OWNERS, READING_WAITS, TERRITORIES, WHO_DECIDES, leads
from eventwright.queue.desk import UnfitDecision
from eventwright.queue.intake import EventRefused
from eventwright.runs.event import Event
from eventwright.runs.records import EffectState, ReviewKind
from eventwright.runs.states import Outcome, Reason, RunState
from eventwright.tools.crm import packaged_accounts

LENA = "lena@initech.example.com"


@pytest.fixture
async def market(tmp_path: Path) -> AsyncIterator[Market]:
    async with a_market(tmp_path) as market:
        yield market


@asynccontextmanager
async def run_of(market: Market, database_url: str, event: Event) -> AsyncIterator[Simulation]:
    """The run of one form, as far as it goes without a person."""
    async with simulator(leads, resources=market.clients, database_url=database_url) as (engine, clock):
        receipt = await engine.receive(event)
        run = Simulation(engine, receipt.runs[0].id, clock)
        await run.go_on()
        yield run


async def another(run: Simulation, **changed: Any) -> Simulation:
    """One more form comes, and goes as far as it goes."""
    receipt = await run.engine.receive(submitted(**changed))
    simulation = Simulation(run.engine, receipt.runs[0].id, run.clock)
    await simulation.go_on()
    return simulation


# -- missing data ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("email", ["", "lena at initech"])
async def test_a_lead_whom_nobody_can_reach_is_in_the_book_and_waits_for_a_person(
    market: Market, database_url: str, email: str
) -> None:
    async with run_of(market, database_url, submitted(email=email, phone="")) as run:
        [asked] = await run.reviews()
        assert (asked.kind, asked.node) == (ReviewKind.MISSING_DATA, "ask_reach")
        assert await market.contacts() == 1
        with pytest.raises(UnfitDecision):
            await run.respond({"email": "no address"})

        done = await run.respond({"email": "lena@example.org"})

        assert (done.state, done.outcome) == (RunState.COMPLETED, Outcome.APPROVED)
        contact = await market.book.contact((await run.values())["contact_id"])
        assert contact is not None
        assert contact.email == (email or "lena@example.org")
        assert len(market.smtp.messages) == 1


async def test_a_lead_whom_nobody_can_ever_reach_stays_in_the_book(market: Market, database_url: str) -> None:
    async with run_of(market, database_url, submitted(email="", phone="")) as run:
        assert (await run.reject()).outcome is Outcome.REJECTED
        assert await market.contacts() == 1
        assert market.smtp.messages == []


async def test_a_form_that_says_nobody_is_refused_and_kept(market: Market, database_url: str) -> None:
    async with simulator(leads, resources=market.clients, database_url=database_url) as (engine, _):
        with pytest.raises(EventRefused):
            await engine.receive(submitted(given_name="", surname="", email="", phone=""))
        assert await market.contacts() == 0


# -- low confidence ----------------------------------------------------------------------------------------------------


async def test_a_message_that_the_model_cannot_read_is_read_by_a_person(market: Market, database_url: str) -> None:
    async with run_of(market, database_url, submitted(message="the usual, as in spring")) as run:
        [asked] = await run.reviews()
        assert (asked.kind, asked.node) == (ReviewKind.LOW_CONFIDENCE, "read_message")
        assert await market.contacts() == 1

        done = await run.respond("buying")

        assert (done.state, done.outcome) == (RunState.COMPLETED, Outcome.EDITED)
        assert (await run.values())["intent"] == "buying"


# -- a tool that fails -------------------------------------------------------------------------------------------------


@ON_ONE_STORE
@pytest.mark.parametrize(
    "trouble",
    [Trouble(500), Trouble(200, "<html>"), Trouble(0), Trouble(401)],
    ids=["500", "garbage", "silence", "401"],
)
async def test_a_provider_that_does_not_answer_costs_points_and_no_lead(
    market: Market, database_url: str, trouble: Trouble
) -> None:
    market.enricher_says(trouble, 10)
    async with run_of(market, database_url, submitted()) as run:
        assert (await run.run()).state is RunState.COMPLETED
        worth = (await run.values())["qualification"]
        assert (worth["grade"], worth["points"], worth["company"]) == ("A", 65, None)
        [message] = market.smtp.messages
        assert "could not be looked up" in message.body
        # An answer that is for good is not asked for again.
        assert len(market.enricher.requests) == (1 if trouble.status == 401 else 3)


@ON_ONE_STORE
async def test_with_a_provider_that_fails_three_times_in_ten_every_lead_arrives(
    market: Market, database_url: str
) -> None:
    market.enricher.troubles = [Trouble(500) if number % 10 in (1, 4, 5) else None for number in range(60)]
    people = list(packaged_accounts())[:12]
    for person in people:
        domain = f"{person.id}.example.com"
        market.enricher.companies[domain] = {"name": person.suburb, "domain": domain, "employees": 40}
    async with run_of(market, database_url, submitted()) as run:
        for person in people:
            given_name, _, surname = person.name.rpartition(" ")
            one = await another(
                run,
                given_name=given_name,
                surname=surname,
                email=f"office.{surname.lower()}@{person.id}.example.com",
                phone="",
                company=person.suburb,
                postcode="",
            )
            assert (await one.run()).state is RunState.COMPLETED
        assert await market.contacts() == len(market.smtp.messages) == 1 + len(people)


async def test_a_book_that_is_away_delays_the_lead_and_writes_it_once(
    market: Market, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = market.book.execute, [3]

    async def execute(statement: str, parameters: Any = ()) -> Any:
        if statement.startswith("INSERT") and left[0]:
            left[0] -= 1
            await real(statement, parameters)
            raise ConnectionResetError("the answer was lost")
        return await real(statement, parameters)

    monkeypatch.setattr(market.book, "execute", execute)
    async with run_of(market, database_url, submitted()) as run:
        assert (await run.run()).outcome is Outcome.AUTO
        assert await market.contacts() == 1


# -- the same event, the same person -----------------------------------------------------------------------------------


async def test_a_form_that_is_delivered_five_times_is_one_run(market: Market, database_url: str) -> None:
    event = submitted()
    async with run_of(market, database_url, event) as run:
        for _ in range(4):
            receipt = await run.engine.receive(event)
            assert receipt.duplicate
            assert [one.id for one in receipt.runs] == [run.run_id]
        assert len(market.smtp.messages) == 1


async def test_a_second_form_of_a_person_whom_the_book_knows_is_added_to_the_first(
    market: Market, database_url: str
) -> None:
    async with run_of(market, database_url, submitted(phone="")) as run:
        again = await another(run, surname="Harington", company="", message="A demo please.")

        assert (await again.run()).outcome is Outcome.AUTO
        values = await again.values()
        assert values["contact_id"] == (await run.values())["contact_id"]
        assert "has asked before: +10" in values["qualification"]["reasons"]
        contact = await market.book.contact(values["contact_id"])
        assert contact is not None
        assert (contact.surname, contact.company, contact.phone) == ("Harrington", "Initech", "+61 2 5550 1234")
        assert len(await market.book.leads_of(contact.id)) == 2


# -- time --------------------------------------------------------------------------------------------------------------


async def test_an_unread_message_holds_no_lead_up_for_longer_than_the_business_wants(
    market: Market, database_url: str
) -> None:
    async with run_of(market, database_url, submitted(message="the usual, as in spring")) as run:
        [asked] = await run.reviews()
        assert asked.deadline is not None

        done = await run.pass_time(READING_WAITS)

        assert done.state is RunState.COMPLETED
        assert len(market.smtp.messages) == 1


# -- a person decides --------------------------------------------------------------------------------------------------


@ON_ONE_STORE
@pytest.mark.parametrize(("answer", "contacts"), [("which", 1), ("new", 2), ("none", 1)])
async def test_somebody_who_may_be_in_the_book_goes_before_a_person(
    market: Market, database_url: str, answer: str, contacts: int
) -> None:
    async with run_of(market, database_url, submitted()) as run:
        husband = await another(run, given_name="Otto", phone="")
        [asked] = await husband.reviews()
        assert (asked.kind, asked.node) == (ReviewKind.QUESTION, "ask_who")
        [maybe] = asked.arguments["may_be"]
        assert maybe["verdict"] == "doubtful"
        assert "given name differs" in maybe["reasons"]
        with pytest.raises(UnfitDecision):
            await husband.respond({"contact_id": "somebody-else"})

        if answer == "which":
            done = await husband.respond({"contact_id": maybe["contact"]["id"]})
        else:
            done = await (husband.approve() if answer == "new" else husband.reject())

        assert done.outcome is (Outcome.REJECTED if answer == "none" else Outcome.APPROVED)
        assert await market.contacts() == contacts


# -- half of it --------------------------------------------------------------------------------------------------------


@ON_ONE_STORE
@pytest.mark.parametrize("error", ["channel_not_found", "invalid_auth", "internal_error"])
async def test_a_slack_that_refuses_leaves_the_mail_and_a_run_that_says_it_is_partial(
    market: Market, database_url: str, error: str
) -> None:
    # What nobody knows is read back before it is posted again; that fails as well.
    market.workspace.troubles = [Trouble(200, {"ok": False, "error": error})] * 10
    async with run_of(market, database_url, submitted()) as run:
        done = await run.run()
        assert (done.state, done.outcome) == (RunState.COMPLETED, Outcome.PARTIAL)
        assert len(market.smtp.messages) == 1
        assert market.workspace.messages == []


async def test_a_message_to_slack_whose_answer_is_lost_is_not_posted_twice(market: Market, database_url: str) -> None:
    market.workspace.troubles = [Trouble(500, happens=True)]
    async with run_of(market, database_url, submitted()) as run:
        assert (await run.run()).outcome is Outcome.AUTO
        assert len(market.workspace.messages) == 1


async def test_a_mail_server_that_stays_down_leaves_a_dead_letter_that_a_replay_finishes(
    market: Market, database_url: str
) -> None:
    owner = OWNERS["east"][0]
    market.smtp.refusing[owner] = math.inf
    async with run_of(market, database_url, submitted()) as run:
        dead = await run.run()
        assert (dead.state, dead.reason) == (RunState.FAILED, Reason.ATTEMPTS)
        market.smtp.refusing.clear()

        await run.engine.replay(run.run_id, by="dana")
        done = await run.go_on()

        assert done.state is RunState.COMPLETED
        assert (await market.contacts(), len(market.workspace.messages), len(market.smtp.messages)) == (1, 1, 1)


# -- the plain case ----------------------------------------------------------------------------------------------------


async def test_a_new_lead_is_written_down_looked_up_scored_given_to_somebody_and_told(
    market: Market, database_url: str
) -> None:
    async with run_of(market, database_url, submitted()) as run:
        assert (await run.run()).outcome is Outcome.AUTO
        values = await run.values()
        assert values["qualification"]["points"] == 85
        assert "company of 250 people: +20" in values["qualification"]["reasons"]
        assert values["owner"] in OWNERS[TERRITORIES["nsw"]]
        [message] = market.smtp.messages
        assert (message.to, message.subject) == (values["owner"], "New lead (A): Lena Harrington")
        [posted] = market.workspace.messages
        assert "grade A (85 points)" in posted["text"]
        assert {effect.state for effect in await run.effects()} == {EffectState.DONE}


async def test_leads_of_a_territory_are_shared_out_by_load(market: Market, database_url: str) -> None:
    async with run_of(market, database_url, submitted()) as run:
        stranger = {"given_name": "Bo", "surname": "Purdon", "email": "bo@example.org", "phone": "", "postcode": "4000"}
        other = await another(run, state="qld", **stranger)
        owners = {(await one.values())["owner"] for one in (run, other)}
        assert owners == set(OWNERS["east"])


async def test_advertising_is_written_down_and_told_to_nobody(market: Market, database_url: str) -> None:
    async with run_of(market, database_url, submitted(message="We offer SEO services and backlinks.")) as run:
        assert (await run.values())["intent"] in NOT_FOR_SALES
        assert await market.contacts() == 1
        assert market.smtp.messages == market.workspace.messages == []


async def test_nobody_is_looked_up_who_did_not_agree_to_it(market: Market, database_url: str) -> None:
    async with run_of(market, database_url, submitted(consent=False)) as run:
        assert (await run.run()).outcome is Outcome.AUTO
        assert market.enricher.requests == []


async def test_what_a_stranger_writes_leads_nowhere_and_calls_nobody(market: Market, database_url: str) -> None:
    hostile = {"company": "<!channel> https://evil.example/pay", "given_name": "evil.example\nBcc: x"}
    hostile["surname"] = "pay@evil.example"
    async with run_of(market, database_url, submitted(**hostile)) as run:
        assert (await run.run()).state is RunState.COMPLETED
        told = [market.workspace.messages[0]["text"], market.smtp.messages[0].body, market.smtp.messages[0].subject]
        assert not any(word in text for text in told for word in ("evil.example", "<!", "://"))
        # The book has it as it was written.
        [lead] = await market.book.leads_of((await run.values())["contact_id"])
        assert lead.company == hostile["company"]


def test_each_question_of_the_workflow_has_somebody_who_answers_it() -> None:
    assert set(WHO_DECIDES) < set(leads.graph.nodes)
    assert set(TERRITORIES.values()) < set(OWNERS)
    assert form()["email"] == LENA


def test_the_page_about_the_workflow_shows_its_graph_and_who_decides_where() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "leads.md").read_text()
    assert leads.graph.compile().get_graph().draw_mermaid().strip() in page
    for node in leads.graph.nodes:
        assert f"`{node}`" in page
    for node, who in WHO_DECIDES.items():
        assert who in next(line for line in page.splitlines() if line.startswith(f"| `{node}` |"))


def test_the_checks_find_nothing_to_mend() -> None:
    assert check(leads) == []
