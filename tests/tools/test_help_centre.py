"""The help centre finds what customers ask about, and the offline model looks there by rules that one can read."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from eventwright.tools import help_centre
from eventwright.tools.contract import Call, OutsideGate, Permanent, Tool
from eventwright.tools.help_centre import MOST_FOUND, packaged_articles
from eventwright.tools.offline_agent import READ, REFUNDS, SEARCH, next_step

TICKETS = Path(__file__).parents[1] / "data" / "tickets"
CALL = Call(run_id="run_1", node="research", idempotency_key="key", attempt=1)


async def called(tool: Tool, **arguments: Any) -> Any:
    return await tool.perform(tool.arguments(**arguments), CALL)


async def found(query: str) -> list[str]:
    return [article.id for article in await called(help_centre.search, query=query)]


# -- what is not there -------------------------------------------------------------------------------------------------


async def test_outside_a_node_nobody_searches() -> None:
    with pytest.raises(OutsideGate):
        await help_centre.search("card")


@pytest.mark.parametrize("query", ["what is the meaning of life", "?", "the and of", "🂡", "\x00", "x" * 500])
async def test_what_the_help_centre_knows_nothing_of_is_not_found(query: str) -> None:
    assert await found(query) == []


@pytest.mark.parametrize("article_id", ["", "card", "../contract", "refunds\n"])
async def test_an_article_that_does_not_exist_cannot_be_read(article_id: str) -> None:
    with pytest.raises(Permanent, match="search for one first"):
        await called(help_centre.read, article_id=article_id)


# -- what is -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "article"),
    [
        ("Where is my new card? It has not arrived", "card-arrival"),
        ("my wallet was stolen", "lost-or-stolen-card"),
        ("Why is my top-up still pending?", "top-up-pending"),
        ("the exchange rate is wrong", "exchange-rates"),
        ("I have forgotten my passcode", "passcode-and-pin"),
        ("charged twice for the same payment", "charged-twice"),
        ("delete my account", "close-account"),
        ("which countries are supported", "where-it-works"),
    ],
)
async def test_a_plain_question_finds_its_article_first(query: str, article: str) -> None:
    assert (await found(query))[0] == article


async def test_most_real_tickets_find_something_and_never_too_much() -> None:
    types = json.loads((TICKETS / "intent_types.json").read_text())["banking77"]
    with (TICKETS / "banking77_train.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[::25]
    results = [await found(f"{types[row['category']].replace('_', ' ')} {row['text']}"[:500]) for row in rows]
    assert sum(map(bool, results)) / len(results) >= 0.9
    assert max(map(len, results)) <= MOST_FOUND


def test_every_article_is_short_and_says_what_it_is_about() -> None:
    articles = packaged_articles()
    assert len(articles) >= 12
    for article in articles.values():
        assert 200 < len(article.text) < 1000, article.id
        assert len(article.summary) < 300, article.id
        assert "http" not in article.text, "a mail may link to allowed hosts only"


# -- the offline model as an agent -------------------------------------------------------------------------------------

BOUND = [{"function": {"name": name}} for name in (SEARCH, READ, REFUNDS, "Notes")]


def question(kind: str, message: str = "help", account: str = "a1") -> HumanMessage:
    return HumanMessage(f"<material 1>\ntype: {kind}\naccount: {account}\nmessage: {message}\n</material 1>")


def told(name: str, result: Any, status: str = "success") -> ToolMessage:
    return ToolMessage(json.dumps(result), name=name, tool_call_id="c", status=status)


def test_with_other_tools_the_offline_model_is_no_agent() -> None:
    assert next_step([question("other")], [{"function": {"name": "classify"}}]) is None


def test_it_searches_and_for_money_back_it_looks_at_the_refunds_too() -> None:
    assert next_step([question("card_problem", "it is lost")], BOUND) == [
        (SEARCH, {"query": "card problem it is lost"})
    ]
    both = next_step([question("refund_request", "give it back")], BOUND)
    assert both == [(SEARCH, {"query": "refund request give it back"}), (REFUNDS, {"account_id": "a1"})]
    assert next_step([question("refund_request", account="")], BOUND) == [(SEARCH, {"query": "refund request help"})]


def test_it_reads_the_best_article_and_notes_its_beginning() -> None:
    messages: list[Any] = [question("refund_request"), AIMessage("")]
    messages += [told(SEARCH, [{"id": "b", "summary": "S."}, {"id": "c", "summary": "T."}]), told(REFUNDS, [{}, {}])]
    assert next_step(messages, BOUND) == [(READ, {"article_id": "b"})]
    messages.append(told(READ, {"id": "b", "text": "First\nlines.\n\nMore."}))
    text = "First lines. Refunds on your account so far: 2."
    assert next_step(messages, BOUND) == [("Notes", {"articles": ["b"], "text": text})]


def test_it_goes_on_without_what_was_refused() -> None:
    refused = [question("refund_request"), told(SEARCH, "denied", "error"), told(REFUNDS, "denied", "error")]
    assert next_step(refused, BOUND) == [("Notes", {"articles": [], "text": ""})]
    unread = [question("other"), told(SEARCH, [{"id": "b", "summary": "S."}]), told(READ, "denied", "error")]
    assert next_step(unread, BOUND) == [("Notes", {"articles": ["b"], "text": "S."})]
