"""What goes wrong between us and a model's provider, over a real socket, is told apart: ask again, or never again."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from tests.tools.model_provider import (
    GOOD,
    QUESTION,
    Provider,
    Reply,
    asked,
    called,
    completion,
    cut_off,
    drip,
    hang,
    http,
    problem,
    reset,
)

from eventwright.tools.asking import ask
from eventwright.tools.building import ModelSettings, build_model, close_model
from eventwright.tools.contract import NotDone, Permanent
from eventwright.tools.models import ModelAnswerInvalid, ModelMisconfigured, ModelRefused, ModelUnavailable

# What goes wrong for now: try again later.


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
async def test_an_overloaded_or_broken_provider_is_unavailable_and_may_be_asked_again(
    provider: Provider, status: int
) -> None:
    with pytest.raises(ModelUnavailable, match=f"the provider says {status}") as caught:
        await asked(provider, problem(status))
    assert caught.value.retry_after is None
    assert isinstance(caught.value, NotDone)
    assert not isinstance(caught.value, Permanent)


@pytest.mark.parametrize("status", [429, 503])
async def test_the_wait_that_the_provider_names_is_passed_on(provider: Provider, status: int) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        await asked(provider, problem(status, retry_after="17"))
    assert caught.value.retry_after == 17


async def test_the_wait_may_be_a_date(provider: Provider) -> None:
    moment = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    with pytest.raises(ModelUnavailable) as caught:
        await asked(provider, problem(429, retry_after=moment))
    assert caught.value.retry_after == pytest.approx(3600, abs=120)


async def test_the_wait_may_be_in_milliseconds_which_are_more_exact(provider: Provider) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        await asked(provider, problem(429, retry_after="1", retry_after_ms="340"))
    assert caught.value.retry_after == pytest.approx(0.34)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("soon", None), ("nan", None), ("inf", None), ("-3", 0), ("1e300", 86_400), ("Fri, 01 Jan 9999 00:00:00", 86_400)],
)
async def test_a_wait_that_makes_no_sense_does_no_harm(provider: Provider, header: str, seconds: float | None) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        await asked(provider, problem(429, retry_after=header))
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize("reply", [hang, drip])
async def test_a_provider_that_is_too_slow_is_given_up(provider: Provider, reply: Reply) -> None:
    with pytest.raises(ModelUnavailable, match=r"within 0\.3 s"):
        await asked(provider, reply, timeout=0.3)


@pytest.mark.parametrize("reply", [reset, cut_off])
async def test_a_connection_that_breaks_is_unavailable(provider: Provider, reply: Reply) -> None:
    with pytest.raises(ModelUnavailable):
        await asked(provider, reply)


async def test_nobody_at_the_address_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ModelUnavailable):
        await asked(Provider(port=port))


async def test_a_fault_is_never_retried_out_of_sight(provider: Provider) -> None:
    with pytest.raises(ModelUnavailable):
        await asked(provider, problem(500), called(GOOD))
    assert len(provider.requests) == 1


# What goes wrong with the answer: ask again.


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ('{"value": "card_delivery", "confidence": 0.9, "rea', "no JSON object"),
        ('{"value": ' + "[" * 200_000, "recursion"),
        ('{"value": ' + "9" * 5_000 + "}", "digits"),
        ("", "'value' is a required property"),
        ("[]", "'value' is a required property"),
        ({}, "'value' is a required property"),
        ({**GOOD, "value": "refund"}, r"\$.value: 'refund' is not one of"),
        ({**GOOD, "value": ["card_delivery"]}, r"\$.value"),
        ({**GOOD, "note": "more than was asked for"}, "Additional properties"),
        ({"value": "other", "confidence": 0.9}, "'reason' is a required property"),
        ({**GOOD, "confidence": 1.01}, r"\$.confidence: 1.01"),
        ({**GOOD, "confidence": -0.1}, r"\$.confidence: -0.1"),
        ({**GOOD, "confidence": "0.9"}, r"\$.confidence: '0.9' is not of type 'number'"),
        ({**GOOD, "confidence": True}, r"\$.confidence: True is not of type 'number'"),
        ({**GOOD, "confidence": None}, r"\$.confidence: None"),
        ({**GOOD, "confidence": float("nan")}, "what JSON cannot"),
        ({**GOOD, "confidence": float("inf")}, r"\$.confidence: inf"),
        ({**GOOD, "reason": "\ud800"}, "what JSON cannot"),
    ],
)
async def test_an_answer_of_another_form_is_invalid_and_may_be_asked_for_again(
    provider: Provider, arguments: object, complaint: str
) -> None:
    with pytest.raises(ModelAnswerInvalid, match=complaint) as caught:
        await asked(provider, called(arguments))
    assert not isinstance(caught.value, Permanent)


@pytest.mark.parametrize(
    "reply",
    [
        called(GOOD, name="delete_everything"),
        called(GOOD, GOOD),
        http(completion({"content": "It is about a card, I think."}, "stop")),
        http(completion({"content": json.dumps(GOOD)}, "stop")),
        http(completion({"content": ""}, "stop")),
    ],
    ids=["another function", "two answers", "prose", "JSON as prose", "nothing"],
)
async def test_an_answer_that_is_not_one_call_of_the_form_is_invalid(provider: Provider, reply: Reply) -> None:
    with pytest.raises(ModelAnswerInvalid, match="had to call 'classify' once"):
        await asked(provider, reply)


async def test_an_answer_that_was_cut_off_is_invalid_even_if_what_is_there_fits(provider: Provider) -> None:
    with pytest.raises(ModelAnswerInvalid, match="token limit"):
        await asked(provider, called(GOOD, ending="length"))


@pytest.mark.parametrize(
    "reply",
    [
        http("<html>a proxy's page</html>"),
        http("<html>a proxy's page</html>", content_type="text/html"),
        http(""),
        http({}),
        http([]),
        http("null"),
        http({"choices": None}),
        http({"choices": []}),
        http({"choices": [{"message": {}}]}),
        http({"choices": ["x"]}),
        http({"error": {"message": "out of memory"}}),
        http(completion({"content": None, "tool_calls": [{"id": "1", "type": "function"}]})),
    ],
)
async def test_a_success_that_holds_no_completion_is_invalid(provider: Provider, reply: Reply) -> None:
    with pytest.raises(ModelAnswerInvalid):
        await asked(provider, reply)


async def test_a_retry_asks_again_although_the_process_caches_models(provider: Provider) -> None:
    set_llm_cache(InMemoryCache())
    try:
        with pytest.raises(ModelAnswerInvalid):
            await asked(provider, called({**GOOD, "value": "nonsense"}))
        assert (await asked(provider, called(GOOD))).value == "card_delivery"
    finally:
        set_llm_cache(None)


# What will not get better by asking again.


@pytest.mark.parametrize(
    "reply",
    [
        http(completion({"content": None, "refusal": "I cannot help with that."}, "stop")),
        http(completion({"content": None}, "content_filter")),
        called(GOOD, ending="content_filter"),
        problem(400, "content_filter"),
    ],
    ids=["the model refuses", "filtered", "filtered while answering", "filtered before"],
)
async def test_a_refusal_is_final(provider: Provider, reply: Reply) -> None:
    with pytest.raises(ModelRefused, match="refused") as caught:
        await asked(provider, reply)
    assert isinstance(caught.value, Permanent)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_a_request_that_the_provider_does_not_accept_needs_an_operator(provider: Provider, status: int) -> None:
    with pytest.raises(ModelMisconfigured, match=f"check key, base URL and model name.*{status}") as caught:
        await asked(provider, problem(status))
    assert isinstance(caught.value, Permanent)


async def test_a_question_that_is_too_long_for_the_model_is_not_asked_again(provider: Provider) -> None:
    with pytest.raises(ModelMisconfigured):
        await asked(provider, problem(400, "context_length_exceeded"))


# The same against a fake provider that somebody else wrote.


@asynccontextmanager
async def foreign_provider() -> AsyncIterator[str]:
    """Base URL of mock-ai-api, in a process of its own on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "uvicorn", "app.openai_app:app", "--log-level", "critical"),
            *("--fd", str(taken.fileno())),
            pass_fds=[taken.fileno()],
            env={},
        )
        # The socket listens already, so the first request waits until somebody serves it.
        try:
            async with httpx.AsyncClient(timeout=30) as client:
                await client.get(f"http://127.0.0.1:{port}/v1/models")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            await process.wait()


async def test_the_faults_of_a_foreign_fake_provider_are_told_apart() -> None:
    faults = {
        "gpt-4.1:mock-429": ModelUnavailable,
        "gpt-4.1:mock-500": ModelUnavailable,
        "gpt-4.1:mock-503": ModelUnavailable,
        "gpt-4.1:mock-400": ModelMisconfigured,
        "gpt-4.1:mock-401": ModelMisconfigured,
        "gpt-4.1:mock-bad-tool-json": ModelAnswerInvalid,
        "gpt-4.1:mock-tool-call": ModelAnswerInvalid,  # it calls a function that nobody offered
        "gpt-4.1:mock-text": ModelAnswerInvalid,
    }
    async with foreign_provider() as base_url:
        for name, fault in faults.items():
            model = build_model(ModelSettings(model=name, base_url=base_url))
            with pytest.raises(fault) as caught:
                await ask(model, QUESTION)
            assert caught.type is fault, name
            await close_model(model)
