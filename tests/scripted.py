"""A chat model that says what a test wrote down, one answer a question, and keeps what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import ConfigDict, Field


class Hangs:
    """An answer that does not come: the model sets `reached` and waits until it is cut off."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()


class Late:
    """An answer that comes after those to the questions asked at the same time."""

    def __init__(self, answer: AIMessage) -> None:
        self.answer = answer


class ScriptedModel(BaseChatModel):
    """Says what comes next in its script: an AIMessage, or raises the error that stands there."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    script: list[Any] = Field(exclude=True)
    #: Every question: the messages, and what else the model was told.
    asked: list[tuple[list[BaseMessage], dict[str, Any]]] = Field(default_factory=list, exclude=True)
    name_of_model: str = "scripted"

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.name_of_model}

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        return self.bind(tools=[getattr(tool, "name", tool) for tool in tools], **kwargs)

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **told: Any
    ) -> ChatResult:
        return self._said(self._next(messages, told))

    async def _agenerate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **told: Any
    ) -> ChatResult:
        answer = self._next(messages, told)
        if isinstance(answer, Hangs):
            answer.reached.set()
            await asyncio.Event().wait()
        if isinstance(answer, Late):
            await asyncio.sleep(0.1)
            answer = answer.answer
        return self._said(answer)

    def _next(self, messages: list[BaseMessage], told: dict[str, Any]) -> Any:
        self.asked.append((messages, told))
        return self.script.pop(0)

    def _said(self, answer: Any) -> ChatResult:
        if isinstance(answer, Exception):
            raise answer
        # A copy: LangChain gives every message an id of its own.
        return ChatResult(generations=[ChatGeneration(message=answer.model_copy(deep=True))])


def calls(*made: tuple[str, dict[str, Any]], ids: Sequence[str] | None = None, content: str = "") -> AIMessage:
    """A model's message with these tool calls."""
    names = ids or [f"call_{number}" for number in range(len(made))]
    return AIMessage(
        content,
        tool_calls=[{"name": name, "args": args, "id": id_} for (name, args), id_ in zip(made, names, strict=True)],
    )
