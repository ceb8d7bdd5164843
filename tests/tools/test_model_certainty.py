"""Where a provider tells how probable its words were, a closed answer is no surer than they. Malformed ones first."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_openai import ChatOpenAI
from tests.tools.model_provider import (
    GOOD,
    QUESTION,
    Provider,
    called,
    completion,
    http,
    models_of,
    problem,
    spoken,
    token,
)

from eventwright.tools.certainty import probability_of_value
from eventwright.tools.models import (
    Answer,
    ModelAnswerInvalid,
    ModelMisconfigured,
    ModelRefused,
    ModelUnavailable,
    Question,
)

SAID = json.dumps(GOOD)
#: The tokens of GOOD, in which the value has a probability of e ** -1.
TOKENS = [
    token('{"value": "'),
    token("card", -0.5),
    token("_delivery", -0.25),
    token('",', -0.25),
    token(' "confidence": 0.9, "reason": "it waits for a card"}'),
]
CAFE = ["café", "cafe", "caf"]


async def asked(provider: Provider, said: str, tokens: object, question: Question = QUESTION) -> Answer:
    """Ask with logprobs; the provider says this in these tokens."""
    logprobs = {"content": tokens, "refusal": None}
    async with models_of(provider, spoken(said, logprobs), logprobs=True) as models:
        return await models.ask(question)


def sure_of(*probabilities: float) -> Any:
    return pytest.approx(math.prod(probabilities))


# What is malformed is as if it was not there.


def with_first(**more: object) -> list[dict[str, object]]:
    """The tokens, of which the first of the value is changed."""
    return [TOKENS[0], TOKENS[1] | more, *TOKENS[2:]]


MALFORMED: list[Any] = [
    None,
    [],
    TOKENS[1:],
    TOKENS[:-1],
    [TOKENS[0], *TOKENS[2:]],
    [*TOKENS[:2], TOKENS[1], *TOKENS[2:]],
    list(reversed(TOKENS)),
    "tokens",
    [None],
    [[]],
    ["card"],
    5,
    {"card": -0.5},
    with_first(logprob=math.nan),
    with_first(logprob=-math.inf),
    with_first(logprob=math.inf),
    with_first(logprob=0.01),
    with_first(logprob="-0.5"),
    with_first(logprob=None),
    with_first(logprob=False),
    with_first(logprob=-(10**400)),
    with_first(bytes=[99, 97]),
    with_first(bytes=[999]),
    with_first(bytes=[-1]),
    with_first(bytes=["c"]),
    with_first(bytes="card"),
    with_first(bytes=10**12),
    with_first(bytes=None, token="crad"),
    with_first(bytes=None, token=None),
    with_first(bytes=None, token="\ud800"),
    [TOKENS[0], {"token": "card"}, *TOKENS[2:]],
]


@pytest.mark.parametrize("tokens", MALFORMED)
def test_malformed_tokens_have_no_probability(tokens: object) -> None:
    assert probability_of_value(SAID, tokens) is None


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # the client is as surprised as we are
async def test_malformed_probabilities_leave_what_the_model_says_of_itself(provider: Provider) -> None:
    read_as_numbers = [with_first(logprob="-0.5"), with_first(logprob=False)]  # by the client
    tokens = [one for one in MALFORMED if one not in read_as_numbers]
    bad = ["none", [], *({"content": one, "refusal": None} for one in tokens)]
    async with models_of(provider, *(spoken(SAID, logprobs) for logprobs in bad), logprobs=True) as models:
        for logprobs in bad:
            answer = await models.ask(QUESTION)
            assert (answer.value, answer.confidence) == ("card_delivery", 0.9), logprobs
            assert (answer.stated_confidence, answer.token_confidence) == (0.9, None), logprobs


async def test_a_server_that_does_not_know_log_probabilities_is_asked_without_harm(provider: Provider) -> None:
    body = completion({"content": SAID}, "stop")
    async with models_of(provider, http(body), logprobs=True) as models:
        assert (await models.ask(QUESTION)).confidence == 0.9


async def test_a_provider_that_refuses_to_tell_them_says_which_setting_to_look_at(provider: Provider) -> None:
    async with models_of(provider, problem(400), logprobs=True) as models:
        with pytest.raises(ModelMisconfigured, match="EVENTWRIGHT_MODEL_LOGPROBS=false"):
            await models.ask(QUESTION)


# An answer in the text may fail in as many ways as one in a call.


async def test_a_text_that_is_not_the_form_is_an_invalid_answer(provider: Provider) -> None:
    bad: dict[str, str] = {
        "It is about a card.": "no JSON object",
        "": "no JSON object",
        f"```json\n{SAID}\n```": "no JSON object",
        SAID[:-1]: "no JSON object",
        SAID + SAID: "no JSON object",
        '{"value": ' + "[" * 200_000: "no JSON object",
        "[]": "is not of type 'object'",
        json.dumps({**GOOD, "value": "refund"}): "is not one of",
        json.dumps({**GOOD, "confidence": 2}): r"\$.confidence",
        json.dumps({**GOOD, "confidence": math.nan}): "what JSON cannot",
        json.dumps({**GOOD, "note": ""}): "Additional properties",
    }
    async with models_of(provider, *map(spoken, bad), logprobs=True) as models:
        for complaint in bad.values():
            with pytest.raises(ModelAnswerInvalid, match=complaint):
                await models.ask(QUESTION)


async def test_in_the_text_too_a_cut_is_invalid_and_a_refusal_final(provider: Provider) -> None:
    script = [
        spoken(SAID, ending="length"),
        spoken(SAID, ending="content_filter"),
        spoken("", refusal="I cannot help with that."),
        problem(503),
        called(GOOD),
    ]
    async with models_of(provider, *script, logprobs=True) as models:
        for error in (ModelAnswerInvalid, ModelRefused, ModelRefused, ModelUnavailable, ModelAnswerInvalid):
            with pytest.raises(error) as caught:
                await models.ask(QUESTION)
            assert caught.type is error


# Where the value stands, and what it is made of.


async def test_an_answer_is_no_surer_than_its_words(provider: Provider) -> None:
    answer = await asked(provider, SAID, TOKENS)
    assert answer.token_confidence == sure_of(math.exp(-1))
    assert (answer.confidence, answer.stated_confidence) == (answer.token_confidence, 0.9)


async def test_a_model_that_doubts_itself_is_believed_however_sure_its_words_are(provider: Provider) -> None:
    said = '{"value": "card_delivery", "confidence": 0.3, "reason": ""}'
    answer = await asked(provider, said, [token(said, -0.001)])
    assert answer.token_confidence == sure_of(math.exp(-0.001))
    assert (answer.confidence, answer.stated_confidence) == (0.3, 0.3)


async def test_words_that_are_impossible_have_no_probability_left(provider: Provider) -> None:
    assert (await asked(provider, SAID, with_first(logprob=-9999.0))).confidence == 0


async def test_thoughts_before_the_answer_and_marks_after_it_do_not_count(provider: Provider) -> None:
    thoughts = [token("I might say ", -9), token(SAID, -9), token(", or not. ", -9)]
    answer = await asked(provider, SAID, [*thoughts, *TOKENS, token("<|end|>", -9), token("", -9)])
    assert answer.token_confidence == sure_of(math.exp(-1))


@pytest.mark.parametrize(
    ("before", "value", "after"),
    [
        # The tokens of the value have -1 each, all others -9.
        (['{"reason": "', "card_delivery", '", "value": "'], ["card_delivery", '"'], [', "confidence": 1}']),
        (['{"reason": "\\"value\\":\\"other\\"",', '"value"', ' :\n\t"'], ["other", '"'], [', "confidence": 1}']),
        (['{"value":"other","reason":"', "card_delivery", '","value":'], ['"card_delivery"'], [',"confidence":1}']),
        (['{"confidence": 1, "reason": "value",'], [' "value": "card', '_delivery"}'], []),
        (['{"value": ', '"'], ["card_delivery", '"'], [', "confidence": 1, "reason": "value"}']),
    ],
)
async def test_the_value_is_found_by_its_place_and_not_by_its_words(
    provider: Provider, before: list[str], value: list[str], after: list[str]
) -> None:
    spelled = [(value[0], -1), ("", -9), *((text, -1) for text in value[1:])]
    tokens = [*((text, -9) for text in before), *spelled, *((text, -9) for text in after)]
    answer = await asked(provider, "".join(text for text, _ in tokens), [token(*one) for one in tokens])
    assert answer.token_confidence == sure_of(math.exp(-len(value)))


@pytest.mark.parametrize(
    "pieces",
    [
        ["caf", "é"],
        ["caf", "\\u00e9"],
        ["c", "af\\", "u00", "e9"],
        ["caf", b"\xc3", b"\xa9"],
    ],
)
async def test_a_value_may_be_spread_over_tokens_in_any_spelling(provider: Provider, pieces: list[Any]) -> None:
    question = Question(purpose="choose", instructions="", material="", schema={"type": "string", "enum": CAFE})
    around = ('{"reason": "ça", "value": "', '", "confidence": 1}')
    tokens = [
        token(around[0], -9),
        *(token(piece, -0.5) for piece in pieces),
        token('"', -0.5),
        token(around[1][1:], -9),
    ]
    said = b"".join(piece if isinstance(piece, bytes) else piece.encode() for piece in pieces).decode()
    answer = await asked(provider, said.join(around), tokens, question)
    assert answer.value == "café"
    assert answer.token_confidence == sure_of(math.exp(-0.5 * (len(pieces) + 1)))


async def test_tokens_without_bytes_are_read_as_text(provider: Provider) -> None:
    answer = await asked(provider, SAID, [one | {"bytes": None} for one in TOKENS])
    assert answer.token_confidence == sure_of(math.exp(-1))


async def test_where_one_answer_begins_another_its_end_decides(provider: Provider) -> None:
    schema = {"enum": ["card", "card_delivery"]}
    question = Question(purpose="classify", instructions="", material="", schema=schema)
    tokens = [token('{"value": "'), token("card", -0.01), token('", ', -2.0), token('"confidence": 1, "reason": ""}')]
    said = "".join(str(one["token"]) for one in tokens)
    assert (await asked(provider, said, tokens, question)).confidence == sure_of(math.exp(-2.01))


@given(st.text(), st.text(), st.booleans(), st.data())
def test_whatever_is_said_the_tokens_of_the_value_are_those_that_count(
    value: str, reason: str, plain: bool, data: st.DataObject
) -> None:
    fields = data.draw(st.permutations([("value", value), ("confidence", 0.5), ("reason", reason), (reason, value)]))
    last = max(number for number, (name, _) in enumerate(fields) if name == "value")
    pieces: list[tuple[str, float]] = []
    for number, field in enumerate(fields):
        head, body = (json.dumps(part, ensure_ascii=plain) for part in field)
        pieces.append(("," if pieces else "{", -9))
        pieces += [(f"{head}:{body[:1]}", -9), *((sign, -0.5 if number == last else -9) for sign in body[1:])]
    pieces.append(("}", -9))
    said = "".join(text for text, _ in pieces)
    raw = [(bytes([byte]), logprob / len(text.encode())) for text, logprob in pieces for byte in text.encode()]
    found = probability_of_value(said, [token(*one) for one in raw])
    signs = json.dumps(fields[last][1], ensure_ascii=plain)[1:]
    assert found == sure_of(math.exp(-0.5 * len(signs)))


# What is asked for.


async def test_closed_questions_are_asked_in_a_form_whose_tokens_have_probabilities(provider: Provider) -> None:
    await asked(provider, SAID, TOKENS)
    request = provider.requests[0]
    assert request["logprobs"] is True
    assert "tools" not in request
    form = request["response_format"]["json_schema"]
    assert (request["response_format"]["type"], form["name"], form["strict"]) == ("json_schema", "classify", True)
    assert form["schema"]["properties"]["value"] == QUESTION.schema
    assert form["schema"]["required"] == list(form["schema"]["properties"])
    assert "JSON object" in request["messages"][0]["content"]


@pytest.mark.parametrize(
    ("schema", "value"),
    [({"type": "string"}, "Dear Ann"), ({"enum": [1, 2]}, 2), ({"enum": ["one", 2]}, 2), ({"type": "boolean"}, True)],
)
async def test_any_other_question_is_asked_as_before(provider: Provider, schema: dict[str, Any], value: object) -> None:
    question = Question(purpose="draft", instructions="", material="", schema=schema)
    async with models_of(provider, called({**GOOD, "value": value}, name="draft"), logprobs=True) as models:
        answer = await models.ask(question)
    assert (answer.confidence, answer.stated_confidence, answer.token_confidence) == (0.9, 0.9, None)
    assert "logprobs" not in provider.requests[0]
    assert "tools" in provider.requests[0]


async def test_nobody_is_asked_for_probabilities_unless_they_are_wanted(provider: Provider) -> None:
    async with models_of(provider, called(GOOD)) as models:
        assert (await models.ask(QUESTION)).token_confidence is None
    assert "logprobs" not in provider.requests[0]


async def test_a_model_of_the_newer_responses_dialect_is_asked_as_before(provider: Provider) -> None:
    call = {"type": "function_call", "id": "f", "call_id": "c", "name": "classify", "arguments": SAID}
    body = {
        "id": "r",
        "object": "response",
        "created_at": 1,
        "model": "gpt-5-pro",
        "status": "completed",
        "output": [call],
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "tools": [],
    }
    async with models_of(provider, http(body), model="gpt-5-pro", logprobs=True) as models:
        assert isinstance(models.primary, ChatOpenAI)
        assert (await models.ask(QUESTION)).confidence == 0.9
    assert provider.paths == ["/v1/responses"]
    assert provider.requests[0]["max_output_tokens"] == 2048
