"""Eventwright's own workflows: `undo` takes back what a run did, `reconcile` reads back whether it was done at all.

They are runs like all others: durable, retried, on record, and in doubt where nobody knows. What they work through is
frozen into the event that starts them, which only the engine sends; the first call that fails ends the run, for what
was done last must be taken back first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypedDict, cast

from langgraph.graph import END, START, StateGraph

from eventwright.graphs.workflow import On, Workflow
from eventwright.guardrails.policy import Backoff, Policy
from eventwright.guardrails.request import validate
from eventwright.guardrails.rules import Rule
from eventwright.tools.contract import Call, Permanent, Tool, ToolClass, gate_for

UNDO, RECONCILE = "undo", "reconcile"
#: More attempts after the first, for each run.
RETRIES = 5

#: A tool by workflow, version and name.
Doors = Mapping[tuple[str, str, str], Tool]


class OneCall(TypedDict):
    """A call of another run, and what this run calls on account of it."""

    effect: str
    workflow: str
    version: str
    tool: str
    arguments: dict[str, Any]


class Calls(TypedDict, total=False):
    """The state of both workflows."""

    #: The run whose calls they are.
    run: str
    calls: list[OneCall]
    #: Keys of the effects that were seen to.
    done: list[str]


def own_workflows(workflows: Iterable[Workflow]) -> list[Workflow]:
    """The two workflows, for these: they may call exactly what the tools in their policies name, and nothing else."""
    tools = {
        (workflow.name, workflow.version, tool.name): tool
        for workflow in workflows
        for policy in workflow.policies.values()
        for tool in policy.tools
    }
    undos = {door: tool.undo.tool for door, tool in tools.items() if tool.undo is not None}
    readers = {door: reader_of(tool) for door, tool in tools.items() if tool.tool_class is ToolClass.VERIFIABLE}
    return [
        _workflow(UNDO, undos, "takes back what a run did, the last first"),
        _workflow(RECONCILE, readers, "reads back whether the writes of a run that are not known to have happened did"),
    ]


def event_type(workflow: str) -> str:
    """The type of the events that start one of them."""
    return f"eventwright.{workflow}"


def reader_of(tool: Tool) -> Tool:
    """A tool that reads back whether an earlier call of a verifiable tool happened, and what it returned."""

    async def read_back(
        effect: str, run: str, node: str, attempt: int, arguments: dict[str, Any], *, call: Call
    ) -> dict[str, Any]:
        original = Call(run_id=run, node=node, idempotency_key=effect, attempt=attempt, resources=call.resources)
        result = await tool.verify(validate(tool, arguments).validated, original)
        try:
            return {"happened": result is not None, "result": None if result is None else tool.dump(result)}
        except ValueError as error:
            raise Permanent(f"what {tool.name} reads back is not what it declares: {error}") from error

    read_back.__doc__ = f"Read back whether a call of {tool.name} happened."
    return Tool(read_back, name=f"{tool.name}.verify", tool_class=ToolClass.READ)


def _workflow(name: str, tools: Doors, description: str) -> Workflow:
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(Calls)
    graph.add_node(name, cast(Any, _one_by_one(tools)))
    graph.add_edge(START, name)
    graph.add_edge(name, END)
    callable_here = list(dict.fromkeys(tools.values()))
    policy = Policy(
        tools=callable_here,
        approve_when={tool: _as_it_was_asked(tool) for tool in callable_here if tool.writes},
        retries=RETRIES,
        backoff=Backoff(first=2.0, most=600.0),
    )
    trigger = On(event_type(name), trusted=True)
    return Workflow(
        name, version="1", graph=graph, triggers=[trigger], policies={name: policy}, description=description
    )


def _as_it_was_asked(tool: Tool) -> Rule:
    """Who asked for it saw these very arguments, and they stand in the event: nothing read on the way can change
    them."""
    return Rule("as it was asked for", _nobody_more, vouches_for=tuple(tool.arguments.model_fields))


def _nobody_more(_arguments: Any) -> bool:
    return False


def _one_by_one(tools: Doors) -> Callable[[Calls], Any]:
    async def see_to_each(state: Calls) -> Calls:
        for wanted in state["calls"]:
            tool = tools.get((wanted["workflow"], wanted["version"], wanted["tool"]))
            if tool is None:
                raise Permanent(
                    f"{wanted['tool']} of {wanted['workflow']} version {wanted['version']} is not loaded here, or "
                    "names nothing to call any more; load it and replay this run"
                )
            # Its key tells each call from all others, whatever else the list holds.
            await gate_for(tool.name).call(tool, wanted["arguments"], ordinal=wanted["effect"])
        return {"done": [wanted["effect"] for wanted in state["calls"]]}

    return see_to_each
