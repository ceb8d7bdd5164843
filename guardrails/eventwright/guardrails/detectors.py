"""Detectors: what personal data look like, by form and checksum.

Nothing is found by its meaning: names, street addresses and numbers of a form of one's own need a detector of one's
own. Ids, digests and UUIDs are never taken for anything else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice

Span = tuple[int, int]
#: Where something stands in a text, as (start, end), like a slice.
Find = Callable[[str], Iterable[Span]]


@dataclass(frozen=True)
class Detector:
    """Finds one kind of data in a text.

    Attributes:
        name: stands in the placeholder: `[card 1]`.
        find: the (start, end) of every place where it stands.
        same: two finds for which this is equal are one thing, and share a placeholder.
        sign: a text in which this is not found holds none, and is not searched.

    Raises:
        ValueError: the name is not lower-case words.
    """

    name: str
    find: Find
    same: Callable[[str], str] = str.casefold
    sign: re.Pattern[str] | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_-]*(?: [a-z0-9_-]+)*", self.name):
            raise ValueError(f"a detector's name is lower-case words, for a placeholder; {self.name!r} is not")


# Every entry of every journal passes here. So each pattern begins with a set of characters, which Python's `re` looks
# for quickly, and asks afterwards what stands before it (`(?<!\w.)`: no letter before the character just read).

#: Our ids (`run_0192…`), digests in hex, UUIDs: whatever is 32 hex digits or more, alone or after a prefix.
ID = re.compile(
    r"(?<![^\W_])(?:(?:[a-z]{1,12}_)?[0-9a-f]{32,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?![^\W_])",
    re.ASCII | re.IGNORECASE,
)
#: Digits: ours, the wide ones of East Asia, those of Arabic, Persian and Hindi.
_D = r"[0-9\uff10-\uff19\u0660-\u0669\u06f0-\u06f9\u0966-\u096f]"
_DIGIT = re.compile(_D)
#: Without a digit or an @ there is nothing for any of ours.
_SIGN = re.compile(_D[:-1] + r"@%\uff20]")
#: What people put between groups of digits: spaces, hyphens and dashes of every kind, and what cannot be seen.
_GAP = r"[ \-\u00a0\u00ad\u2000-\u2015\u202f\u2060\u3000\ufeff]"
#: Of more candidates in one text the form alone decides: to ask the library takes its time, and nobody's message
#: holds so many.
MOST_ASKED = 50


def _beside_ids(text: str, found: Iterable[Span]) -> Iterator[Span]:
    """What was found and is no part of an id."""
    spans = list(found)
    ids = [match.span() for match in ID.finditer(text)] if spans else []
    return (span for span in spans if not any(start < span[1] and span[0] < end for start, end in ids))


def _many_digits(text: str, count: int) -> bool:
    return next(islice(_DIGIT.finditer(text), count - 1, None), None) is not None


def _digits_of(written: str) -> str:
    """Its digits, those of other scripts as ours."""
    digits = re.sub(r"\D+", "", written)
    return digits if digits.isascii() else "".join(str(int(digit)) for digit in digits)


def _compact(found: str) -> str:
    return "".join(letter for letter in found if letter.isalnum()).casefold()


# -- card numbers ------------------------------------------------------------------------------------------------------

_ROW = re.compile(rf"{_D}(?<![\w+].)(?<!\w[.,].)(?:{_GAP}{{0,2}}{_D})+(?!\w|[.,]\d)")
_GROUP = re.compile(rf"{_D}+")
#: How many digits a card number has, by its first: Diners, American Express, JCB; Visa; Mastercard; the others.
_LENGTHS = {"2": {16}, "3": {14, 15, 16}, "4": {13, 16, 19}, "5": {16}, "6": {16, 17, 18, 19}}
#: How cards have their digits grouped; in a longer row of numbers only these count.
_SHAPES = ((4, 4, 4, 4, 3), (4, 4, 4, 4), (4, 6, 5), (4, 6, 4))
_FEWEST, _MOST = 13, 19


def find_cards(text: str) -> Iterable[Span]:
    """Card numbers: the right length for their first digit, and the Luhn checksum."""
    return _beside_ids(text, _cards(text)) if _many_digits(text, _FEWEST) else ()


def _cards(text: str) -> Iterator[Span]:
    for row in _ROW.finditer(text):
        if row.end() - row.start() <= 3 * _MOST and _is_card(row[0]):
            yield row.span()
        elif row.end() - row.start() > _FEWEST:
            yield from _grouped_cards(text, [group.span() for group in _GROUP.finditer(text, *row.span())])


def _grouped_cards(text: str, groups: list[Span]) -> Iterator[Span]:
    """Cards in a row of numbers, between an order's number and a date, say."""
    sizes = [end - start for start, end in groups]
    first = 0
    while first < len(groups):
        shapes = _SHAPES if sizes[first] == 4 else ((sizes[first],),) if sizes[first] >= _FEWEST else ()
        taken = 1
        for shape in shapes:
            last = first + len(shape) - 1
            if tuple(sizes[first : last + 1]) == shape and _is_card(text[groups[first][0] : groups[last][1]]):
                yield groups[first][0], groups[last][1]
                taken = len(shape)
                break
        first += taken


def _is_card(written: str) -> bool:
    from stdnum import luhn  # here, because few processes meet a card, and the library takes its time to load

    digits = _digits_of(written)
    return len(digits) in _LENGTHS.get(digits[0], ()) and luhn.is_valid(digits)


# -- bank accounts -----------------------------------------------------------------------------------------------------

