"""When a model does not answer another one does, in the same call; when it refuses, nobody asks on. Refusals first."""

from __future__ import annotations

import pytest
from tests.tools.model_provider import (
    GOOD,
    QUESTION,
    Provider,
    Reply,
    called,
    completion,
    hang,
    http,
    models_of,
    names_asked,
    problem,
    reset,
)

from eventwright.tools.building import Models
from eventwright.tools.contract import NotDone, Permanent, ResourceMissing, Resources
from eventwright.tools.models import ModelAnswerInvalid, ModelMisconfigured, ModelRefused, ModelUnavailable

BOTH = {"model": "gpt-4.1", "fallback": "gpt-4.1-mini"}


# What is an answer, if not the one that was hoped for.


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (http(completion({"content": None, "refusal": "I cannot help with that."}, "stop")), ModelRefused),
        (problem(400, "content_filter"), ModelRefused),
        (called({**GOOD, "value": "refund"}), ModelAnswerInvalid),
        (called(GOOD, ending="length"), ModelAnswerInvalid),
        (http("<html>"), ModelAnswerInvalid),
        (problem(401), ModelMisconfigured),
        (problem(404, "model_not_found"), ModelMisconfigured),
    ],
)
async def test_a_refusal_a_bad_answer_and_a_wrong_setting_are_not_asked_away(
    provider: Provider, reply: Reply, error: type[Exception]
) -> None:
    async with models_of(provider, reply, called(GOOD), **BOTH) as models:
        with pytest.raises(error) as caught:
            await models.ask(QUESTION)
    assert caught.type is error
    assert names_asked(provider) == ["gpt-4.1"]


@pytest.mark.parametrize("second", [problem(503), problem(429), reset])
async def test_when_the_fallback_is_down_too_one_error_names_both(provider: Provider, second: Reply) -> None:
    async with models_of(provider, problem(500), second, **BOTH) as models:
        with pytest.raises(ModelUnavailable, match=r"^gpt-4\.1: .*; its fallback gpt-4\.1-mini: ") as caught:
            await models.ask(QUESTION)
    assert names_asked(provider) == ["gpt-4.1", "gpt-4.1-mini"]
    assert isinstance(caught.value, NotDone)
    assert not isinstance(caught.value, Permanent)


async def test_a_fallback_whose_name_is_wrong_does_not_end_a_run_whose_model_may_come_back(provider: Provider) -> None:
    async with models_of(provider, problem(503, retry_after="9"), problem(404), **BOTH) as models:
        with pytest.raises(
            ModelUnavailable, match=r"its fallback gpt-4\.1-mini: .*does not accept the request"
        ) as caught:
            await models.ask(QUESTION)
    assert caught.value.retry_after == 9


async def test_the_run_waits_until_the_first_of_the_two_may_be_asked_again(provider: Provider) -> None:
    script = [problem(429, retry_after="60"), problem(429, retry_after="20")]
    async with models_of(provider, *script, **BOTH) as models:
        with pytest.raises(ModelUnavailable) as caught:
            await models.ask(QUESTION)
    assert caught.value.retry_after == 20


async def test_a_fallback_that_refuses_has_refused(provider: Provider) -> None:
    refusal = http(completion({"content": None, "refusal": "I cannot help with that."}, "stop"))
    async with models_of(provider, problem(503), refusal, **BOTH) as models:
        with pytest.raises(ModelRefused, match="cannot help"):
            await models.ask(QUESTION)


# What the fallback is for.


@pytest.mark.parametrize("reply", [problem(500), problem(429), problem(503, retry_after="3600"), reset])
async def test_the_fallback_answers_when_the_model_does_not_and_the_answer_says_so(
    provider: Provider, reply: Reply
) -> None:
    async with models_of(provider, reply, called(GOOD), **BOTH) as models:
        answer = await models.ask(QUESTION)
    assert (answer.value, answer.model) == ("card_delivery", "gpt-test-2026")
    assert names_asked(provider) == ["gpt-4.1", "gpt-4.1-mini"]


async def test_one_question_takes_no_longer_with_a_fallback_than_without(provider: Provider) -> None:
    async with models_of(provider, hang, hang, timeout=1.0, **BOTH) as models:
        with pytest.raises(ModelUnavailable, match=r"gpt-4\.1: .* within 0\.5 s; .* within (0\.[0-4]|-)"):
            await models.ask(QUESTION)


async def test_a_model_that_answers_leaves_its_fallback_alone(provider: Provider) -> None:
    async with models_of(provider, called(GOOD), **BOTH) as models:
        await models.ask(QUESTION)
    assert names_asked(provider) == ["gpt-4.1"]


# The cheaper model.


async def test_under_economy_the_cheaper_model_is_asked_and_no_dearer_one_after_it(provider: Provider) -> None:
    async with models_of(provider, called(GOOD), problem(503), cheaper="gpt-4.1-nano", **BOTH) as models:
        await models.ask(QUESTION, economy=True)
        with pytest.raises(ModelUnavailable):
            await models.ask(QUESTION, economy=True)
        dear, cheap = models.estimate(QUESTION).cost, models.estimate(QUESTION, economy=True).cost
    assert names_asked(provider) == ["gpt-4.1-nano", "gpt-4.1-nano"]
    assert dear is not None
    assert cheap is not None
    assert cheap < dear / 20


def test_a_process_without_a_model_says_what_is_missing() -> None:
    with pytest.raises(ResourceMissing, match="no Models was provided"):
        Models.of(Resources(("something else",)))
