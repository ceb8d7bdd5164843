"""What labels and roles let through, and what not: links, amounts, parts of arguments; and that labels stay few."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

from langgraph.graph import END
from tests.outside import Provider, World, chain, ended, job, look, the_review

from eventwright.graphs.workflow import On
from eventwright.guardrails.policy import Policy
from eventwright.guardrails.rules import one_of
from eventwright.runs.states import Outcome, RunState
from eventwright.tools.contract import Call, Role, tool

#: What the attacker has written where anybody may write.
PAGE = "mallory@evil.example"


@tool(name="outside.read_page")
async def read_page(page: str, *, call: Call) -> str:
    """Read a page that anybody may write."""
    await call.use(Provider).do("read_page", page, call)
    return PAGE


@tool(writes="plain", name="outside.write")
async def write(to: Annotated[str, Role.DESTINATION], text: Annotated[str, Role.CONTENT], *, call: Call) -> str:
    """Write to somebody."""
    return await call.use(Provider).do("write", f"{to} {text}", call)


def policies(**more: Policy) -> dict[str, Policy]:
    return {"reads": Policy(tools=[read_page, look]), "sends": Policy(tools=[write]), **more}


class TestLabelsAreKeptSmall:
    async def test_names_that_the_graph_does_not_have_are_not_kept(self, world: World) -> None:
        async def node(state: Any) -> dict[str, Any]:
            return {"log": [1]} | {f"made up {number}": number for number in range(1000)}

        data = {"log": ["a"]} | {f"strange {number}": number for number in range(1000)}
        run = await world.start(job(chain(node=node), triggers=[On("job")]), data)
        assert ended(await run.run()) == (RunState.COMPLETED, Outcome.AUTO)
        config = {"configurable": {"thread_id": (await run.run()).thread_id}}
        saved = [one async for one in world.engine.runner.saver.alist(config)]
        assert all(set(one.metadata["labels"]) <= {"log", "n"} for one in saved)  # type: ignore[typeddict-item]

    async def test_what_only_the_node_read_does_not_spread_further(self, world: World) -> None:
        """The other way round: a label on everything would ask people about everything, and they would stop reading."""

        async def reads(state: Any) -> dict[str, Any]:
            await read_page("news")
            return {"n": 1}

        async def writes(state: Any) -> dict[str, Any]:
            return {"log": [await write("ann", "hello")]}

        class OnlyLog(TypedDict):
            log: list[Any]

        graph = chain(reads=reads)
        graph.add_node("sends", writes, input_schema=OnlyLog)
        graph.add_edge("reads", "sends")
        graph.add_edge("sends", END)
        run = await world.start(job(graph, policies()))
        assert ended(await run.run()) == (RunState.COMPLETED, Outcome.AUTO)


class TestRoles:
    def test_the_strictest_role_inside_an_argument_counts(self) -> None:
        @tool(writes="plain")
        async def deliver(
            parcel: tuple[Annotated[str, Role.CONTENT], Annotated[str, Role.DESTINATION]],
            letters: dict[Annotated[str, Role.CONTENT], str],
            notes: list[Annotated[str, Role.CONTENT]] | None,
            either: Annotated[str, Role.CONTENT] | int,
            *,
            call: Call,
        ) -> None:
            """Deliver things."""

        assert deliver.roles == {
            "parcel": Role.DESTINATION,
            "letters": Role.DESTINATION,
            "notes": Role.CONTENT,
            "either": Role.DESTINATION,
        }

    async def test_the_name_of_a_member_that_leaves_is_read_for_links_too(self, world: World) -> None:
        @tool(writes="plain", name="outside.publish")
        async def publish(table: Annotated[dict[str, str], Role.CONTENT], *, call: Call) -> None:
            """Publish a table."""
            await call.use(Provider).do("publish", str(table), call)

        async def node(state: Any) -> dict[str, Any]:
            await publish({state["log"][0]: "click"})
            return {}

        run = await world.start(
            job(chain(node=node), {"node": Policy(tools=[publish])}, triggers=[On("job")]),
            {"log": ["https://evil.example/x"]},
        )
        assert "links to" in (await the_review(run)).evidence["reason"]

    async def test_an_amount_below_zero_is_not_bounded_by_a_limit_above(self, world: World) -> None:
        from decimal import Decimal

        from tests.outside import pay

        from eventwright.guardrails.rules import at_most

        async def node(state: Any) -> dict[str, Any]:
            return {"log": [await pay(Decimal(state["log"][0]))]}

        rules = {pay: {"to": one_of("ann"), "amount": at_most(100)}}
        workflow = job(chain(node=node), {"node": Policy(tools=[pay], rules=rules)}, triggers=[On("job")])
        run = await world.start(workflow, {"log": ["-1000"]})
        assert (await run.run()).state is RunState.FAILED
        assert world.provider.calls == []

    async def test_an_amount_below_zero_is_not_vouched_for_by_a_limit_above_which_people_are_asked(
        self, world: World
    ) -> None:
        from decimal import Decimal

        from tests.outside import pay

        from eventwright.guardrails.rules import above

        async def node(state: Any) -> dict[str, Any]:
            return {"log": [await pay(Decimal(state["log"][0]))]}

        policy = Policy(tools=[pay], rules={pay: {"to": one_of("ann")}}, approve_when=above("amount", 100))
        run = await world.start(job(chain(node=node), {"node": policy}, triggers=[On("job")]), {"log": ["-1000"]})
        assert (await the_review(run)).arguments == {"amount": "-1000", "to": "ann"}
        assert world.provider.calls == []
