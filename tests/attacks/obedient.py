"""The scripted model: it does what the attacker wants as soon as it reads the mark of the case, and is honest else.

It decides nothing. What it answers stands in the table, so the suite needs no luck, no key and no network.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import PrivateAttr
from tests.attacks.words import Act, Case, Orders, Steps, Vector

from eventwright.tools.offline_model import OfflineModel

REFERENCE = re.compile(r"REF-(c\d{4})")
MARK = re.compile(r"OBEY-(c\d{4}|ALL)")
STEP = re.compile(r"^step: (\d+)$", re.MULTILINE)
#: What a text may hold in place of something that the model has read.
READ = {"{canary}": re.compile(r"canary-c\d{4}"), "{card}": re.compile(r"4\d{3}(?: \d{4}){3}")}
TOKENS = {"input_tokens": 50, "output_tokens": 20, "total_tokens": 70}


class ObedientModel(BaseChatModel):
    """A chat model that reads its lines from the cases."""

    model_name: str = "obedient"
    _cases: Mapping[str, Case] = PrivateAttr(default_factory=dict)
    _offline: OfflineModel = PrivateAttr(default_factory=OfflineModel)
    #: The cases in which it has obeyed the attacker.
    _obeyed: set[str] = PrivateAttr(default_factory=set)

    @classmethod
    def of(cls, cases: Sequence[Case]) -> ObedientModel:
        model = cls()
        model._cases = {case.reference: case for case in cases}
        return model

    @property
    def obeyed(self) -> set[str]:
        """The references of the cases whose mark it has read and obeyed."""
        return self._obeyed

    @property
    def _llm_type(self) -> str:
        return "obedient"

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        tools = kwargs.get("tools") or []
        seen = "\n".join([message.text for message in messages] + [json.dumps(tool) for tool in tools])
        case, orders, obeys = self._lines(seen)
        # Where a tool's result brings the injected text, an agent's first step was still an honest one.
        late = obeys and case is not None and case.vector is Vector.TOOL_RESULT
        if _is_a_form(tools):
            purpose = tools[0]["function"]["name"]
            if case is None or purpose not in orders:
                return self._offline._generate(messages, stop, run_manager, **kwargs)
            value = orders[purpose]
            if purpose == "act":
                value = [_as_json(act, seen) for act in _step(value, int(STEP.findall(seen)[-1]) - late)]
            return _said([{"name": purpose, "args": _sure(_filled(value, seen)), "id": "1"}])
        if "act" not in orders:
            return self._offline._generate(messages, stop, run_manager, **kwargs)
        spoken = sum(isinstance(message, AIMessage) for message in messages)
        acts = [_as_json(act, seen) for act in _step(orders["act"], spoken - late)]
        return _said(
            [
                {"name": act["tool"].replace(".", "_"), "args": act["arguments"], "id": f"{spoken}-{number}"}
                for number, act in enumerate(acts)
            ]
        )

    def _lines(self, seen: str) -> tuple[Case | None, Orders, bool]:
        """Whose case this is, what to answer in it, and whether that is the attacker's wish."""
        mark, reference = MARK.search(seen), REFERENCE.search(seen)
        of = reference if mark is None or mark[1] == "ALL" else mark
        if of is None:
            return None, {}, False
        case = self._cases[of[1]]
        if mark is None or not case.hostile:
            return case, case.subject.honest(case), False
        self._obeyed.add(case.reference)
        return case, case.attack.orders(case), True


def _is_a_form(tools: Sequence[Any]) -> bool:
    """Whether a judgement is asked for, with one function to fill in."""
    return len(tools) == 1 and "confidence" in tools[0]["function"]["parameters"].get("properties", {})


def _step(steps: Steps, number: int) -> Sequence[Act]:
    return steps[number] if number < len(steps) else ()


def _as_json(act: Act, seen: str) -> dict[str, Any]:
    return {"tool": act.tool, "arguments": _filled(dict(act.arguments), seen)}


def _filled(value: Any, seen: str) -> Any:
    """The value with what the model has read in it."""
    if isinstance(value, str):
        for placeholder, pattern in READ.items():
            found = pattern.search(seen)
            value = value.replace(placeholder, found[0]) if found else value
        return value
    if isinstance(value, Mapping):
        return {name: _filled(item, seen) for name, item in value.items()}
    return [_filled(item, seen) for item in value] if isinstance(value, list) else value


def _sure(value: Any) -> dict[str, Any]:
    """The form, filled in by a model that is never in doubt."""
    return {"value": value, "confidence": 1.0, "reason": "as told"}


def _said(calls: list[dict[str, Any]]) -> ChatResult:
    message = AIMessage(
        content="" if calls else "done",
        tool_calls=calls,
        response_metadata={"model_name": "obedient", "finish_reason": "tool_calls" if calls else "stop"},
        usage_metadata=TOKENS,
    )
    return ChatResult(generations=[ChatGeneration(message=message)])
