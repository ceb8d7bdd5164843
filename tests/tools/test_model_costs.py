"""What an answer cost is known to the last digit or not at all, and never more than what was set aside for it."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain_openai import ChatOpenAI
from pydantic import SecretStr
from tests.tools.model_provider import GOOD, QUESTION, Provider, called, counted, models_of

from eventwright.tools.building import Models, ModelSettings, build_models
from eventwright.tools.contract import Call, Resources
from eventwright.tools.model_tool import ask_model
from eventwright.tools.models import ModelAnswerInvalid, ModelMisconfigured, Question
from eventwright.tools.offline_model import OfflineModel

USAGE = {"prompt_tokens": 31, "completion_tokens": 7, "total_tokens": 38}


# A provider that counts badly.


async def test_tokens_that_were_not_counted_or_not_well_cost_unknown_and_not_nothing(provider: Provider) -> None:
    bad: list[object] = [
        None,
        {},
        {"prompt_tokens": None, "completion_tokens": None},
        {**USAGE, "prompt_tokens": 0},
        {**USAGE, "completion_tokens": 0},
        {**USAGE, "prompt_tokens": -31},
        {**USAGE, "completion_tokens": -7},
        {**USAGE, "prompt_tokens": 10**9},
        {**USAGE, "completion_tokens": 10**60},
        {**USAGE, "completion_tokens": "many"},
        {**USAGE, "prompt_tokens": 31.5},
        {**USAGE, "prompt_tokens": [31]},
    ]
    async with models_of(provider, *map(counted, bad)) as models:
        for usage in bad:
            answer = await models.ask(QUESTION)
            assert (answer.value, answer.cost, answer.currency) == ("card_delivery", None, None), usage
            assert (answer.input_tokens, answer.output_tokens, answer.counted) == (0, 0, False), usage
            assert ask_model.load(ask_model.dump(answer)) == answer


async def test_an_answer_whose_count_the_client_cannot_read_is_an_invalid_one(provider: Provider) -> None:
    bad: list[object] = ["many", [1, 2], {"prompt_tokens": 31, "completion_tokens": "many"}]
    async with models_of(provider, *map(counted, bad)) as models:
        for _ in bad:
            with pytest.raises(ModelAnswerInvalid):
                await models.ask(QUESTION)


async def test_tokens_that_cannot_have_been_cached_cost_like_others(provider: Provider) -> None:
    bad = [{**USAGE, "prompt_tokens_details": {"cached_tokens": cached}} for cached in (-5, 32, 10**60, "all", None)]
    async with models_of(provider, *map(counted, bad)) as models:
        for usage in bad:
            assert (await models.ask(QUESTION)).cost == Decimal("0.000118"), usage


async def test_a_model_without_a_price_costs_unknown(provider: Provider) -> None:
    async with models_of(provider, counted(USAGE, model="house-model"), model="house-model") as models:
        answer = await models.ask(QUESTION)
        estimate = models.estimate(QUESTION)
    assert (answer.input_tokens, answer.cost, answer.currency) == (31, None, None)
    assert (estimate.cost, estimate.model) == (None, "house-model")
    assert answer.counted


# What it costs.


async def test_an_answer_says_what_it_cost(provider: Provider) -> None:
    async with models_of(provider, counted(USAGE)) as models:
        answer = await models.ask(QUESTION)
    assert (answer.model, answer.cost, answer.currency) == ("gpt-4.1-2025-04-14", Decimal("0.000118"), "USD")
    assert ask_model.load(json.loads(json.dumps(ask_model.dump(answer)))) == answer


async def test_what_the_provider_had_cached_costs_less(provider: Provider) -> None:
    usage = {**USAGE, "prompt_tokens_details": {"cached_tokens": 30}}
    async with models_of(provider, counted(usage)) as models:
        assert (await models.ask(QUESTION)).cost == Decimal("0.000073")


async def test_the_model_that_answered_is_paid_and_where_it_has_no_price_the_one_that_was_asked(
    provider: Provider,
) -> None:
    script = [counted(USAGE, model="gpt-4.1-nano"), counted(USAGE, model="prod/europe/7")]
    async with models_of(provider, *script) as models:
        assert (await models.ask(QUESTION)).cost == Decimal("0.0000059")
        assert (await models.ask(QUESTION)).cost == Decimal("0.000118")


async def test_a_table_of_ones_own_replaces_the_packaged_one(provider: Provider, tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text('currency = "EUR"\n[models."gpt-4.1"]\ninput = "1000"\noutput = "0"\n')
    async with models_of(provider, counted(USAGE), counted(USAGE, model="gpt-4o"), prices=file) as models:
        answer = await models.ask(QUESTION)
        assert (answer.cost, answer.currency) == (Decimal("0.031"), "EUR")


async def test_the_offline_model_costs_nothing_and_says_so() -> None:
    models = build_models(ModelSettings(fallback="gpt-4.1", cheaper="gpt-4.1-nano"))
    assert (models.fallback, models.cheaper) == (None, None)
    for economy in (False, True):
        answer = await models.ask(QUESTION, economy=economy)
        assert (answer.model, answer.cost, answer.currency) == ("offline-rules", Decimal(0), "USD")
        assert models.estimate(QUESTION, economy=economy).cost == 0


def test_an_answer_that_was_recorded_before_there_were_costs_is_read_as_it_was() -> None:
    recorded = {
        "value": "card_delivery",
        "confidence": 0.9,
        "reason": "it waits for a card",
        "model": "gpt-4.1",
        "input_tokens": 31,
        "output_tokens": 7,
        "seconds": 0.5,
    }
    answer = ask_model.load(recorded)
    assert ask_model.dump(answer) == recorded | {
        "cost": None,
        "currency": None,
        "stated_confidence": None,
        "token_confidence": None,
    }


# What it costs at most.


def sent(request: dict[str, Any]) -> int:
    """The bytes of text that a model reads of a request, whichever way the provider writes down the form."""
    texts = [message["content"] for message in request["messages"]]
    texts.append(json.dumps(request.get("tools") or request["response_format"], ensure_ascii=False))
    return sum(len(text.encode()) for text in texts)


@pytest.mark.parametrize("material", ["", "My card.", "🂡" * 20_000, "\x00\u202e" * 3_000, "half \ud83d"])
@pytest.mark.parametrize("logprobs", [False, True])
async def test_no_more_can_be_read_and_written_than_what_is_set_aside(
    provider: Provider, material: str, logprobs: bool
) -> None:
    schema = {"type": "string", "enum": ["card_delivery", "ελληνικά"], "description": "é" * 500}
    question = Question(purpose="classify", instructions="Welcher?", material=material, schema=schema)
    async with models_of(provider, called(GOOD), max_tokens=100, logprobs=logprobs) as models:
        estimate = models.estimate(question)
        if logprobs:
            with pytest.raises(ModelAnswerInvalid):
                await models.ask(question)
        else:
            await models.ask(question)
    request = provider.requests[0]
    most = sent(request) + request["max_completion_tokens"]
    assert most <= estimate.tokens
    assert estimate.cost == Decimal(2 * (estimate.tokens - 100) + 8 * 100) / 1_000_000


async def test_an_answer_may_have_as_many_tokens_as_the_setting_says(provider: Provider) -> None:
    async with models_of(provider, called(GOOD), called(GOOD), max_tokens=77) as models:
        await models.ask(QUESTION)
    async with models_of(provider, called(GOOD)) as models:
        await models.ask(QUESTION)
    assert [request["max_completion_tokens"] for request in provider.requests] == [77, 2048]


async def test_a_model_that_has_a_lower_limit_of_its_own_keeps_it(provider: Provider) -> None:
    async with models_of(provider, called(GOOD), called(GOOD)) as built:
        assert isinstance(built.primary, ChatOpenAI)
        models = Models(built.primary.model_copy(update={"max_tokens": 50}), max_tokens=100)
        assert built.estimate(QUESTION).tokens - models.estimate(QUESTION).tokens == 2048 - 50
        await models.ask(QUESTION)
        await Models(built.primary.model_copy(update={"max_tokens": 5_000}), max_tokens=100).ask(QUESTION)
    assert [request["max_completion_tokens"] for request in provider.requests] == [50, 100]


async def test_with_a_fallback_both_models_are_set_aside_for(provider: Provider) -> None:
    async with models_of(provider) as alone, models_of(provider, fallback="gpt-4.1-mini") as both:
        one, two = alone.estimate(QUESTION), both.estimate(QUESTION)
    async with models_of(provider, fallback="house-model") as unpriced:
        unknown = unpriced.estimate(QUESTION)
    assert one.cost is not None
    assert (two.tokens, two.cost, two.model) == (2 * one.tokens, one.cost * Decimal("1.2"), "gpt-4.1")
    assert (unknown.cost, unknown.model) == (None, "house-model")


# Which of a process's models a tool uses.


def call_with(*resources: object, economy: bool = False) -> Call:
    return Call(run_id="r", node="n", idempotency_key="k", attempt=1, resources=Resources(resources), economy=economy)


async def test_a_bare_chat_model_is_asked_by_itself_but_paid_from_the_same_table(provider: Provider) -> None:
    script = [counted(USAGE), called(GOOD)]
    async with models_of(provider, *script, fallback="gpt-4o", cheaper="gpt-4.1-nano", max_tokens=9) as models:
        mine = ChatOpenAI(
            model="gpt-4.1-mini",
            api_key=SecretStr("x"),
            base_url=f"http://127.0.0.1:{provider.port}/v1",
            max_retries=0,
            http_async_client=models.primary.http_async_client,  # type: ignore[attr-defined]
        )
        found = Models.of(Resources((models, mine)))
        assert (found.primary, found.fallback, found.cheaper) == (mine, None, None)
        assert (found.prices, found.max_tokens) == (models.prices, 9)
        assert Models.of(Resources((mine, models))) is models
        answer = await ask_model.perform(ask_model.arguments(question=QUESTION), call_with(models, mine))
        assert answer.cost == Decimal("0.000118")
    assert provider.requests[0]["model"] == "gpt-4.1-mini"


async def test_the_tool_asks_for_economy_when_the_call_does(provider: Provider) -> None:
    arguments = ask_model.arguments(question=QUESTION)
    async with models_of(provider, called(GOOD), called(GOOD), cheaper="gpt-4.1-nano") as models:
        await ask_model.perform(arguments, call_with(models))
        await ask_model.perform(arguments, call_with(models, economy=True))
    assert [request["model"] for request in provider.requests] == ["gpt-4.1", "gpt-4.1-nano"]


async def test_economy_without_a_cheaper_model_is_refused_and_not_paid(provider: Provider) -> None:
    async with models_of(provider) as models:
        with pytest.raises(ModelMisconfigured, match="EVENTWRIGHT_CHEAPER_MODEL"):
            await models.ask(QUESTION, economy=True)
        with pytest.raises(ModelMisconfigured, match="EVENTWRIGHT_CHEAPER_MODEL"):
            models.estimate(QUESTION, economy=True)
    assert provider.requests == []
    assert Models(OfflineModel()).estimate(QUESTION, economy=True).cost == 0
