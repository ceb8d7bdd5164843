"""Roles: a review that asks for one is decided by somebody who has it, and who did not ask for the call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from langgraph.types import interrupt
from tests.outside import World, a_world, chain, ended, job, pay, says, the_review

from eventwright.app.simulate import NothingToAnswer, Simulation, simulate
from eventwright.graphs.runner import Runner
from eventwright.graphs.workflow import On, Workflow, Workflows
from eventwright.guardrails.policy import Policy, review
from eventwright.guardrails.rules import Ask, Rule
from eventwright.queue.engine import Engine
from eventwright.runs.errors import MayNotDecide
from eventwright.runs.event import new_id
from eventwright.runs.records import ReviewState
from eventwright.runs.roles import BadRoles, Roles
from eventwright.runs.states import Outcome, RunState

STAFF = {"manager": ["mona", "Max@example.org", "cleo"], "director": ["cleo", "dana"]}


class Office(World):
    """A world in which some people have roles."""

    people: Roles = Roles.of(STAFF)

    def process(self, *workflows: Workflow, name: str = "") -> Engine:
        runner = Runner(self.store, self.resources)
        worker = name or new_id("worker")
        return Engine(self.store, Workflows(workflows), runner, worker=worker, roles=self.people)


@pytest.fixture
async def office(database_url: str) -> AsyncIterator[Office]:
    async with a_world(database_url) as world:
        yield Office(world.store, world.clock, world.provider, None)


def by_amount(call: Any) -> Ask | None:
    if call.amount > 100:
        return Ask(f"{call.amount} is above 100", role="director")
    return Ask(f"{call.amount} is above 10", role="manager") if call.amount > 10 else None


async def pays(state: Any) -> dict[str, Any]:
    return {"log": [await pay(Decimal(state["log"][0] if state.get("log") else 50))]}


def paying(rule: Any = by_amount, **how: Any) -> Workflow:
    policy = Policy(tools=[pay], approve_when=Rule("tiers", rule, version="7"), approval=review("Pay?", **how))
    trigger = On("job", trusted=True, requester=lambda event: event.data.get("by"))
    return job(chain(node=pays), {"node": policy}, triggers=[trigger])


async def refused(office: Office, run: Simulation, by: str, kind: str = "approve", **more: Any) -> str:
    asked = await the_review(run)
    with pytest.raises(MayNotDecide) as error:
        await office.engine.decide(asked.id, says(kind, by=by, **more))
    assert (await office.store.review(asked.id)).state is ReviewState.OPEN
    return str(error.value)


async def decided(office: Office, run: Simulation, by: str, kind: str = "approve", **more: Any) -> tuple[Any, Any]:
    await office.engine.decide((await the_review(run)).id, says(kind, by=by, **more))
    return ended(await run.go_on())


@pytest.mark.parametrize("kind", ["approve", "reject", "edit"])
async def test_without_the_role_nobody_decides_and_is_told_who_may(office: Office, kind: str) -> None:
    run = await office.start(paying(), {"log": [50]})
    more = {"arguments": {"amount": "5", "to": "ann"}} if kind == "edit" else {}
    told = await refused(office, run, "eve", kind, **more)
    assert "the role manager" in told
    assert "mona, Max@example.org, cleo" in told
    assert ended(await run.go_on()) == (RunState.PENDING_APPROVAL, None)
    assert office.provider.calls == []


@pytest.mark.parametrize("by", ["mona", " MONA", "max@EXAMPLE.org"])
async def test_who_has_the_role_decides_under_any_spelling(office: Office, by: str) -> None:
    run = await office.start(paying(), {"log": [50]})
    assert await decided(office, run, by) == (RunState.COMPLETED, Outcome.APPROVED)
    assert office.provider.done == [("pay", "50 ann")]


async def test_the_rule_says_which_role_and_another_role_is_none(office: Office) -> None:
    run = await office.start(paying(), {"log": [500]})
    assert "cleo, dana" in await refused(office, run, "mona")
    assert await decided(office, run, "dana") == (RunState.COMPLETED, Outcome.APPROVED)


async def test_a_rule_that_declares_its_roles_may_ask_for_no_other(office: Office) -> None:
    def tiers(*roles: str) -> Workflow:
        rule = Rule("tiers", by_amount, version="7", roles=roles)
        return job(chain(node=pays), {"node": Policy(tools=[pay], approve_when=rule)}, triggers=[On("job")])

    run = await office.start(tiers("manager", "director"), {"log": [500]})
    assert (await the_review(run)).roles == ("director",)
    run = await office.start(tiers("manager"), {"log": [500]})
    assert (await run.run()).state is RunState.FAILED
    assert "declares manager" in str((await run.run()).error)
    assert office.provider.calls == []


async def test_below_every_limit_nobody_is_asked(office: Office) -> None:
    run = await office.start(paying(), {"log": [10]})
    assert ended(await run.run()) == (RunState.COMPLETED, Outcome.AUTO)


async def test_who_asked_for_the_call_does_not_approve_it_in_any_role(office: Office) -> None:
    run = await office.start(paying(), {"log": [50], "by": "Mona"})
    told = await refused(office, run, "mona")
    assert "who asked for this call" in told
    assert "those who may: Max@example.org, cleo" in told
    assert await decided(office, run, "cleo") == (RunState.COMPLETED, Outcome.APPROVED)


async def test_an_edit_within_the_editors_role_counts_as_approved(office: Office) -> None:
    run = await office.start(paying(), {"log": [50]})
    edit = {"arguments": {"amount": "80", "to": "ann"}}
    assert await decided(office, run, "mona", "edit", **edit) == (RunState.COMPLETED, Outcome.EDITED)
    assert office.provider.done == [("pay", "80 ann")]


async def test_an_edit_beyond_the_editors_role_asks_the_other_role(office: Office) -> None:
    run = await office.start(paying(), {"log": [50]})
    edit = {"arguments": {"amount": "800", "to": "ann"}}
    assert await decided(office, run, "cleo", "edit", **edit) == (RunState.PENDING_APPROVAL, None)
    assert office.provider.calls == []
    asked = await the_review(run)
    assert (asked.roles, asked.arguments) == (("director",), {"amount": "800", "to": "ann"})
    assert "changed it" in await refused(office, run, "cleo")
    assert "the role director" in await refused(office, run, "mona")
    assert await decided(office, run, "dana") == (RunState.COMPLETED, Outcome.EDITED)
    assert office.provider.done == [("pay", "800 ann")]


async def test_the_policy_s_roles_and_the_rule_s_are_both_needed(office: Office) -> None:
    run = await office.start(paying(roles=["manager"]), {"log": [500]})
    for by in ("mona", "dana"):
        assert "the role manager and the role director" in await refused(office, run, by)
    assert await decided(office, run, "cleo") == (RunState.COMPLETED, Outcome.APPROVED)


async def test_of_several_people_each_has_the_role(office: Office) -> None:
    run = await office.start(paying(lambda _: Ask("always", people=2, role="director")), {"log": [1]})
    first, second = await run.reviews()
    await office.engine.decide(first.id, says("approve", by="cleo"))
    for by in ("mona", "cleo"):
        with pytest.raises(MayNotDecide):
            await office.engine.decide(second.id, says("approve", by=by))
    await office.engine.decide(second.id, says("approve", by="dana"))
    assert ended(await run.go_on()) == (RunState.COMPLETED, Outcome.APPROVED)


async def test_the_role_is_frozen_in_the_review_with_its_rule(office: Office) -> None:
    run = await office.start(paying(), {"log": [50]})
    lenient = paying(lambda _: Ask("anybody", role="intern"))
    office.deploy(lenient)
    run = office.take(run.run_id)
    asked = await the_review(run)
    assert asked.rule is not None
    assert (asked.rule["rule"], asked.rule["version"], asked.rule["roles"]) == ("tiers", "7", ["manager"])
    assert "the role manager" in await refused(office, run, "ian")
    assert await decided(office, run, "mona") == (RunState.COMPLETED, Outcome.APPROVED)


async def test_who_lost_the_role_since_does_not_decide_any_more(office: Office) -> None:
    workflow = paying()
    run = await office.start(workflow, {"log": [50]})
    office.people = Roles.of({"manager": ["cleo"]})
    office.deploy(workflow)
    run = office.take(run.run_id)
    assert "cleo" in await refused(office, run, "mona")


async def test_a_role_that_nobody_has_says_where_it_is_given(office: Office) -> None:
    run = await office.start(paying(lambda _: Ask("always", role="emperor")), {"log": [1]})
    assert "EVENTWRIGHT_ROLES" in await refused(office, run, "cleo")


async def test_a_deadline_has_no_role_and_rejects(office: Office) -> None:
    with pytest.raises(ValueError, match="a deadline has no role"):
        review("Pay?", roles=["manager"], deadline=timedelta(days=1), default="approve")
    run = await office.start(paying(deadline=timedelta(days=1), default="approve"), {"log": [50]})
    await run.pass_time(timedelta(days=2))
    assert ended(await run.run()) == (RunState.COMPLETED, Outcome.REJECTED)
    assert office.provider.calls == []


async def test_an_authors_own_question_may_ask_for_a_role(office: Office) -> None:
    async def asks(state: Any) -> dict[str, Any]:
        return {"log": [interrupt({"question": "Shall we?", "roles": ["director"]})]}

    run = await office.start(job(chain(node=asks)), {"log": [1]})
    assert "cleo, dana" in await refused(office, run, "mona")
    assert await decided(office, run, "dana") == (RunState.COMPLETED, Outcome.APPROVED)
    assert (await run.values())["log"] == [1, True]


async def test_a_simulation_is_told_who_has_which_role(office: Office) -> None:
    resources = [office.provider]
    async with simulate(paying(), {"log": [50]}, resources=resources, roles={"manager": ["mona"]}) as run:
        with pytest.raises(MayNotDecide, match="mona"):
            await run.approve()
        assert (await run.approve(by="mona")).outcome is Outcome.APPROVED
        with pytest.raises(NothingToAnswer):
            await run.approve(by="mona")


class TestWritingRolesDown:
    def test_names_stand_behind_their_role(self) -> None:
        roles = Roles.parse(" manager = ann , local:bo;director=cleo;manager=cleo;")
        assert roles == Roles({"manager": ("ann", "local:bo", "cleo"), "director": ("cleo",)})
        assert roles.holders(["manager", "director"]) == ["cleo"]
        assert Roles.parse("") == Roles()

    @pytest.mark.parametrize("written", ["manager", "manager=", "=ann", "Sales Manager=ann", "manager=,", "a;b=c"])
    def test_what_gives_nobody_a_role_is_refused(self, written: str) -> None:
        with pytest.raises(BadRoles, match="sales-manager=ann"):
            Roles.parse(written)

    def test_a_rule_and_a_policy_name_roles_that_can_be(self) -> None:
        with pytest.raises(BadRoles, match="no role"):
            Ask("because", role="The Boss")
        with pytest.raises(BadRoles, match="no role"):
            review(roles=["the boss"])
        with pytest.raises(BadRoles, match="no role"):
            Rule("because", by_amount, roles=("the boss",))
        assert replace(review(roles=["a", "b", "a"])).roles == ("a", "b")
