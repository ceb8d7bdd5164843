"""The runner: an ordinary graph runs behind its policies, and stays what it was."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda
from langgraph.types import interrupt
from tests.outside import (
    World,
    chain,
    job,
    look,
    post,
    the_effect,
)

from eventwright.graphs.workflow import BadWorkflow
from eventwright.guardrails.policy import Policy
from eventwright.guardrails.rules import always
from eventwright.guardrails.verdicts import Rejected
from eventwright.runs.states import Outcome, Reason, RunState


class Poster:
    async def __call__(self, state: Any) -> dict[str, Any]:
        return {"log": [await look("object")]}


async def with_greeting(greeting: str, state: Any) -> dict[str, Any]:
    return {"log": [await look(greeting)]}


async def looks(state: Any) -> dict[str, Any]:
    return {"log": [await look("async")]}


def looks_in_a_thread(state: Any) -> dict[str, Any]:
    return {"log": [look.from_thread("sync")]}


async def test_every_form_of_a_node_runs_behind_its_policy(world: World) -> None:
    forms = {
        "coroutine": looks,
        "thread": looks_in_a_thread,
        "partial": functools.partial(with_greeting, "partial"),
        "object": Poster(),
        "runnable": RunnableLambda(looks),
        "graph": chain(inner=looks).compile(),
    }
    workflow = job(chain(**forms), {name: Policy(tools=[look]) for name in forms})
    run = await world.start(workflow)
    assert (await run.values())["log"][:5] == ["look async", "look sync", "look partial", "look object", "look async"]
    assert [effect.node for effect in await run.effects()] == list(forms)

    stranger = await world.start(job(chain(**forms)))
    assert (await stranger.run()).reason is Reason.NOT_RETRYABLE


async def test_the_authors_graph_is_neither_changed_nor_compiled_and_draws_the_same(world: World) -> None:
    inner = chain(inner=looks).compile()
    graph = chain(one=looks, sub=inner)
    before = {name: (id(spec), id(spec.runnable)) for name, spec in graph.nodes.items()}
    inner_before = {name: (id(node), id(node.bound)) for name, node in inner.nodes.items()}
    drawing = chain(one=looks, sub=inner).compile().get_graph(xray=True).draw_mermaid()

    workflow = job(graph, {"one": Policy(tools=[look]), "sub": Policy(tools=[look], approve_when=always)})
    run = await world.start(workflow)

    assert (await run.run()).state is RunState.COMPLETED
    assert before == {name: (id(spec), id(spec.runnable)) for name, spec in graph.nodes.items()}
    assert inner_before == {name: (id(node), id(node.bound)) for name, node in inner.nodes.items()}
    assert not graph.compiled
    assert world.engine.runner.graph(workflow).get_graph(xray=True).draw_mermaid() == drawing


def test_a_compiled_graph_a_stray_policy_and_a_timeout_on_a_synchronous_node_are_refused() -> None:
    graph = chain(thread=looks_in_a_thread)
    with pytest.raises(BadWorkflow, match="the StateGraph itself"):
        job(graph.compile())  # type: ignore[arg-type]
    with pytest.raises(BadWorkflow, match="has a policy for 'nobody'"):
        job(graph, {"nobody": Policy()})
    with pytest.raises(BadWorkflow, match="cannot have a timeout"):
        job(graph, {"thread": Policy(timeout=1)})


async def posts(state: Any) -> dict[str, Any]:
    return {"log": [await post(f"letter {state.get('n', 0)}")]}


async def test_a_run_that_a_person_answered_in_is_approved_and_one_that_was_refused_is_rejected(world: World) -> None:
    async def node(state: Any) -> dict[str, Any]:
        try:
            return {"log": [interrupt("ok?")]}
        except Rejected:
            raise AssertionError from None

    approved, rejected = await world.start(job(chain(node=node))), await world.start(job(chain(node=node)))
    assert (await approved.approve()).outcome is Outcome.APPROVED
    assert (await rejected.reject()).outcome is Outcome.REJECTED
    assert (await rejected.values())["log"] == [False]


async def test_the_ledger_names_node_visit_and_tool(world: World) -> None:
    run = await world.start(job(chain(node=posts), {"node": Policy(tools=[post])}))
    effect = the_effect(await run.effects(), "outside.post")
    assert (effect.node, effect.visit, effect.ordinal, effect.attempt) == ("node", 1, "0", 1)
