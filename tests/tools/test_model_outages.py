"""A model whose provider is away is not asked again and again; another one is, if there is one. Refusals first."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from tests.tools.model_provider import (
    GOOD,
    QUESTION,
    Provider,
    Reply,
    called,
    cut_off,
    hang,
    http,
    models_of,
    names_asked,
    problem,
    reset,
)
from tests.virtual_time import in_virtual_time, now

from eventwright.tools.breaker import ProviderDown, Tolerance
from eventwright.tools.building import Models
from eventwright.tools.contract import Resources
from eventwright.tools.limits import Limits
from eventwright.tools.models import (
    Answer,
    ModelAnswerInvalid,
    ModelDown,
    ModelMisconfigured,
    ModelRefused,
    ModelUnavailable,
)
from eventwright.tools.offline_model import OfflineModel
from eventwright.tools.providers import Providers

BOTH = {"model": "gpt-4.1", "fallback": "gpt-4.1-mini"}


@pytest.mark.parametrize("reply", [problem(500), problem(429), problem(529), reset, cut_off])
async def test_after_three_faults_in_a_row_the_provider_is_left_alone(provider: Provider, reply: Reply) -> None:
    async with models_of(provider, reply, reply, reply, called(GOOD)) as models:
        for _ in range(2):
            with pytest.raises(ModelUnavailable) as unavailable:
                await models.ask(QUESTION)
            assert not isinstance(unavailable.value, ModelDown)
        for _ in range(3):
            with pytest.raises(ModelDown, match=rf"^gpt-4\.1 at 127\.0\.0\.1:{provider.port} is down: ") as down:
                await models.ask(QUESTION)
    assert len(provider.requests) == 3
    assert isinstance(down.value, ModelUnavailable)
    assert isinstance(down.value, ProviderDown)
    assert 0 < down.value.retry_after <= 5


async def test_a_provider_that_hangs_is_left_alone_as_well(provider: Provider) -> None:
    async with models_of(provider, hang, hang, hang, timeout=0.2) as models:
        for _ in range(3):
            with pytest.raises(ModelUnavailable):
                await models.ask(QUESTION)
        with pytest.raises(ModelDown, match=r"within 0\.2 s"):
            await models.ask(QUESTION)
    assert len(provider.requests) == 3


async def test_the_wait_that_the_provider_names_is_kept(provider: Provider) -> None:
    async with models_of(provider, *[problem(429, retry_after="50")] * 3) as models:
        for _ in range(3):
            with pytest.raises(ModelUnavailable):
                await models.ask(QUESTION)
        with pytest.raises(ModelDown) as down:
            await models.ask(QUESTION)
    assert 40 < down.value.retry_after <= 50


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (problem(400, "content_filter"), ModelRefused),
        (called({**GOOD, "value": "refund"}), ModelAnswerInvalid),
        (http("<html>"), ModelAnswerInvalid),
        (problem(401), ModelMisconfigured),
    ],
)
async def test_a_provider_that_answers_whatever_it_says_is_there(
    provider: Provider, reply: Reply, error: type[Exception]
) -> None:
    async with models_of(provider, *[reply] * 5, called(GOOD)) as models:
        for _ in range(5):
            with pytest.raises(error):
                await models.ask(QUESTION)
        await models.ask(QUESTION)


async def test_when_the_fallback_is_down_too_the_first_of_them_that_may_be_asked_again_is_waited_for(
    provider: Provider,
) -> None:
    script = [problem(500), problem(500, retry_after="60")] * 3
    async with models_of(provider, *script, **BOTH) as models:
        for _ in range(3):
            with pytest.raises(ModelUnavailable):
                await models.ask(QUESTION)
        with pytest.raises(ModelDown, match=r"^gpt-4\.1: .*; its fallback gpt-4\.1-mini: ") as down:
            await models.ask(QUESTION)
    assert len(provider.requests) == 6
    assert 0 < down.value.retry_after <= 5
    here = f"127.0.0.1:{provider.port}"
    assert down.value.providers == (f"gpt-4.1 at {here}", f"gpt-4.1-mini at {here}")


async def test_a_fallback_that_fails_for_now_while_the_model_is_down_is_an_attempt(provider: Provider) -> None:
    script = [problem(500), called(GOOD)] * 3
    async with models_of(provider, *script, problem(500), **BOTH) as models:
        for _ in range(3):
            await models.ask(QUESTION)
        with pytest.raises(ModelUnavailable) as caught:
            await models.ask(QUESTION)
    assert not isinstance(caught.value, ModelDown)


async def test_a_fallback_whose_name_is_wrong_lets_the_model_be_waited_for(provider: Provider) -> None:
    script = [problem(503), problem(404)] * 3
    async with models_of(provider, *script, problem(404), **BOTH) as models:
        for _ in range(2):
            with pytest.raises(ModelUnavailable):
                await models.ask(QUESTION)
        for _ in range(2):
            with pytest.raises(ModelDown, match="does not accept the request"):
                await models.ask(QUESTION)


async def test_the_fallback_answers_at_once_while_the_model_is_known_to_be_down(provider: Provider) -> None:
    script = [problem(500), called(GOOD)] * 3
    async with models_of(provider, *script, *[called(GOOD)] * 5, **BOTH) as models:
        for _ in range(8):
            assert (await models.ask(QUESTION)).value == "card_delivery"
    assert names_asked(provider) == ["gpt-4.1", "gpt-4.1-mini"] * 3 + ["gpt-4.1-mini"] * 5


async def test_when_the_provider_is_back_it_is_asked_as_before(provider: Provider) -> None:
    time = 0.0
    async with models_of(provider, *[problem(500)] * 3, *[called(GOOD)] * 2) as made:
        models = replace(made, providers=Providers(clock=lambda: time))
        for _ in range(3):
            with pytest.raises(ModelUnavailable):
                await models.ask(QUESTION)
        with pytest.raises(ModelDown):
            await models.ask(QUESTION)
        time = 5.0
        await models.ask(QUESTION)
        await models.ask(QUESTION)
    assert len(provider.requests) == 5


async def test_all_tools_of_a_process_know_the_same_of_its_providers(provider: Provider) -> None:
    async with models_of(provider, problem(500)) as models:
        resources = Resources((models, Providers(Tolerance(failures=1))))
        with pytest.raises(ModelDown):
            await Models.of(resources).ask(QUESTION)
        with pytest.raises(ModelDown):
            await Models.of(resources).ask(QUESTION)
        bare = Resources((*resources.items, models.primary))
        with pytest.raises(ModelDown):
            await Models.of(bare).ask(QUESTION)
    assert len(provider.requests) == 1


# The limits of a provider.


async def test_a_provider_is_asked_no_more_questions_at_once_than_the_limit_says(provider: Provider) -> None:
    under_way = most = 0

    async def counts(writer: asyncio.StreamWriter) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        await called(GOOD)(writer)

    async with models_of(provider, *[counts] * 12, limits=Limits(at_once=3)) as models:
        await asyncio.gather(*(models.ask(QUESTION) for _ in range(12)))
    assert most == 3


class Slow:
    """Asks no model, but takes as long as one, and as many tokens."""

    def __init__(
        self, *, seconds: float = 0.0, error: Exception | None = None, read: int = 1, written: int = 1
    ) -> None:
        self.seconds, self.error = seconds, error
        self.answer = Answer(
            value="x", confidence=1, reason="", model="m", input_tokens=read, output_tokens=written, seconds=0
        )
        #: The model, the time at which it was asked, and how long it might take.
        self.asked: list[tuple[Any, float, float]] = []

    async def __call__(self, model: Any, seconds: float) -> Answer:
        self.asked.append((model, now(), seconds))
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return self.answer


@in_virtual_time
async def test_the_time_in_which_a_question_waits_for_its_turn_is_not_the_providers() -> None:
    models = Models(OfflineModel(), timeout=30, limits=Limits(at_once=1))
    slow = Slow(seconds=29)
    await asyncio.gather(*(models.first(slow, read=lambda _: 1, economy=False) for _ in range(4)))
    assert [(when, left) for _, when, left in slow.asked] == [(0, 30), (29, 30), (58, 30), (87, 30)]


@in_virtual_time
async def test_a_fallback_has_what_the_model_left_of_the_time_however_long_both_waited() -> None:
    fallback = OfflineModel()
    models = Models(OfflineModel(), fallback=fallback, timeout=30, limits=Limits(requests_per_minute=1))
    slow = Slow(seconds=0.0, error=ModelUnavailable("busy"))
    with pytest.raises(ModelUnavailable):
        await models.first(slow, read=lambda _: 1, economy=False)
    [(_, first, half), (_, second, left)] = slow.asked
    assert (first, half) == (0, 15)
    assert second == pytest.approx(60)
    assert left == pytest.approx(30, abs=1)


@in_virtual_time
async def test_tokens_are_set_aside_as_estimated_and_counted_as_the_answer_says() -> None:
    models = Models(OfflineModel(), max_tokens=400, limits=Limits(tokens_per_minute=1000))
    slow = Slow(seconds=1, read=60, written=40)
    await asyncio.gather(*(models.first(slow, read=lambda _: 100, economy=False) for _ in range(4)))
    # Two fit at once (500 each). Of each, 400 come back, which is enough for one more.
    assert [when for _, when, _ in slow.asked] == pytest.approx([0, 0, 1, 2])


@in_virtual_time
async def test_tokens_that_nobody_counted_are_those_that_were_set_aside() -> None:
    models = Models(OfflineModel(), max_tokens=400, limits=Limits(tokens_per_minute=1000))
    slow = Slow(seconds=1, read=0, written=0)
    await asyncio.gather(*(models.first(slow, read=lambda _: 600, economy=False) for _ in range(2)))
    assert [when for _, when, _ in slow.asked] == pytest.approx([0, 60])
