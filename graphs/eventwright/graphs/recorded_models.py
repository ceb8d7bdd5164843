"""An author's own LangChain models on record, through LangChain's cache: the one hook that every model asks first.

Within a running node the cache is our ledger: a question that was answered before in this visit has its recorded
answer, another one passes the gate like every call. Outside of nodes it is whatever cache was there before.

`invoke` and `ainvoke` ask the cache; `stream` and `astream` do not, and neither does a model that was built with
`cache=False` or with a cache of its own: their answers are not recorded, and asked for again when a node runs again.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.globals import get_llm_cache, set_llm_cache
from langchain_core.outputs import Generation

from eventwright.tools.chat_models import ChatAnswer, Prompt, ask_through, asked_by_the_gate, asking
from eventwright.tools.contract import Call, GateProtocol, NotDone, Permanent, current_gate

Result = TypeVar("Result")


class ModelFailed(NotDone):
    """An author's model raised an error of its own instead of answering. It is asked again."""

    seen = False


class OwnModel(Permanent):
    """A budget wants a cheaper model in the place of one that the author brought along."""


@dataclass(eq=False)
class Question:
    """A question to an author's model, from the moment it was looked up until the model has answered, or has not.

    The call through the gate is a task of its own, which goes as far as the model and waits there for the answer that
    LangChain gets.
    """

    prompt: Prompt
    #: Who asks: a task, or a thread.
    asker: object
    answer: asyncio.Future[ChatAnswer]
    #: Done when the gate lets the question pass, and has no answer on record.
    passed: asyncio.Future[None]
    began: float = field(default_factory=time.monotonic)
    call: asyncio.Task[ChatAnswer] | None = None

    @classmethod
    def begin(cls, gate: GateProtocol, prompt: Prompt, asker: object) -> Question:
        """Send the question through the gate."""
        loop = asyncio.get_running_loop()
        question = cls(prompt, asker, loop.create_future(), loop.create_future())
        question.call = asyncio.create_task(ask_through(gate, prompt, question.wait))
        # Who asks hears of an error; where nobody asks any more, nobody has to.
        question.call.add_done_callback(lambda call: call.cancelled() or call.exception())
        return question

    async def wait(self, call: Call) -> ChatAnswer:
        """What stands in the model's place in the gate."""
        if call.economy:
            raise OwnModel(
                "a budget asks for a cheaper model, and this one is the author's own; use process_model() in its place"
            )
        self.passed.set_result(None)
        return await self.answer

    def has_failed_for(self, asker: object) -> bool:
        """Whether the model has raised an error: its task is done, or its thread asks something else now."""
        return self.asker.done() if isinstance(self.asker, asyncio.Task) else self.asker is asker

    def fail(self) -> None:
        """Let the call fail, as the model did."""
        if not self.answer.done():
            asker = self.asker
            error = None
            if isinstance(asker, asyncio.Task) and asker.done() and not asker.cancelled():
                error = asker.exception()
            words = "the model did not answer" if error is None else f"{type(error).__name__}: {error}"
            self.answer.set_exception(ModelFailed(words))
            self.answer.exception()  # seen, also if the gate did not come to ask

    def give_up(self) -> None:
        """The node was stopped: nothing is put on record."""
        if self.call is not None:
            self.call.cancel()


#: The questions of the running node that have no answer yet.
_open: ContextVar[list[Question] | None] = ContextVar("eventwright_open_questions", default=None)


@contextmanager
def answering() -> Iterator[None]:
    """A node runs in this block. At its end every question without an answer has failed."""
    questions: list[Question] = []
    token = _open.set(questions)
    try:
        with asking():
            yield
    except asyncio.CancelledError:
        for question in questions:
            question.give_up()
        raise
    finally:
        _open.reset(token)
        for question in questions:
            question.fail()


