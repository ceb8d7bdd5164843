"""Record linkage: which records are the same person, how sure that is, and why.

Each field that two records both have speaks for or against them being one person, in bits: how much likelier the
agreement, or the difference, is of one person than of two. A missing field says nothing. The bits are written down
below, are the same for every data set, and were not learnt from one. Blocking in several passes finds the pairs that
are worth a comparison; the comparisons are `recordlinkage`'s (Jaro-Winkler, Damerau-Levenshtein).

What the sum alone may not decide: relatives share a home, a mailbox and a surname, twins their birth date as well, a
son his father's name. Unless a personal number agrees, records with different given names, or with birth dates that no
slip of the hand explains, are never certain.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jellyfish
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from eventwright.runs.errors import EventwrightError
from eventwright.runs.states import Documented

if TYPE_CHECKING:
    import pandas

#: Before anything is compared, one pair in so many is the same person; a power of two.
PRIOR_BITS = 12.0
#: The least probability of a certain link, and of one that is worth a person's look.
CERTAIN, DOUBTFUL = 0.999, 0.5
#: Two fields of text are alike from this Jaro-Winkler similarity on.
ALIKE = 0.88
#: Together, the fields of an address say no more than this: whoever lives there shares them all.
MOST_FOR_ADDRESS = 10.0
#: One mailbox of many people; it identifies the company.
_SHARED = (
    "admin billing contact enquiries hello hr info inquiries jobs mail marketing office sales service support team"
)
SHARED_MAILBOXES = frozenset(_SHARED.split())


class Person(BaseModel):
    """What one record says of a person. What is empty is not known."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, coerce_numbers_to_str=True)

    id: str = Field(validation_alias=AliasChoices("id", "rec_id"))
    given_name: str = ""
    surname: str = ""
    email: str = ""
    phone: str = ""
    company: str = ""
    street_number: str = ""
    address_1: str = ""
    address_2: str = ""
    suburb: str = ""
    postcode: str = ""
    state: str = ""
    #: Year, month, day: `1972-10-09` or `19721009`.
    date_of_birth: str = ""
    #: A number that one person has and keeps: a social security number, a customer's number.
    personal_number: str = Field("", validation_alias=AliasChoices("personal_number", "soc_sec_id"))


class Certainty(Documented):
    """How sure a link is."""

    CERTAIN = "certain", "one person; the records may be merged by themselves"
    DOUBTFUL = "doubtful", "perhaps one person; somebody has to look"


@dataclass(frozen=True)
class Link:
    """Two records that are, or may be, one person.

    Attributes:
        first, second: their ids, in the order in which the records were given.
        score: the probability that they are one person, 0 to 1.
        verdict: what may be done with it.
        reasons: what spoke for it and against it, the strongest first.
    """

    first: str
    second: str
    score: float
    verdict: Certainty
    reasons: tuple[str, ...]


class TwoOfOneId(EventwrightError, ValueError):
    """Two records have the same id, so that a link between them could not be told."""

    def __init__(self, id: str) -> None:
        self.id = id
        super().__init__(f"two records have the id {id!r}; give each record one of its own")


def link(records: Iterable[Person]) -> list[Link]:
    """The pairs of records that are, or may be, one person; the surest first.

    Raises:
        TwoOfOneId: an id occurs twice.
    """
    people = _distinct(records)
    if len(people) < 2:
        return []
    import pandas
    import recordlinkage

    keys = pandas.DataFrame([_passes(_plain(person)) for person in people], columns=list(PASSES), dtype=object)
    indexer = recordlinkage.Index()
    for name in PASSES:
        indexer.block(name)
    pairs = sorted((min(pair), max(pair)) for pair in indexer.index(keys))
    return _links(people, pandas.MultiIndex.from_tuples(pairs, names=["first", "second"])) if pairs else []


def match(record: Person, candidates: Iterable[Person]) -> list[Link]:
    """The candidates that are, or may be, the person of this record; the surest first. The scoring is that of `link`.

    Raises:
        TwoOfOneId: an id occurs twice.
    """
    people = _distinct([record, *candidates])
    if len(people) < 2:
        return []
    import pandas

    pairs = pandas.MultiIndex.from_product([[0], range(1, len(people))], names=["first", "second"])
    return _links(people, pairs)


def blocking_keys(person: Person) -> frozenset[str]:
    """The keys under which a record is filed. Records that share none are not worth a comparison."""
    return frozenset(f"{name}:{key}" for name, key in _passes(_plain(person)).items() if key is not None)


# -- what is compared --------------------------------------------------------------------------------------------------

