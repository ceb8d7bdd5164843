"""LangChain tools as an author has them, and a graph whose model has said to call them."""

from __future__ import annotations

import operator
from typing import Annotated, Any

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from eventwright.graphs.workflow import On, Workflow
from eventwright.guardrails.policy import Policy

#: What an agent says at the end.
DONE = AIMessage("all done")


class Tools:
    """LangChain tools that keep what they were called with, as an author has them."""

    def __init__(self) -> None:
        self.ran: list[Any] = []
        self.errors: list[Exception] = []

        @tool
        async def search(query: str) -> str:
            """Search."""
            return self._did("search", query)

        @tool
        def post(text: str, to: str = "ann") -> str:
            """Post a letter, and not quickly."""
            return self._did("post", f"{text} {to}")

        @tool
        def hidden(text: str) -> str:
            """No policy names this."""
            return self._did("hidden", text)

        self.search, self.post, self.hidden = search, post, hidden

    def _did(self, name: str, argument: Any) -> str:
        self.ran.append((name, argument))
        if self.errors:
            raise self.errors.pop(0)
        return f"{name} {argument}"


def workflow(message: AIMessage | list[AIMessage], node: ToolNode, *named: Any, **policy: Any) -> Workflow:
    """A graph in which a model has said this (once, or turn by turn), and a `ToolNode` does it."""
    turns = message if isinstance(message, list) else [message]

    class State(MessagesState):
        turn: int
        steps: Annotated[list[int], operator.add]

    async def model(state: State) -> dict[str, Any]:
        turn = state.get("turn", 0)
        return {"messages": [turns[turn]], "turn": turn + 1}

    graph = StateGraph(State)
    graph.add_node("model", model)
    graph.add_node("tools", node)
    graph.add_edge(START, "model")
    graph.add_edge("model", "tools")
    graph.add_conditional_edges("tools", lambda state: "model" if state["turn"] < len(turns) else END)
    # What a person or a rule of ours sends: these tests are not about what untrusted data may choose.
    on = On("job", input=lambda payload, event: {"messages": []}, trusted=True)
    return Workflow("job", version="1", graph=graph, triggers=[on], policies={"tools": Policy(tools=named, **policy)})


async def answers(run: Any) -> list[tuple[str, str]]:
    """What the model is told: status and content of each tool message."""
    return [(m.status, m.content) for m in (await run.values())["messages"] if isinstance(m, ToolMessage)]


def agent_job(agent: Any, *tools: Any, trusted: bool = True, **policy: Any) -> Workflow:
    """The agent as the only node, asked to do something."""
    graph = StateGraph(MessagesState)
    graph.add_node("agent", agent)
    graph.add_edge(START, "agent")
    on = On("job", input=lambda payload, event: {"messages": [HumanMessage("do it")]}, trusted=trusted)
    return Workflow("job", version="1", graph=graph, triggers=[on], policies={"agent": Policy(tools=tools, **policy)})
