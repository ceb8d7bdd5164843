"""Several keys for one provider: a refused one is left alone for a while, and no key is ever shown. Refusals first."""

from __future__ import annotations

import asyncio
import logging

import httpx2
import pytest
from tests.tools.model_provider import GOOD, QUESTION, Provider, Reply, called, http, models_of, problem

from eventwright.tools.keys import KeyRing
from eventwright.tools.models import ModelMisconfigured, ModelUnavailable

THREE = {"api_key": "sk-first, sk-second ,sk-third"}
FIRST, SECOND, THIRD = (f"bearer sk-{name}" for name in ("first", "second", "third"))


# What the next key does not help with.


@pytest.mark.parametrize("status", [401, 403])
async def test_when_every_key_is_refused_an_operator_has_to_act(provider: Provider, status: int) -> None:
    async with models_of(provider, *[problem(status)] * 3, **THREE) as models:
        with pytest.raises(ModelMisconfigured, match=f"check key, base URL and model name.*{status}"):
            await models.ask(QUESTION)
    assert provider.keys == [FIRST, SECOND, THIRD]


async def test_when_every_key_has_used_up_its_quota_the_question_is_asked_again_later(provider: Provider) -> None:
    async with models_of(provider, *[problem(429, "insufficient_quota", retry_after="9")] * 3, **THREE) as models:
        with pytest.raises(ModelUnavailable) as caught:
            await models.ask(QUESTION)
    assert caught.value.retry_after == 9
    assert provider.keys == [FIRST, SECOND, THIRD]


@pytest.mark.parametrize(
    "reply",
    [
        problem(429),
        problem(429, "rate_limit_exceeded"),
        http("<html>", 429),
        http({"error": ["insufficient_quota"]}, 429),
        http({"error": {"code": ["insufficient_quota"]}}, 429),
        problem(500),
        problem(503),
        problem(404),
        problem(400),
    ],
)
async def test_what_is_no_fault_of_the_key_is_not_asked_again_with_another(provider: Provider, reply: Reply) -> None:
    async with models_of(provider, reply, **THREE) as models:
        with pytest.raises((ModelUnavailable, ModelMisconfigured)):
            await models.ask(QUESTION)
    assert provider.keys == [FIRST]


async def test_one_key_is_refused_once(provider: Provider) -> None:
    async with models_of(provider, problem(401), api_key="sk-only") as models:
        with pytest.raises(ModelMisconfigured):
            await models.ask(QUESTION)
    assert provider.keys == ["bearer sk-only"]


async def test_a_refused_key_is_named_in_the_log_by_its_place_and_never_shown(
    provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with models_of(provider, problem(401), called(GOOD), **THREE) as models:
        await models.ask(QUESTION)
    assert "key 1 of 3 for 127.0.0.1 was refused (401)" in caplog.text
    assert "sk-" not in caplog.text
    assert "sk-" not in repr(models)


# What it helps with.


@pytest.mark.parametrize(
    "refusal",
    [
        problem(401),
        problem(403),
        problem(429, "insufficient_quota"),
        http({"error": {"message": "x", "type": "insufficient_quota"}}, 429),
    ],
)
async def test_the_next_key_answers_in_the_same_call_and_the_refused_one_is_not_tried_again(
    provider: Provider, refusal: Reply
) -> None:
    async with models_of(provider, refusal, called(GOOD), called(GOOD), **THREE) as models:
        assert (await models.ask(QUESTION)).value == "card_delivery"
        await models.ask(QUESTION)
    assert provider.keys == [FIRST, SECOND, SECOND]
    assert provider.requests[0] == provider.requests[1]


async def test_questions_asked_at_once_find_the_good_key_all(provider: Provider) -> None:
    async def by_key(writer: asyncio.StreamWriter) -> None:
        await (called(GOOD) if provider.keys[-1] == SECOND else problem(401))(writer)

    async with models_of(provider, *[by_key] * 40, **THREE) as models:
        answers = await asyncio.gather(*(models.ask(QUESTION) for _ in range(20)))
    assert {answer.value for answer in answers} == {"card_delivery"}
    assert THIRD not in provider.keys


class TestTime:
    """One ring and its clock, against a provider that takes some of its keys."""

    good: str
    tried: list[str]

    async def ask(self, ring: KeyRing) -> int:
        def answer(request: httpx2.Request) -> httpx2.Response:
            key = request.headers["authorization"].removeprefix("Bearer ")
            self.tried.append(key)
            return httpx2.Response(200 if key == self.good else 401)

        self.tried = []
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer), auth=ring) as client:
            return (await client.get("https://models.example.com")).status_code

    async def test_a_refused_key_is_tried_again_when_it_has_rested(self) -> None:
        time = 0.0
        ring = KeyRing(["a", "b"], rest=600, clock=lambda: time)
        self.good = "b"
        await self.ask(ring)
        time, self.good = 599.0, "a"
        assert await self.ask(ring) == 401
        assert self.tried == ["b"]
        time = 600.0
        assert await self.ask(ring) == 200
        assert self.tried == ["a"]

    async def test_while_all_of_them_rest_the_one_that_has_rested_longest_is_tried(self) -> None:
        time = 0.0
        ring = KeyRing(["a", "b"], rest=600, clock=lambda: time)
        self.good = "b"
        await self.ask(ring)
        time, self.good = 10.0, "none"
        assert await self.ask(ring) == 401
        time = 20.0
        tried = []
        for _ in range(3):
            time += 1
            await self.ask(ring)
            tried += self.tried
        assert tried == ["a", "b", "a"]
        self.good = "b"
        assert await self.ask(ring) == 200
        assert self.tried == ["b"]
        assert await self.ask(ring) == 200
        assert self.tried == ["b"], "it rests no more"
