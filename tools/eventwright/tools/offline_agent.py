"""The offline model as a research agent: which tools it calls next, by rules that everyone can read.

It knows the tools of the support workflow's research: the search of the help centre, its articles, the refunds of an
account. Whatever other tool it is given last, with `articles` and `text`, takes what it has found.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage

from eventwright.tools.offline_reading import fields_of, material_of

SEARCH, READ, REFUNDS = "help_centre_search", "help_centre_read", "payments_refunds_of"
#: Types of tickets for which it looks at the refunds that the customer has had.
ABOUT_MONEY_BACK = ("refund_request", "charges_and_fees")
#: Characters of a message that it searches for.
LONGEST_QUERY = 300
#: Characters of what it writes down.
LONGEST_NOTE = 400

Step = list[tuple[str, dict[str, Any]]]


def next_step(messages: Sequence[BaseMessage], tools: Sequence[Mapping[str, Any]]) -> Step | None:
    """The tools that it calls now, with their arguments; None if these are not the tools of research."""
    names = [str(tool["function"]["name"]) for tool in tools]
    if SEARCH not in names:
        return None
    asked = max(number for number, message in enumerate(messages) if isinstance(message, HumanMessage))
    fields = fields_of(material_of(messages[asked].text))
    results = {message.name: _result(message) for message in messages[asked + 1 :] if isinstance(message, ToolMessage)}
    if SEARCH not in results:
        return _look(names, fields)
    found = results[SEARCH] or []
    if READ in names and READ not in results and found:
        return [(READ, {"article_id": found[0]["id"]})]
    [noting] = [name for name in names if name not in (SEARCH, READ, REFUNDS)]
    return [(noting, _notes(found, results))]


def _look(names: Sequence[str], fields: Mapping[str, str]) -> Step:
    kind = fields.get("type", "")
    step: Step = [(SEARCH, {"query": f"{kind.replace('_', ' ')} {fields.get('message', '')}"[:LONGEST_QUERY]})]
    if REFUNDS in names and kind in ABOUT_MONEY_BACK and fields.get("account"):
        step.append((REFUNDS, {"account_id": fields["account"]}))
    return step


def _notes(found: Sequence[Mapping[str, Any]], results: Mapping[str | None, Any]) -> dict[str, Any]:
    page = results.get(READ)
    words = [page["text"].split("\n\n")[0]] if page else [one["summary"] for one in found[:1]]
    refunds = results.get(REFUNDS) or []
    if refunds:
        words.append(f"Refunds on your account so far: {len(refunds)}.")
    text = " ".join(" ".join(words).split())
    return {"articles": [one["id"] for one in found[:1]], "text": text[:LONGEST_NOTE]}


def _result(message: ToolMessage) -> Any:
    """What a tool answered; None if it refused or failed."""
    return json.loads(message.text) if message.status == "success" else None
