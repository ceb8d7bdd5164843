"""The small rules of the leads workflow: who is meant, what a lead is worth and why, whose it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eventwright.guardrails.text import clean_value, foreign_links
from eventwright.runs.event import Event, digest_of
from eventwright.tools.leads_book import Details, Lead, Qualification
from eventwright.tools.linkage import Certainty
from eventwright.tools.mail import ADDRESS

#: Where everybody can have an address; it says nothing about a company.
FREE_MAIL = frozenset(
    {"gmail.com", "googlemail.com", "outlook.com", "hotmail.com", "live.com", "yahoo.com", "icloud.com", "aol.com",
     "gmx.de", "gmx.net", "web.de", "proton.me", "protonmail.com", "mail.com"}
)  # fmt: skip
#: Points by what they want, and by how many people the company has: from so many on.
INTENT_POINTS = {"buying": 40, "evaluating": 25, "support": 0, "partnership": 5, "advertising": -50, "other": 5}
SIZE_POINTS = ((1000, 30), (100, 20), (10, 10))
#: The least points of a grade.
GRADES = (("A", 60), ("B", 30))


def same_person(event: Event) -> str | None:
    """The serial key: forms with one address, else one telephone, else one name and postcode, go one after the other.

    A digest, because keys are shown. None for a form that says none of these.
    """
    data = event.data if isinstance(event.data, Mapping) else {}
    told = {name: "".join(str(data.get(name) or "").casefold().split()) for name in Details.model_fields}
    names = [told["given_name"], told["surname"], told["postcode"]]
    phone = "".join(filter(str.isdigit, told["phone"]))[-9:]
    wanted = told["email"] or phone or (names if all(names) else None)
    return digest_of(wanted) if wanted else None


def reachable(person: Details) -> bool:
    """Whether there is an address that mail can go to, or a telephone number."""
    return ADDRESS.fullmatch(person.email) is not None or any(map(str.isdigit, person.phone))


def the_one_certain(matches: Sequence[Mapping[str, Any]]) -> str | None:
    """The contact who certainly is the person; None if there is none, or more than one."""
    certain = [match["contact"]["id"] for match in matches if match["verdict"] == Certainty.CERTAIN]
    return certain[0] if len(certain) == 1 else None


def company_domain(lead: Lead) -> str | None:
    """The domain of a company's mail address; None where the address says nothing of a company."""
    address = ADDRESS.fullmatch(lead.email)
    domain = address["domain"].lower() if address else ""
    return domain if "." in domain and domain not in FREE_MAIL else None


def qualify(lead: Lead, intent: str, company: Mapping[str, Any] | None, *, known: bool) -> Qualification:
    """What the lead is worth, with the reason for each point. Nothing is counted that is not known."""
    points = [(f"wants: {intent}", INTENT_POINTS[intent])]
    if company is not None and company.get("employees") is not None:
        size = next((given for least, given in SIZE_POINTS if company["employees"] >= least), 0)
        points.append((f"company of {company['employees']} people", size))
    if company is None:
        points.append(("nothing is known of the company", 0))
    if company_domain(lead):
        points.append(("writes from a company's address", 10))
    if lead.phone:
        points.append(("left a telephone number", 10))
    if known:
        points.append(("has asked before", 10))
    if lead.consent:
        points.append(("agrees to be written to", 5))
    total = sum(number for _, number in points)
    grade = next((name for name, least in GRADES if total >= least), "C")
    return Qualification(
        points=total,
        grade=grade,
        reasons=[f"{words}: {number:+d}" for words, number in points],
        company=dict(company) if company else None,
    )


def plain(text: str) -> str:
    """A few words of a stranger on one line, of which no program makes a link or a mention."""
    # Of an address without its sign the rest would be the name of a host.
    named = str(clean_value(text)).replace("@", " at ")
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in named).split())[:100]
    if foreign_links(line, []):
        line = " ".join("".join(letter if letter.isalnum() or letter == " " else " " for letter in line).split())
    return line


def told(lead: Lead, contact: Mapping[str, Any], qualification: Mapping[str, Any], territory: str) -> str:
    """What a colleague is told. What the person wrote stands in the book alone, where nothing leads anywhere."""
    who = " of ".join(filter(None, (plain(lead.name), plain(lead.company)))) or "somebody without a name"
    lines = [
        f"New lead, grade {qualification['grade']} ({qualification['points']} points): {who}.",
        f"Territory {territory}, contact {contact['id']}.",
        "",
        *(f"- {plain(reason)}" for reason in qualification["reasons"]),
    ]
    if not qualification.get("company"):
        lines += ["", "The company could not be looked up, so the points say less than usual."]
    return "\n".join(lines)