class LedgerCache(BaseCache):
    """LangChain's cache as our ledger; outside of nodes it is the cache that was there before."""

    def __init__(self, before: BaseCache | None) -> None:
        self.before = before
        #: How many apps and simulations of this process need it.
        self.holders = 0

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """The recorded answer; None if the model is to be asked now.

        Raises:
            eventwright.guardrails.verdicts.Denied: a budget has too little left.
        """
        gate = _gate()
        if gate is None:
            return None if self.before is None else await self.before.alookup(prompt, llm_string)
        return await _look_up(gate, prompt, llm_string, asyncio.current_task())

    async def aupdate(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Put the model's answer on record."""
        if _gate() is not None:
            await _record(_prompt(prompt, llm_string), return_val, asyncio.current_task())
        elif self.before is not None:
            await self.before.aupdate(prompt, llm_string, return_val)

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """The same for a synchronous node, which runs in a thread."""
        gate = _gate()
        if gate is None:
            return None if self.before is None else self.before.lookup(prompt, llm_string)
        return _from_thread(gate, _look_up(gate, prompt, llm_string, threading.current_thread()))

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """The same for a synchronous node."""
        gate = _gate()
        if gate is not None:
            _from_thread(gate, _record(_prompt(prompt, llm_string), return_val, threading.current_thread()))
        elif self.before is not None:
            self.before.update(prompt, llm_string, return_val)

    def clear(self, **kwargs: Any) -> None:
        """Clear the cache that was there before. The ledger forgets nothing."""
        if self.before is not None:
            self.before.clear(**kwargs)


def _gate() -> GateProtocol | None:
    """The gate that a model's answer is recorded through; none outside of nodes, nor for the gate's own question."""
    return None if asked_by_the_gate() else current_gate.get()


@contextmanager
def recorded_models() -> Iterator[None]:
    """Within this block the models that authors use in nodes are recorded. Opened by the composition root."""
    before = get_llm_cache()
    cache = before if isinstance(before, LedgerCache) else LedgerCache(before)
    cache.holders += 1
    set_llm_cache(cache)
    try:
        yield
    finally:
        cache.holders -= 1
        if not cache.holders and get_llm_cache() is cache:
            set_llm_cache(cache.before)


async def _look_up(gate: GateProtocol, prompt: str, llm_string: str, asker: object) -> RETURN_VAL_TYPE | None:
    questions = _open.get()
    if questions is None:
        raise LookupError("a model was asked in a gate, and no node runs there")
    await _settle([one for one in questions if one.has_failed_for(asker)], questions)
    question = Question.begin(gate, _prompt(prompt, llm_string), asker)
    if question.call is None:
        raise LookupError("a question is sent through the gate before it is waited for")
    either: list[asyncio.Future[Any]] = [question.call, question.passed]
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        question.give_up()
        raise
    if question.call.done():
        return question.call.result().restored()
    questions.append(question)
    if isinstance(asker, asyncio.Task):
        asker.add_done_callback(lambda task: question.give_up() if task.cancelled() else None)
    return None


async def _record(prompt: Prompt, generations: Sequence[Generation], asker: object) -> None:
    questions = _open.get() or []
    mine = [one for one in questions if one.prompt == prompt and one.asker is asker]
    if not mine or mine[0].call is None:
        return
    questions.remove(mine[0])
    mine[0].answer.set_result(ChatAnswer.of(generations, time.monotonic() - mine[0].began))
    await mine[0].call


async def _settle(failed: Sequence[Question], questions: list[Question]) -> None:
    """Put on record that these have failed, before the next one is asked."""
    for question in failed:
        questions.remove(question)
        question.fail()
    await asyncio.gather(*(one.call for one in failed if one.call is not None), return_exceptions=True)


def _prompt(prompt: str, llm_string: str) -> Prompt:
    messages = _messages(prompt)
    last = _words(messages[-1]) if messages else prompt
    return Prompt.of(prompt, llm_string, len(messages) or 1, last, own=True)


def _messages(prompt: str) -> list[Any]:
    """The messages of a chat; none of a prompt for a model that completes text."""
    try:
        messages = json.loads(prompt)
    except ValueError:
        return []
    return messages if isinstance(messages, list) else []


def _words(message: Any) -> str:
    content = message.get("kwargs", {}).get("content", "") if isinstance(message, dict) else ""
    return content if isinstance(content, str) else json.dumps(content)


def _from_thread(gate: GateProtocol, call: Coroutine[Any, Any, Result]) -> Result:
    if threading.current_thread() is gate.thread:
        call.close()
        raise TypeError("a model was asked in a coroutine with invoke(), which blocks it; await its ainvoke()")
    return asyncio.run_coroutine_threadsafe(call, gate.loop).result()
