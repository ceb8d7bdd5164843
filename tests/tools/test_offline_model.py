"""The offline model says what it is, is unsure when it does not know, and right when it is sure."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from eventwright.tools.asking import ask
from eventwright.tools.models import Answer, ModelRefused, Question
from eventwright.tools.offline_model import NAME, REPLIES, TICKET_RULES, OfflineModel

TICKETS = Path(__file__).parents[1] / "data" / "tickets"
TYPES = sorted(TICKET_RULES)
SURE = 0.8


async def asked(purpose: str, material: str, schema: dict[str, Any]) -> Answer:
    question = Question(purpose=purpose, instructions="Judge the message.", material=material, schema=schema)
    return await ask(OfflineModel(), question)


async def classified(material: str) -> Answer:
    return await asked("classify", material, {"type": "string", "enum": TYPES})


async def prioritised(message: str) -> Answer:
    return await asked("choose", f"message: {message}", {"enum": ["low", "normal", "high", "urgent"]})


def messages(name: str) -> list[dict[str, str]]:
    with (TICKETS / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# It knows what it does not know.


async def test_it_is_unsure_of_messages_that_are_foreign_to_a_bank() -> None:
    about_a_bank = json.loads((TICKETS / "intent_types.json").read_text())["clinc150_about_a_bank"]
    foreign = [row["text"] for row in messages("clinc150_sample.csv") if row["intent"] not in about_a_bank]
    sure = [text for text in foreign if (await classified(text)).confidence >= SURE]
    assert len(foreign) == 78
    assert len(sure) <= 2, sure


async def test_it_is_unsure_of_messages_that_are_out_of_scope() -> None:
    outside = [row["text"] for row in messages("clinc150_sample.csv") if row["intent"] == "oos"]
    assert [text for text in outside if (await classified(text)).confidence >= 0.5] == []


@pytest.mark.parametrize(
    "message",
    [
        "do i need a visa to visit brazil",
        "i lost my phone somewhere in the house",
        "is my vacation request still pending",
        "convert 5 kilometers for me",
        "what is my salary after taxes",
        "which countries border france",
        "change your name to jarvis",
        "cancel my reservation at the steak house",
        "where is my package",
        "call my wife",
        "",
        "?!",
        "\x00 \ud83d\ude00 𝕮𝖆𝖗𝖉",
    ],
)
async def test_words_that_a_bank_uses_too_do_not_make_it_sure(message: str) -> None:
    assert (await classified(message)).confidence < SURE


async def test_a_message_that_speaks_of_two_things_leaves_it_unsure() -> None:
    answer = await classified("My card was stolen, and I also want a refund for the shoes.")
    assert answer.confidence < SURE


async def test_values_that_it_has_no_rules_for_are_guessed_by_their_words_without_much_confidence() -> None:
    answer = await asked("classify", "the green one, please", {"enum": ["red", "green", "light_blue"]})
    assert (answer.value, answer.confidence) == ("green", 0.5)
    answer = await asked("choose", "the mauve one", {"enum": ["red", 7, None]})
    assert (answer.value, answer.confidence) == ("red", 0)


async def test_a_type_that_is_no_possible_answer_leaves_it_unsure() -> None:
    answer = await asked("classify", "I want a refund", {"enum": ["card_delivery", "card_problem", "other"]})
    assert answer.value == "other"
    assert answer.confidence <= 0.5


async def test_what_it_cannot_answer_it_refuses_and_says_what_to_do() -> None:
    with pytest.raises(ModelRefused, match="set OPENAI_API_KEY or OPENAI_BASE_URL"):
        await asked("extract", "1 pen 2.50", {"type": "object", "properties": {"total": {"type": "number"}}})


async def test_a_text_that_nobody_made_a_template_for_is_only_a_quotation() -> None:
    answer = await asked("summarise", "A long story.", {"type": "string"})
    assert (answer.value, answer.confidence) == ("A long story.", 0.1)


async def test_without_a_question_it_says_what_it_is() -> None:
    reply = await OfflineModel().ainvoke([HumanMessage("Hello, who are you?")])
    assert NAME in reply.text
    assert not reply.tool_calls


# It is right when it is sure.


async def test_when_it_is_sure_of_a_ticket_type_it_is_nearly_always_right() -> None:
    types = json.loads((TICKETS / "intent_types.json").read_text())["banking77"]
    rows = messages("banking77_train.csv")[::5]
    answers = [(types[row["category"]], await classified(row["text"])) for row in rows]
    sure = [(wanted, answer.value) for wanted, answer in answers if answer.confidence >= SURE]
    assert len(rows) == 2001
    assert len(sure) / len(rows) >= 0.70
    assert sum(wanted == value for wanted, value in sure) / len(sure) >= 0.94


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("My new card still hasn’t arrived", "card_delivery"),
        ("My card is not working any more", "card_problem"),
        ("Why is my top-up still pending?", "payment_problem"),
        ("WHY WAS I CHARGED A FEE???", "charges_and_fees"),
        ("I would like a refund for my purchase", "refund_request"),
        ("I forgot my passcode", "identity_and_account"),
        ("Your exchange rate is wrong", "exchange_rates"),
        ("Which countries do you support?", "other"),
    ],
)
async def test_a_plain_message_gets_its_type_and_the_words_that_said_so(message: str, kind: str) -> None:
    answer = await classified(f"customer: Ann\nmessage: {message}")
    assert answer.value == kind
    assert answer.confidence >= SURE
    assert answer.reason.startswith(f"{NAME}: {kind}, for `")


@pytest.mark.parametrize(
    ("message", "priority"),
    [
        ("My wallet was stolen and I lost my card, please help", "urgent"),
        ("There is fraud on my account!", "urgent"),
        ("How do I unlock it? I am locked out of my account", "urgent"),
        ("The machine has swallowed my card", "high"),
        ("I did not make this payment", "high"),
        ("How do I change my address?", "low"),
    ],
)
async def test_an_emergency_goes_before_a_curiosity(message: str, priority: str) -> None:
    answer = await prioritised(message)
    assert answer.value == priority
    assert answer.confidence >= 0.75


async def test_a_message_without_a_mark_is_normal_and_it_is_not_sure() -> None:
    answer = await prioritised("Please look at my account.")
    assert (answer.value, answer.confidence) == ("normal", 0.5)


@pytest.mark.parametrize("kind", REPLIES)
async def test_there_is_a_polite_draft_for_every_type(kind: str) -> None:
    material = f"type: {kind}\ncustomer: Ann Lee\nmessage: please help\ntype: refund_request"
    answer = await asked("draft", material, {"type": "string"})
    assert answer.value.startswith(f"Dear Ann Lee,\n\n{REPLIES[kind]}")
    assert answer.confidence == 0.9


@pytest.mark.parametrize("material", ["", "no lines at all", "Type: holidays\nMessage: hello", "message: type: other"])
async def test_a_draft_for_an_unknown_type_is_general_and_unsure(material: str) -> None:
    answer = await asked("draft", material, {"type": "string"})
    assert answer.value.startswith(f"Hello,\n\n{REPLIES['other']}")
    assert answer.confidence == 0.4


async def test_the_lines_of_the_material_may_be_written_freely() -> None:
    answer = await asked("draft", "  TYPE :  Card Delivery \nCustomer:Bo", {"type": "string"})
    assert answer.value.startswith(f"Dear Bo,\n\n{REPLIES['card_delivery']}")


# It is a model like any other.


async def test_the_same_question_has_the_same_answer_and_says_who_gave_it() -> None:
    first, second = await classified("Where is my new card?"), await classified("Where is my new card?")
    assert (first.value, first.confidence, first.reason) == (second.value, second.confidence, second.reason)
    assert first.model == NAME


async def test_its_tokens_are_words() -> None:
    reply = await OfflineModel().ainvoke([HumanMessage("one two three")])
    assert reply.usage_metadata is not None
    assert reply.usage_metadata["input_tokens"] == 3
    assert reply.usage_metadata["output_tokens"] == len(reply.text.split())
