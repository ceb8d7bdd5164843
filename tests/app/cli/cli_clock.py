"""A workflow that starts by the clock; EVENTWRIGHT_WORKFLOWS names this module."""

from typing import Any, TypedDict

from langgraph.graph import START, StateGraph

from eventwright.sdk import Every, Workflow


class State(TypedDict, total=False):
    scheduled_for: str


async def look(state: State) -> dict[str, Any]:
    return {}


graph = StateGraph(State)
graph.add_node("look", look)
graph.add_edge(START, "look")
report = Workflow(
    "report",
    version="1",
    graph=graph,
    triggers=[
        Every("0 9 * * MON-FRI", zone="Europe/Berlin", type="report.due", name="daily"),
        Every("* * * * *", type="minute.come", missed="skip"),
    ],
)
