"""The model as a tool: it reads, changes nothing, and its answer is recorded and replayed like any other."""

from __future__ import annotations

from eventwright.tools.building import Models
from eventwright.tools.contract import Call, tool
from eventwright.tools.models import Answer, Question


@tool(name="model.ask")
async def ask_model(question: Question, *, call: Call) -> Answer:
    """Ask the chat model of this process one question.

    Its cheaper one is asked where a budget asks for economy.
    """
    return await Models.of(call.resources).ask(question, economy=call.economy)
