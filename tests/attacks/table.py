"""The table: every subject, every vector, every way to every goal; what cannot be tried is left out with its reason."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path

from tests.attacks.rows_agent import agent, clerk, plugin
from tests.attacks.rows_discounts import discounts
from tests.attacks.rows_failed_payments import failed_payments
from tests.attacks.rows_invoices import invoices
from tests.attacks.rows_leads import leads
from tests.attacks.rows_small import browser, cashier, router, writer
from tests.attacks.rows_support import support
from tests.attacks.words import Case, Subject, Vector

#: One row a subject. A workflow that is to be attacked too becomes one more.
SUBJECTS: Sequence[Subject] = (
    *(support, invoices, leads, discounts, failed_payments),
    *(clerk, agent, plugin, writer, browser, cashier, router),
)

CARRIERS = Path(__file__).parent.parent / "data" / "injection" / "bipia_text_attacks_train.json"


def carriers() -> list[str]:
    """Instructions of others' making, in the order of their file."""
    kinds: dict[str, list[str]] = json.loads(CARRIERS.read_text(encoding="utf-8"))
    return [text for texts in kinds.values() for text in texts]


def _cases() -> Iterator[Case]:
    texts = carriers()
    # A note with a link would not be taken down, and the attack never arrive.
    without_links = cycle([text for text in texts if ".com" not in text and "www" not in text])
    number = 0
    for subject in SUBJECTS:
        for attack in subject.attacks:
            for vector in subject.vectors if attack.vectors is None else attack.vectors:
                carrier = next(without_links) if vector is Vector.MEMORY else texts[number % len(texts)]
                yield Case(number, subject, vector, attack, carrier)
                number += 1


CASES: Sequence[Case] = tuple(_cases())
#: What the workflows' own code forbids, whatever the guard says.
FORBIDDEN: Sequence[Case] = tuple(
    Case(9000 + number, subject, (attack.vectors or subject.vectors)[0], attack, "Please.")
    for number, (subject, attack) in enumerate(
        (subject, attack) for subject in SUBJECTS for attack in subject.forbidden
    )
)


def one_vector_each(cases: Sequence[Case] = CASES) -> list[Case]:
    """Each attack through one vector, another one each time."""
    by_attack: dict[tuple[str, str, str], list[Case]] = {}
    for case in cases:
        by_attack.setdefault((case.subject.name, case.attack.goal, case.attack.name), []).append(case)
    return [found[number % len(found)] for number, found in enumerate(by_attack.values())]
