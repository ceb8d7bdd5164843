"""LangChain's chat models behind the gate: each answer is an effect of the node's visit, recorded and replayed.

`process_model()` stands for the model of the process, wherever a graph wants a chat model when it is written:
`create_agent(process_model(), tools=[...])`. A model that an author brings along is recorded as well, through
LangChain's cache (`eventwright.graphs.recorded_models`), which only `invoke` and `ainvoke` ask: an answer that is
streamed (`astream`) is not recorded.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Self

import openai
from langchain_core.caches import BaseCache
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.exceptions import ModelError
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, BaseMessage, message_to_dict, messages_from_dict
from langchain_core.outputs import ChatGeneration, ChatResult, Generation
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic_core import to_jsonable_python

from eventwright.runs.errors import EventwrightError
from eventwright.tools.asking import answer_limit, cost_of, model_name, usage_of
from eventwright.tools.building import Models
from eventwright.tools.contract import Call, GateProtocol, gate_for, tool
from eventwright.tools.faults import clip, fault
from eventwright.tools.langchain_tools import ENDS
from eventwright.tools.models import ModelAnswerInvalid, ModelUnavailable
from eventwright.tools.within import ordinal_within

#: Characters of the last message that stand in the ledger, for people; the rest of a prompt stands there as a digest.
LONGEST_SHOWN = 2_000


#: Where an object lies in memory is another place in every process; LangChain writes it where it cannot write more.
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class NodeEnds(EventwrightError, RuntimeError):
    """The node is over: a person is asked, a budget has to wait, or the replay differs. LangChain lets only ordinary
    errors out of a model; whoever catches this one can call nothing more."""


@dataclass(frozen=True, kw_only=True)
class ChatAnswer:
    """What a chat model answered. This is what the ledger keeps, as JSON.

    Attributes:
        generations: LangChain's, usually one: `{"message": ...}` as LangChain writes messages, or `{"text": ...}` of a
            model that completes text.
        model: the name of the model that answered.
        input_tokens: as the provider counts; 0 if it does not say. Likewise `output_tokens`.
        seconds: how long the call took.
        cost: of the call, in `currency`; None if the price of the model or the number of tokens is not known.
    """

    generations: list[dict[str, Any]]
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    cost: Decimal | None = None
    currency: str | None = None

    @property
    def counted(self) -> bool:
        """Whether the provider said how many tokens it took."""
        return self.input_tokens > 0 and self.output_tokens > 0

    @classmethod
    def of(cls, generations: Sequence[Generation], seconds: float) -> Self:
        """The answer of a model of which nothing else is known."""
        messages = [one.message for one in generations if isinstance(one, ChatGeneration)]
        usage = usage_of(messages[0]) if messages and isinstance(messages[0], AIMessage) else None
        return cls(
            generations=[_written(one) for one in generations],
            model=str(messages[0].response_metadata.get("model_name", "")) if messages else "",
            input_tokens=usage.read if usage else 0,
            output_tokens=usage.written if usage else 0,
            seconds=seconds,
        )

    def restored(self) -> list[Generation]:
        """The generations as LangChain has them."""
        return [_read(one) for one in self.generations]


def _written(generation: Generation) -> dict[str, Any]:
    info = _plain(generation.generation_info)
    if not isinstance(generation, ChatGeneration):
        return {"text": _plain(generation.text), "info": info}
    return {"message": _plain(message_to_dict(generation.message)), "info": info}


def _plain(value: Any) -> Any:
    """The value as canonical JSON takes it. What a provider adds to an answer may be anything; as words it is kept."""
    return _countable(to_jsonable_python(value, serialize_unknown=True))


def _countable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > LARGEST_INTEGER:
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {_countable(name): _countable(part) for name, part in value.items()}
    return [_countable(part) for part in value] if isinstance(value, list) else value


def _read(written: dict[str, Any]) -> Generation:
    if "message" not in written:
        return Generation(text=written["text"], generation_info=written["info"])
    [message] = messages_from_dict([written["message"]])
    return ChatGeneration(message=message, generation_info=written["info"])


#: Beyond this integers are not exact in JSON.
LARGEST_INTEGER = 2**53 - 1
#: Really asks the model; set around a call of `chat`, for a prompt is no argument that the ledger could keep.
_asks: ContextVar[Callable[[Call], Awaitable[ChatAnswer]]] = ContextVar("eventwright_asks")


def asked_by_the_gate() -> bool:
    """Whether the model that runs here is asked in a call that is on record anyway."""
    return _asks.get(None) is not None


@tool(name="model.chat")
async def chat(
    prompt: str, settings: str, messages: int, size: int, last: str, own: bool = False, *, call: Call
) -> ChatAnswer:
    """Let a chat model answer a conversation."""
    return await _asks.get()(call)


@dataclass(frozen=True)
class Prompt:
    """What a chat model is asked, as far as the ledger keeps it.

    Attributes:
        prompt: the digest of the conversation.
        settings: the digest of everything else that the model is told.
        messages: how many.
        size: bytes of both together: a model reads no more tokens than that.
        last: how the last message begins.
        own: whether it is a model that the author brought along.
    """

    prompt: str
    settings: str
    messages: int
    size: int
    last: str
    own: bool = False

    @classmethod
    def of(cls, conversation: str, settings: str, messages: int, last: str, *, own: bool = False) -> Self:
        """From the conversation as LangChain writes it, with what identifies model and parameters."""
        read = _as_asked(conversation).encode("utf-8", "replace")
        told = ADDRESS.sub("", settings).encode("utf-8", "replace")
        shown = last[:LONGEST_SHOWN].encode("utf-8", "replace").decode()
        return cls(_digest(read), _digest(told), messages, len(read) + len(told), shown, own)


def _as_asked(conversation: str) -> str:
    """The conversation without what LangChain notes beside answers: it notes other things beside replayed ones."""
    try:
        messages = json.loads(conversation)
    except ValueError:
        return conversation  # the prompt of a model that completes text
    for message in messages if isinstance(messages, list) else ():
        fields = message.get("kwargs", {}) if isinstance(message, dict) else {}
        for noted in ("id", "usage_metadata", "response_metadata"):
            fields.pop(noted, None)
    return json.dumps(messages, sort_keys=True)


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


@dataclass
class Asked:
    """What was asked in one run of a node, so that a question which failed and is asked again has its place again: on
    replay only the answers are there, and the first of them answers the first question."""

    counts: dict[str, int] = field(default_factory=dict)
    failed: dict[tuple[str, Prompt], list[str]] = field(default_factory=dict)

    def ordinal(self, place: str, prompt: Prompt) -> str:
        """The ordinal of a question that is asked here now."""
        again = self.failed.get((place, prompt))
        if again:
            return again.pop(0)
        self.counts[place] = self.counts.get(place, -1) + 1
        return str(self.counts[place])


_asked: ContextVar[Asked | None] = ContextVar("eventwright_asked", default=None)


@contextmanager
def asking() -> Iterator[None]:
    """A node runs in this block."""
    token = _asked.set(Asked())
    try:
        yield
    finally:
        _asked.reset(token)


async def ask_through(gate: GateProtocol, prompt: Prompt, asks: Callable[[Call], Awaitable[ChatAnswer]]) -> ChatAnswer:
    """The recorded answer, or that of `asks` on record.

    Raises:
        eventwright.guardrails.verdicts.Denied: a budget has too little left.
        ToolError: the model failed.
        NodeEnds: the segment ends here.
    """
    asked, place = _asked.get() or Asked(), gate.here()
    ordinal = ordinal_within() or asked.ordinal(place, prompt)
    token = _asks.set(asks)
    try:
        answer: ChatAnswer = await gate.call(chat, prompt.__dict__, ordinal=ordinal)
    except Exception:
        asked.failed.setdefault((place, prompt), []).append(ordinal)
        raise
    except ENDS:
        raise
    except BaseException as signal:
        raise NodeEnds(str(signal)) from signal
    finally:
        _asks.reset(token)
    return answer


class ProcessModel(BaseChatModel):
    """Stands for the chat model of the process. Made by `process_model()`."""

    #: The ledger keeps the answers.
    cache: BaseCache | bool | None = False

    @property
    def _llm_type(self) -> str:
        return "eventwright-process-model"

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: Any = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model with tools to choose from, in OpenAI's form, which every provider's client takes."""
        choice = {} if tool_choice is None else {"tool_choice": tool_choice}
        return self.bind(tools=[convert_to_openai_tool(one) for one in tools], **choice, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        gate = gate_for(chat.name)
        if threading.current_thread() is gate.thread:
            raise TypeError("the model was asked in a coroutine with invoke(), which would block it; await ainvoke()")
        return asyncio.run_coroutine_threadsafe(self._agenerate(messages, stop, **kwargs), gate.loop).result()

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        gate = gate_for(chat.name)
        read = [_without_ids(_for_model(gate, message)) for message in messages]
        settings = json.dumps({**kwargs, "stop": stop}, sort_keys=True, default=repr)
        prompt = Prompt.of(dumps(read), settings, len(read), read[-1].text if read else "")

        async def asks(call: Call) -> ChatAnswer:
            models = Models.of(call.resources)
            return await models.first(
                lambda model, timeout: _answer(models, model, timeout, read, {**kwargs, "stop": stop}),
                read=lambda _model: prompt.size,
                economy=call.economy,
            )

        answer = await ask_through(gate, prompt, asks)
        return ChatResult(generations=[one for one in answer.restored() if isinstance(one, ChatGeneration)])


def process_model() -> ProcessModel:
    """The chat model of the process, for `create_agent` and wherever else a graph wants a model when it is written.

    It is asked through the gate of the node that runs, once and for all, and reads what the workflow's redaction lets
    a model read. `EVENTWRIGHT_MODEL` and the other settings say which model it is; without a key it is the offline one.
    """
    return ProcessModel()


async def _answer(
    models: Models, model: BaseChatModel, timeout: float, messages: list[BaseMessage], told: dict[str, Any]
) -> ChatAnswer:
    """Ask one model. Raises what `eventwright.tools.asking.ask` does, but for the form of the answer."""
    # A cache below the ledger would give a retry the same bad answer again.
    fresh = model.model_copy(update={"cache": False})
    tools = told.pop("tools", None)
    limit = {"max_tokens": answer_limit(model, models.max_tokens)}
    settings = {name: value for name, value in told.items() if value is not None} | limit
    asked = fresh.bind_tools(tools, **settings) if tools else fresh.bind(**settings)
    started = time.monotonic()
    try:
        async with asyncio.timeout(timeout):
            message = await asked.ainvoke(messages)
    except TimeoutError as error:
        raise ModelUnavailable(f"the model did not answer within {timeout:g} s") from error
    except (ModelError, openai.APIStatusError) as error:
        raise fault(error) from error
    except (openai.APIError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ModelAnswerInvalid(f"the answer is no completion: {clip(error)}") from error
    usage = usage_of(message)
    name = str(message.response_metadata.get("model_name") or model_name(model))
    cost = cost_of(models.prices, [name, model_name(model)], usage)
    return ChatAnswer(
        generations=[_written(ChatGeneration(message=message))],
        model=name,
        input_tokens=usage.read,
        output_tokens=usage.written,
        seconds=time.monotonic() - started,
        cost=cost,
        currency=None if cost is None else models.prices.currency,
    )


def _for_model(gate: GateProtocol, message: BaseMessage) -> BaseMessage:
    """The message as a model may read it. What a model wrote itself stays as it is."""
    return (
        message
        if isinstance(message, AIMessage)
        else message.model_copy(update={"content": gate.for_model(message.content)})
    )


def _without_ids(message: BaseMessage) -> BaseMessage:
    """The message without LangChain's own id, which is another on replay."""
    return message.model_copy(update={"id": None})