Plain = dict[str, str | None]


def _plain(person: Person) -> Plain:
    """The fields in one spelling: no case, no accents, no punctuation, no spaces; None for what is not known."""
    text = {name: _letters(getattr(person, name)) for name in ("given_name", "surname", "company", "state")}
    text |= {name: _letters(getattr(person, name)) for name in ("street_number", "address_1", "address_2", "suburb")}
    digits = {name: _digits(getattr(person, name)) for name in ("date_of_birth", "personal_number")}
    plain: Plain = {**text, **digits, "postcode": _letters(person.postcode), "phone": _digits(person.phone)[-9:]}
    local, at, domain = person.email.strip().casefold().rpartition("@")
    plain["email"] = f"{local.partition('+')[0]}@{domain}" if at and local not in SHARED_MAILBOXES else ""
    born = plain["date_of_birth"] or ""
    plain["born_otherwise"] = born[:4] + born[6:] + born[4:6] if len(born) == 8 else ""
    return {name: value or None for name, value in plain.items()}


def _letters(text: str) -> str:
    """`Van't Hof-Müller` as `vanthofmuller`."""
    split = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in split if letter.isalnum())


def _digits(text: str) -> str:
    return re.sub(r"\D", "", unicodedata.normalize("NFKC", text))


def _sound(text: str | None) -> str | None:
    """How a name sounds; what is written in no Latin letters sounds as it is written."""
    return None if text is None else jellyfish.metaphone(text) or text


def _joined(*parts: str | None) -> str | None:
    return None if None in parts else "|".join(part for part in parts if part is not None)


def _year(plain: Plain) -> str | None:
    return plain["date_of_birth"] and plain["date_of_birth"][:4]


def _name_sounds(plain: Plain) -> str | None:
    """Both names, in either order: they are often typed into each other's field."""
    sounds = [_sound(plain["given_name"]), _sound(plain["surname"])]
    return None if None in sounds else _joined(*sorted(filter(None, sounds)))


#: The passes of blocking. Each gives a record one key at most; a pair is compared if any pass gives both the same.
PASSES: dict[str, Callable[[Plain], str | None]] = {
    # Halves, since a slip spoils one of them only.
    "number_begins": lambda plain: plain["personal_number"] and plain["personal_number"][:4],
    "number_ends": lambda plain: plain["personal_number"] and plain["personal_number"][-4:],
    "email": lambda plain: plain["email"],
    "phone": lambda plain: plain["phone"],
    "born": lambda plain: plain["date_of_birth"],
    "names": _name_sounds,
    "surname_year": lambda plain: _joined(_sound(plain["surname"]), _year(plain)),
    "given_name_year": lambda plain: _joined(_sound(plain["given_name"]), _year(plain)),
    "surname_place": lambda plain: _joined(_sound(plain["surname"]), plain["postcode"]),
    "given_name_place": lambda plain: _joined(_sound(plain["given_name"]), plain["postcode"]),
    "street": lambda plain: _joined(_sound(plain["address_1"]), plain["street_number"]),
    "street_place": lambda plain: _joined(_sound(plain["address_1"]), plain["postcode"]),
    "house": lambda plain: _joined(_sound(plain["address_2"]), plain["suburb"]),
    "surname_company": lambda plain: _joined(_sound(plain["surname"]), plain["company"]),
}


def _passes(plain: Plain) -> dict[str, str | None]:
    return {name: key(plain) for name, key in PASSES.items()}


# -- what agreement is worth -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evidence:
    """What one field is worth, in bits: where it is the same, alike, and different."""

    same: float
    alike: float
    different: float
    #: From which similarity on it is alike.
    alike_from: float = ALIKE
    method: str = "jarowinkler"


#: What this counts is slips of the hand in a number: a digit changed, left out, or two in the wrong order.
SLIPS = "damerau_levenshtein"
NAMES = {"given_name": Evidence(6, 4, -6), "surname": Evidence(8, 5, -4)}
ADDRESS = {
    "street_number": Evidence(3, 0, -1),
    "address_1": Evidence(6, 5, -1),
    "address_2": Evidence(5, 4, -1),
    "suburb": Evidence(4, 3, -1),
    "postcode": Evidence(4, 3, -1, 0.75, SLIPS),
    "state": Evidence(1, 1, -1),
}
ALONE = {
    "date_of_birth": Evidence(10, 7, -6, 0.875, SLIPS),
    "personal_number": Evidence(18, 12, -8, 0.85, SLIPS),
    "email": Evidence(14, 5, -1, 0.96),
    "phone": Evidence(11, 4, -1, 0.88, SLIPS),
    "company": Evidence(4, 3, -1),
}
FIELDS = {**NAMES, **ADDRESS, **ALONE}
#: Two fields whose contents are often typed into each other's place, and what that costs.
SWAPS = (("given_name", "surname"), ("address_1", "address_2"))
SWAPPED = -1.0


