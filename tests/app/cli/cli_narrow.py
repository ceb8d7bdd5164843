"""A workflow with a node for narrow workers; EVENTWRIGHT_WORKFLOWS names this module."""

from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from eventwright.sdk import On, Policy, Workflow


class State(TypedDict, total=False):
    text: str


async def step(state: State) -> dict[str, Any]:
    return {"text": state.get("text", "") + "."}


graph = StateGraph(State)
for name in ("read", "draft", "file"):
    graph.add_node(name, step)
for before, after in ((START, "read"), ("read", "draft"), ("draft", "file"), ("file", END)):
    graph.add_edge(before, after)

letters = Workflow(
    "letters",
    version="1",
    graph=graph,
    triggers=[On("letter.came", trusted=True)],
    policies={"draft": Policy(lane="llm")},
)
