"""Record linkage: who is one person, who is not, and who goes before somebody who looks."""

from __future__ import annotations

import csv
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import pytest

from eventwright.tools.linkage import Certainty, Link, Person, TwoOfOneId, blocking_keys, link, match

#: One person with everything known.
LENA = Person(
    id="lena",
    given_name="Lena",
    surname="Harrington",
    email="lena@initech.example.com",
    phone="+61 2 5550 1234",
    company="Initech",
    street_number="12",
    address_1="Giblin Street",
    suburb="Bittern",
    postcode="4814",
    state="qld",
    date_of_birth="1980-03-14",
)
WITHOUT_MAIL = LENA.model_copy(update={"email": "", "phone": "", "company": ""})


def other(of: Person = LENA, **changed: str) -> Person:
    return of.model_copy(update={"id": "other"} | changed)


def verdict(first: Person, second: Person) -> Certainty | None:
    """What is said of two records, by both ways in, which have to agree."""
    linked, matched = link([first, second]), match(first, [second])
    assert linked == matched
    return linked[0].verdict if linked else None


# -- who is never taken for somebody else ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "changed"),
    [
        ("a twin", {"given_name": "Thomas"}),
        ("a sister who uses the same mailbox", {"given_name": "Martha", "date_of_birth": "1983-11-02"}),
        ("a husband with the same mailbox and telephone", {"given_name": "Otto", "date_of_birth": ""}),
        ("a mother of the same name", {"date_of_birth": "1951-07-30"}),
    ],
)
def test_a_relative_who_shares_nearly_everything_is_never_merged_by_itself(who: str, changed: dict[str, str]) -> None:
    assert verdict(LENA, other(**changed)) is Certainty.DOUBTFUL, who
    assert verdict(WITHOUT_MAIL, other(WITHOUT_MAIL, **changed)) in (Certainty.DOUBTFUL, None), who


def test_a_namesake_who_lives_elsewhere_is_nobody_we_know() -> None:
    namesake = Person(
        id="x", given_name="Lena", surname="Harrington", postcode="6000", state="wa", email="lh@example.org"
    )
    assert verdict(LENA, namesake) is None


@pytest.mark.parametrize("mailbox", ["info@initech.example.com", "Sales@Initech.example.com"])
def test_the_mailbox_of_a_company_makes_no_two_people_one(mailbox: str) -> None:
    first = Person(id="1", given_name="Ann", surname="Waller", email=mailbox, company="Initech")
    second = Person(id="2", given_name="Bo", surname="Purdon", email=mailbox, company="Initech")
    assert verdict(first, second) is None


def test_records_that_say_nothing_are_linked_to_nothing() -> None:
    assert link([Person(id="1"), Person(id="2"), LENA]) == []
    assert match(Person(id="1"), [Person(id="2"), LENA]) == []
    assert link([]) == link([LENA]) == match(LENA, []) == []


def test_two_records_of_one_id_are_refused_because_a_link_could_not_name_them() -> None:
    with pytest.raises(TwoOfOneId, match="'lena'"):
        link([LENA, LENA])


# -- who is known again ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"given_name": "LENA ", "surname": "harrington", "phone": "02 5550-1234", "date_of_birth": "19800314"},
        {"given_name": "Harrington", "surname": "Lena"},
        {"surname": "Harringtn", "email": ""},
        {"date_of_birth": "1980-14-03", "email": ""},
        {"date_of_birth": "1980-03-41"},
        {"given_name": "", "email": ""},
        {"email": "lena+forms@initech.example.com", "street_number": "", "address_1": "", "suburb": "", "postcode": ""},
        {"surname": "Müller-Wüst", "email": "lena@initech.example.com"},
        {"address_1": "", "address_2": "Giblin Street"},
    ],
)
def test_a_person_is_known_again_in_spite_of_slips_swaps_and_gaps(changed: dict[str, str]) -> None:
    assert verdict(LENA, other(**changed)) is Certainty.CERTAIN


def test_a_link_says_how_sure_it_is_and_why() -> None:
    [found] = link([LENA, other(surname="Purdon")])
    assert (found.first, found.second) == ("lena", "other")
    assert 0.999 <= found.score <= 1.0
    assert found.reasons[0] == "email agrees"
    assert "surname differs" in found.reasons


def test_records_that_share_no_key_are_not_compared_and_those_that_are_linked_share_one() -> None:
    assert not blocking_keys(Person(id="1"))
    assert blocking_keys(LENA) & blocking_keys(other(given_name="Harrington", surname="Lena", email="", phone=""))
    stranger = Person(id="x", given_name="Bo", surname="Purdon", postcode="2000", email="bo@example.org")
    assert not blocking_keys(LENA) & blocking_keys(stranger)