def _links(people: Sequence[Person], pairs: pandas.MultiIndex) -> list[Link]:
    """The pairs of positions that are worth a look, scored."""
    import pandas

    frame = pandas.DataFrame([_plain(person) for person in people], dtype=object)
    bits = _bits(frame, pairs)
    score = 1.0 / (1.0 + 2.0 ** (PRIOR_BITS - bits.sum(axis="columns")))
    number = bits["personal_number"] > 0
    barred = ((bits["given_name"] < 0) | (bits["date_of_birth"] < 0)) & ~number
    found = [
        Link(
            people[first].id,
            people[second].id,
            round(float(score.iloc[row]), 6),
            Certainty.CERTAIN if score.iloc[row] >= CERTAIN and not barred.iloc[row] else Certainty.DOUBTFUL,
            _reasons(bits.iloc[row]),
        )
        for row, (first, second) in enumerate(pairs)
        if score.iloc[row] >= DOUBTFUL
    ]
    return sorted(found, key=lambda one: (one.verdict is not Certainty.CERTAIN, -one.score, one.first, one.second))


def _bits(frame: pandas.DataFrame, pairs: pandas.MultiIndex) -> pandas.DataFrame:
    """What each field of each pair is worth."""
    import pandas

    similar = _similarities(frame, pairs)
    bits = {name: _worth(similar[name], evidence) for name, evidence in FIELDS.items()}
    # The day for the month is one slip too.
    otherwise = FIELDS["date_of_birth"].alike
    bits["date_of_birth"] = bits["date_of_birth"].where(similar["born_otherwise"] != 1, otherwise)
    for first, second in SWAPS:
        crossed = {name: _worth(similar[f"{name}_crossed"], FIELDS[name]) for name in (first, second)}
        # Only if both are in the other's place: one alone may be a family's name that is a given one elsewhere.
        better = (crossed[first] > 0) & (crossed[second] > 0)
        better &= crossed[first] + crossed[second] + SWAPPED > bits[first] + bits[second]
        bits[first] = bits[first].where(~better, crossed[first] + SWAPPED)
        bits[second] = bits[second].where(~better, crossed[second])
    address = sum(bits[name] for name in ADDRESS)
    table = pandas.DataFrame({name: bits[name] for name in FIELDS if name not in ADDRESS})
    table["address"] = address.clip(upper=MOST_FOR_ADDRESS)
    return table


def _similarities(frame: pandas.DataFrame, pairs: pandas.MultiIndex) -> pandas.DataFrame:
    """How alike the fields of each pair are, 0 to 1; not a number where one of them is not known."""
    from recordlinkage import Compare
    from recordlinkage.base import BaseCompareFeature
    from recordlinkage.compare import Exact, String

    unknown = float("nan")
    features: list[BaseCompareFeature] = [
        String(name, name, method=evidence.method, missing_value=unknown, label=name)
        for name, evidence in FIELDS.items()
    ]
    features.append(Exact("date_of_birth", "born_otherwise", missing_value=unknown, label="born_otherwise"))
    for first, second in SWAPS:
        for name, other in ((first, second), (second, first)):
            features.append(String(name, other, method="jarowinkler", missing_value=unknown, label=f"{name}_crossed"))
    return Compare(features).compute(pairs, frame)


def _worth(similarity: pandas.Series, evidence: Evidence) -> pandas.Series:
    worth = similarity * 0.0 + evidence.different
    worth = worth.where(similarity.isna() | (similarity < evidence.alike_from), evidence.alike)
    return worth.where(similarity != 1.0, evidence.same).fillna(0.0)


def _reasons(bits: pandas.Series) -> tuple[str, ...]:
    """In words, the strongest first."""
    told = sorted(((abs(value), name, value) for name, value in bits.items() if value), reverse=True)
    return tuple(f"{str(name).replace('_', ' ')} {'agrees' if value > 0 else 'differs'}" for _, name, value in told)


def _distinct(records: Iterable[Person]) -> list[Person]:
    people = list(records)
    seen: set[str] = set()
    for person in people:
        if person.id in seen:
            raise TwoOfOneId(person.id)
        seen.add(person.id)
    return people