#: The two check digits, after a country's two letters, before at least four more characters.
_CHECK = re.compile(
    r"[0-9]{2}(?<=[A-Za-z]{2}[0-9]{2})(?<![^\W_].{4})(?=[ \-\u00a0\u202f]{0,2}[0-9A-Za-z]{4})", re.ASCII
)
_ACCOUNT = re.compile(r"(?:[ \-\u00a0\u202f]{0,2}[0-9A-Za-z]){11,30}", re.ASCII)


def find_ibans(text: str) -> Iterable[Span]:
    """IBANs: the length that its country has, and the checksum (mod 97)."""
    return _beside_ids(text, _ibans(text)) if _many_digits(text, 9) else ()


def _ibans(text: str) -> Iterator[Span]:
    asked = 0
    for check in _CHECK.finditer(text):
        start = check.start() - 2
        length = _iban_length(text[start : start + 2].upper())
        rest = _ACCOUNT.match(text, check.end())
        end = _end_of(rest[0], length - 4) + check.end() if length and rest else 0
        if end > check.end() and not text[end : end + 1].isalnum():
            asked += 1
            if asked > MOST_ASKED or _is_iban(_compact(text[start:end])):
                yield start, end


def _end_of(written: str, count: int) -> int:
    """Where the first `count` letters and digits end; 0 if there are fewer."""
    ends = (place + 1 for place, letter in enumerate(written) if letter.isalnum())
    return next(islice(ends, count - 1, None), 0)


def _is_iban(number: str) -> bool:
    from stdnum.iso7064 import mod_97_10

    return mod_97_10.is_valid(number[4:] + number[:4])


@cache
def _iban_length(country: str) -> int:
    """How long an IBAN of this country is; 0 where there are none."""
    from stdnum import numdb

    form = numdb.get("iban").info(country)[0][1].get("bban")
    return 4 + sum(map(int, re.findall(r"\d+", form))) if form else 0


# -- addresses ---------------------------------------------------------------------------------------------------------

_EMAIL = re.compile(r"(?<![\w.+'-])[\w.+'-]+(?:@|\uff20|%40)(?:[\w-]+\.)+[^\W\d_][\w-]+", re.IGNORECASE)


def find_emails(text: str) -> Iterable[Span]:
    """E-mail addresses with a domain of two parts or more."""
    if "@" not in text and "%40" not in text and "\uff20" not in text:
        return ()
    # A quotation mark before an address is none of its letters, though one may stand within: o'neil@example.org.
    return _beside_ids(
        text, ((match.end() - len(match[0].lstrip("'")), match.end()) for match in _EMAIL.finditer(text))
    )


# -- telephone numbers -------------------------------------------------------------------------------------------------

_BETWEEN = rf"(?:\.|{_GAP}{{0,2}}[()/]?{_GAP}?)"
_FREE = r"(?<![\w+].)(?<!\w[.,].)"
_END = r"(?!\w|[.,]\d)"
_PHONES = (
    # +49 30 901820
    re.compile(rf"[+\uff0b]{_FREE}{_BETWEEN}{_D}(?:{_BETWEEN}{_D}){{6,14}}{_END}"),
    # (415) 555-2671, 0049 30 901820, 030 901820: begins with a bracket or a zero
    re.compile(rf"[(0\uff10]{_FREE}(?:(?<=\()\s?{_D}|{_D})(?:{_BETWEEN}{_D}){{7,14}}{_END}"),
    # 415-555-2671
    re.compile(rf"[2-9]{_FREE}{_D}{_D}[./ -]{_D}{{3}}[./ -]{_D}{{4}}{_END}"),
)
_DATE = re.compile(r"\d{1,2}[./-]\d{1,2}[./-](?:\d{4}|\d\d)(?![\d./-])")
#: Where a number without its country's is looked for.
_REGIONS = ("US", "DE", "GB", "FR", "IT", "IN", "NL", "AT", "CH", "BE", "SE", "AU", "JP", "BR")


def find_phones(text: str) -> Iterable[Span]:
    """Telephone numbers: those that begin with + and are possible, and those that begin with 0 or are grouped like
    `(415) 555-2671` and are valid in one of the larger countries."""
    return _beside_ids(text, _phones(text)) if _many_digits(text, 8) else ()


def _phones(text: str) -> Iterator[Span]:
    for pattern in _PHONES:
        for asked, match in enumerate(pattern.finditer(text)):
            start, end = match.span()
            if text[start] == "(" and ")" not in match[0]:
                start += 1  # the bracket holds the whole number, and more
            if asked < MOST_ASKED:
                end = 0 if _DATE.match(text, start) else _phone_end(text, start, end)
            if end:
                yield start, end


def _phone_end(text: str, start: int, end: int) -> int:
    """Where the number ends that begins here: other numbers may follow it. 0 if there is none."""
    ends = (group.end() for group in reversed(list(_GROUP.finditer(text, start, end))))
    return next((end for end in ends if _is_phone(text[start:end])), 0)


def _is_phone(written: str) -> bool:
    from phonenumbers import NumberParseException, is_possible_number, is_valid_number, parse

    digits = _digits_of(written)
    asked: list[tuple[str, str | None]]
    if written[0] in "+\uff0b":
        asked, fits = [(f"+{digits}", None)], is_possible_number
    elif digits.startswith("00"):
        asked, fits = [(f"+{digits[2:]}", None)], is_valid_number
    else:
        asked, fits = [(digits, region) for region in _REGIONS], is_valid_number
    for number, region in asked:
        try:
            if fits(parse(number, region)):
                return True
        except NumberParseException:
            continue
    return False


CARD = Detector("card", find_cards, _compact, _SIGN)
IBAN = Detector("iban", find_ibans, _compact, _SIGN)
EMAIL = Detector("email", find_emails, sign=_SIGN)
PHONE = Detector("phone", find_phones, _compact, _SIGN)
#: All of them.
PERSONAL = (CARD, IBAN, EMAIL, PHONE)
