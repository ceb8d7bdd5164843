"""The model as a tool: it reads, changes nothing, and its answer is recorded and replayed like any other."""

from __future__ import annotations

from langchain_core.language_models import BaseChatModel

from eventwright.tools.contract import Call, tool
from eventwright.tools.models import Answer, Question, ask


@tool(name="model.ask")
async def ask_model(question: Question, *, call: Call) -> Answer:
    """Ask the chat model of this process one question."""
    model = call.use(BaseChatModel)  # type: ignore[type-abstract]  # looked up by class, never made here
    return await ask(model, question)
