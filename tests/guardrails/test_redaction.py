"""Redaction: what is found, what must never be touched, and that hostile text neither stops it nor slips through."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eventwright.guardrails.detectors import CARD, PERSONAL, Detector
from eventwright.guardrails.redaction import Redaction, Redactor
from eventwright.runs.event import digest_of, new_id

EVERYTHING = Redactor(PERSONAL)
KEY = "sk-live-8d1fA2b93c"

ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()))
#: Text that comes close to what is looked for.
CLOSE = st.text(alphabet="0123456789 -+()./@%aDE\u200b\u00a0\uff14\uff20:,_\n", max_size=80)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | ANY_TEXT,
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(ANY_TEXT, inside, max_size=4),
    max_leaves=12,
)


# -- nothing stops it --------------------------------------------------------------------------------------------------


@given(ANY_TEXT | CLOSE)
@example("\ud800@\udfff.com 4111 1111 1111 1111")
def test_no_text_at_all_stops_the_redactor(text: str) -> None:
    assert isinstance(Redactor(PERSONAL, [KEY]).text(text), str)


@given(JSON)
def test_no_json_at_all_stops_the_redactor_and_its_shape_stays(value: Any) -> None:
    redacted = EVERYTHING.value(value)
    if isinstance(value, dict | list):
        assert isinstance(redacted, type(value))
        assert len(redacted) == len(value)


@pytest.mark.parametrize(
    "find",
    [
        lambda text: [(0, 10**6)],
        lambda text: [(2, 1)],
        lambda text: [("a", "b")],
        lambda text: 1 / 0,
        lambda text: None,
    ],
    ids=["out of the text", "backwards", "no places", "raises", "nothing"],
)
def test_a_detector_that_fails_hides_the_whole_text_instead_of_letting_it_pass(find: Any) -> None:
    shown = Redactor([Detector("broken", find)]).text("my number is 12345")
    assert "12345" not in shown
    assert "detector failed" in shown


@pytest.mark.parametrize("name", ["", "Card", "card]", "card\n1"])
def test_a_detectors_name_is_words_because_it_stands_in_the_placeholder(name: str) -> None:
    with pytest.raises(ValueError, match="lower-case words"):
        Detector(name, lambda _text: [])


# -- what must not be touched ------------------------------------------------------------------------------------------


@given(st.sampled_from(["run", "rev", "evt", "wake", "timer"]), st.text(min_size=0, max_size=10), st.integers(0, 9))
def test_ids_and_digests_are_never_touched(prefix: str, word: str, digit: int) -> None:
    for whole in (
        new_id(prefix),
        f"{prefix}_{str(digit) * 32}",
        f"{new_id(prefix)}:1",
        digest_of(word),
        digest_of(word)[:32],
        str(digit) * 64,
        "4111111111111111" * 4,
        f"<{digest_of(word)[:32]}@shop.example>",
    ):
        assert EVERYTHING.text(whole) == whole
        assert EVERYTHING.text(f"see {whole}, please") == f"see {whole}, please"


@given(st.uuids())
def test_uuids_are_never_touched(name: Any) -> None:
    assert EVERYTHING.text(f"id {name}") == f"id {name}"


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-03T12:00:00.123456+00:00",
        "2026-11-03 12:30:00",
        "on 03.11.2026 12:30",
        "192.168.100.100",
        "EUR 1.234.567,00",
        "0.9123456789 sure",
        "order 0012345678 of 1761234567",
        "2@12.50 EUR",
        "4111 1111 1111 1112",  # the checksum is another one
        "DE88370400440532013000",
        "9780306406157",
        "refund_limit",
        "host:4021:ab12cd34",
        "a@b",
    ],
)
def test_what_only_looks_a_little_like_it_stays(text: str) -> None:
    assert EVERYTHING.text(text) == text


def test_numbers_and_names_of_members_stay_what_they_are() -> None:
    entry = {"amount": 120, "seconds": 0.0123, "attempt": 1, "permanent": False, "digest": "0" * 64, "stages": [None]}
    assert EVERYTHING.value(entry) == entry


# -- what is found -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        ("card", "4111111111111111"),
        ("card", "4111 1111 1111 1111"),
        ("card", "4111-1111-1111-1111"),
        ("card", "3782 822463 10005"),
        ("card", "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"),
        ("card", "\uff14\uff11\uff11\uff11 1111 1111 1111"),
        ("card", "4111\u200b1111\u200b1111\u200b1111"),
        ("iban", "DE89370400440532013000"),
        ("iban", "DE89 3704 0044 0532 0130 00"),
        ("iban", "de89 3704 0044 0532 0130 00"),
        ("iban", "GB82 WEST 1234 5698 7654 32"),
        ("iban", "NL91ABNA0417164300"),
        ("email", "ann@example.org"),
        ("email", "Ann.O'Neil+shop@mail.example.co.uk"),
        ("email", "ann%40example.org"),
        ("email", "иван@пример.рф"),
        ("phone", "+1 415 555 0132"),
        ("phone", "+49 (0)30 901820"),
        ("phone", "0049 30 901820"),
        ("phone", "0171 2345678"),
        ("phone", "01712345678"),
        ("phone", "06.12.34.56.78"),
        ("phone", "(415) 555-2671"),
        ("phone", "415-555-2671"),
    ],
)
def test_personal_data_give_way_to_a_placeholder_of_their_kind(kind: str, written: str) -> None:
    for text in ("{}", "it is {}.", "({})", "it:\n{}\nthanks", "'{}'"):
        assert EVERYTHING.text(text.format(written)) == text.format(f"[{kind} 1]")


def test_a_card_is_found_between_other_numbers() -> None:
    assert EVERYTHING.text("order 4711 4111 1111 1111 1111 12 27 123") == "order 4711 [card 1] 12 27 123"


def test_the_same_address_has_the_same_placeholder_and_another_one_has_another() -> None:
    text = "ann@example.org wrote to bob@example.org; Ann@Example.ORG waits"
    assert EVERYTHING.text(text) == "[email 1] wrote to [email 2]; [email 1] waits"
    assert EVERYTHING.text("4111111111111111 is 4111 1111 1111 1111") == "[card 1] is [card 1]"


def test_in_json_one_thing_has_one_placeholder_in_the_whole_of_it() -> None:
    value = {"to": "ann@example.org", "body": ["hi bob@example.org", "cc ann@example.org"], "ann@example.org": 1}
    assert EVERYTHING.value(value) == {"to": "[email 1]", "body": ["hi [email 2]", "cc [email 1]"], "[email 1]": 1}


def test_a_card_written_as_a_number_is_found() -> None:
    assert EVERYTHING.value({"card": 4111111111111111, "as": 4111111111111111.0, "n": 4111111111111112}) == {
        "card": "[card 1]",
        "as": "[card 1]",
        "n": 4111111111111112,
    }


def test_of_finds_that_overlap_nothing_is_left_over() -> None:
    wide = Detector("wide", lambda text: [(0, 6)])
    late = Detector("late", lambda text: [(3, 9)])
    assert Redactor([wide, late]).text("abcdefghijk") == "[wide 1]jk"


def test_a_message_of_twenty_thousand_characters_full_of_it_holds_none_of_it_afterwards() -> None:
    one = "4111 1111 1111 1111, DE89370400440532013000, ann@example.org, +49 30 901820. "
    shown = EVERYTHING.text(one * 260)
    assert shown == "[card 1], [iban 1], [email 1], [phone 1]. " * 260


@pytest.mark.parametrize(
    "one", ["4 ", "1-", "a@", "@", "+1 ", "(0", "AA11 ", "a.", "a1", "%40", "00 ", "x@x.y ", "a", "0 1 ", "\u200b1"]
)
def test_hostile_repetition_comes_to_an_end(one: str) -> None:
    """Quadratic work on so many characters would take hours, and the test's time."""
    assert EVERYTHING.text(one * (300_000 // len(one)))


def test_an_author_adds_a_detector() -> None:
    import re

    customer = Detector("customer", lambda text: (match.span() for match in re.finditer(r"C-\d{4}", text)))
    redaction = Redaction(model=[*PERSONAL, customer])
    assert redaction.for_model("C-1234 at ann@example.org") == "[customer 1] at [email 1]"
    assert redaction.for_journal("C-1234") == "C-1234"


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_a_secret_is_replaced_wherever_it_stands() -> None:
    redactor = Redactor((), [KEY, "p@ss/word"])
    assert redactor.text(f"Bearer {KEY}") == "Bearer [secret 1]"
    assert redactor.text(f"x{KEY}y and {KEY}") == "x[secret 1]y and [secret 1]"
    assert redactor.text("https://user:p%40ss%2Fword@host") == "https://user:[secret 1]@host"
    assert KEY not in json.dumps(redactor.value({"a": [{"b": f"={KEY}"}], KEY: 1}))


def test_a_secret_that_looks_like_a_digest_is_a_secret_all_the_same() -> None:
    key = digest_of("key")
    assert Redactor(PERSONAL, [key]).text(key) == "[secret 1]"


def test_a_short_secret_is_replaced_only_where_it_stands_alone() -> None:
    redactor = Redactor((), ["abc12", "ab", ""])
    assert redactor.text("abc12 xabc12y ab") == "[secret 1] xabc12y ab"


def test_of_a_secret_within_another_the_longer_one_counts() -> None:
    assert Redactor((), ["12345678", "12345678-long"]).text("12345678-long 12345678") == "[secret 1] [secret 2]"


@given(st.text(min_size=8, max_size=40), ANY_TEXT, ANY_TEXT)
def test_no_secret_survives_in_any_surroundings(secret: str, before: str, after: str) -> None:
    assert secret not in Redactor((), [secret]).text(before + secret + after).replace("[secret 1]", "")


def test_secrets_are_not_shown_by_what_holds_them() -> None:
    assert KEY not in repr(Redactor((), [KEY]))
    assert KEY not in repr(Redaction().knowing([KEY]))


# -- the three points --------------------------------------------------------------------------------------------------


def test_by_default_a_reply_may_hold_an_address_and_no_card_no_account_and_no_secret() -> None:
    text = f"ann@example.org +49 30 901820 4111111111111111 DE89370400440532013000 {KEY}"
    redaction = Redaction().knowing([KEY])
    assert redaction.for_outgoing(text) == "ann@example.org +49 30 901820 [card 1] [iban 1] [secret 1]"
    assert redaction.for_model(text) == "[email 1] [phone 1] [card 1] [iban 1] [secret 1]"
    assert redaction.for_journal({"body": text}) == {"body": "[email 1] [phone 1] [card 1] [iban 1] [secret 1]"}


def test_an_author_may_want_less_and_secrets_are_hidden_even_then() -> None:
    redaction = Redaction(model=[CARD], journal=[], outgoing=[]).knowing([KEY])
    text = f"ann@example.org 4111111111111111 {KEY}"
    assert redaction.for_model(text) == "ann@example.org [card 1] [secret 1]"
    assert redaction.for_journal(text) == redaction.for_outgoing(text) == "ann@example.org 4111111111111111 [secret 1]"