def test_nobody_loads_the_library_who_compares_nothing() -> None:
    script = (
        "import sys, eventwright.tools.leads_book, eventwright.graphs.leads\n"
        "sys.exit(bool({'pandas', 'sklearn', 'recordlinkage'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# -- how well, on data with the truth beside it ------------------------------------------------------------------------


def febrl1() -> list[dict[str, str]]:
    with (files("eventwright.tools") / "data" / "febrl1.csv").open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines, skipinitialspace=True))


def entity(id: str) -> str:
    return id.split("-")[1]


def measured(people: Sequence[Person], links: Sequence[Link]) -> tuple[float, float]:
    """Precision and F1 of the links."""
    sizes = Counter(entity(person.id) for person in people)
    right = sum(entity(one.first) == entity(one.second) for one in links)
    precision, recall = right / len(links), right / sum(n * (n - 1) // 2 for n in sizes.values())
    return precision, 2 * precision * recall / (precision + recall)


def test_on_the_whole_of_febrl1_what_is_merged_by_itself_is_right_and_nearly_all() -> None:
    people = [Person.model_validate(row) for row in febrl1()]
    links = link(people)

    precision, f1 = measured(people, [one for one in links if one.verdict is Certainty.CERTAIN])
    assert precision >= 0.995
    assert f1 >= 0.99
    precision, f1 = measured(people, links)
    assert precision >= 0.995
    assert f1 >= 0.99


def test_a_new_record_is_matched_as_it_would_be_linked() -> None:
    people = [Person.model_validate(row) for row in febrl1()]
    originals = [person for person in people if person.id.endswith("-org")]
    linked = {one.first if one.first.endswith("-dup-0") else one.second: one for one in link(people)}
    for duplicate in [person for person in people if not person.id.endswith("-org")][:25]:
        keys = blocking_keys(duplicate)
        found = match(duplicate, [person for person in originals if blocking_keys(person) & keys])
        wanted = linked[duplicate.id]
        assert [(one.score, one.verdict) for one in found] == [(wanted.score, wanted.verdict)]


class Clerk:
    """Writes records down again, with a clerk's mistakes. Unlike the data set's, up to five times and up to five
    mistakes at once."""

    FIELDS = ("given_name", "surname", "street_number", "address_1", "address_2", "suburb", "postcode", "date_of_birth")

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def people(self, count: int) -> list[dict[str, str]]:
        """People who never were, with the names and places of those in the data set, and whole families of them."""
        rows, found = [row for row in febrl1() if row["rec_id"].endswith("-org")], []
        for number in range(count):
            person = {name: self.random.choice(rows)[name] for name in rows[0]}
            relative = found[-1] if found and number % 10 == 0 else None
            if relative is not None:
                home = ("surname", "street_number", "address_1", "address_2", "suburb", "postcode", "state")
                person |= {name: relative[name] for name in home}
            person["soc_sec_id"] = str(self.random.randrange(10**6, 10**7))
            found.append(person | {"rec_id": f"rec-{number}-org"})
        return found

    def again(self, person: dict[str, str], number: int) -> dict[str, str]:
        copy = person | {"rec_id": f"rec-{entity(person['rec_id'])}-dup-{number}"}
        for _ in range(self.random.randint(1, 5)):
            name = self.random.choice(self.FIELDS)
            kind = self.random.randrange(12)
            if kind == 0:
                copy["given_name"], copy["surname"] = copy["surname"], copy["given_name"]
            elif kind == 1:
                copy["address_1"], copy["address_2"] = copy["address_2"], copy["address_1"]
            elif kind <= 3:
                copy[name] = ""
            else:
                copy[name] = self.slip(copy[name])
        if self.random.random() < 0.15:
            copy["soc_sec_id"] = self.slip(copy["soc_sec_id"])
        return copy

    def slip(self, text: str) -> str:
        if len(text) < 2:
            return text
        at = self.random.randrange(len(text) - 1)
        letter = self.random.choice("0123456789" if text.isdigit() else "aeioulnrst")
        return self.random.choice(
            [
                text[:at] + text[at + 1 :],
                text[:at] + letter + text[at:],
                text[:at] + letter + text[at + 1 :],
                text[:at] + text[at + 1] + text[at] + text[at + 2 :],
            ]
        )


@pytest.mark.parametrize("without", [(), ("soc_sec_id",)])
def test_on_other_data_with_more_mistakes_and_families_in_it_what_is_merged_by_itself_is_right(
    without: tuple[str, ...],
) -> None:
    clerk = Clerk(seed=7)
    originals = clerk.people(700)
    rows: list[dict[str, Any]] = [
        *originals,
        *(clerk.again(row, n) for row in originals[:300] for n in range(clerk.random.randint(1, 5))),
    ]
    people = [Person.model_validate({name: row[name] for name in row if name not in without}) for row in rows]
    clerk.random.shuffle(people)
    links = link(people)

    certain, _ = measured(people, [one for one in links if one.verdict is Certainty.CERTAIN])
    assert certain >= 0.995
    _, f1 = measured(people, links)
    assert f1 >= (0.99 if not without else 0.93)
