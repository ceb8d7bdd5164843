"""Redaction: personal data and secrets give way to typed placeholders, at three points.

    before the model      what a model reads
    before the journal    every entry's data, the words of errors, and what a process logs
    before leaving        content that a tool sends to somebody

`Write to [email 1], card [card 1]` is what is left: the kind, and a number by which the same address is known again.
The ledger and the reviews keep the exact values, because they have to be executed and judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from urllib.parse import quote

from eventwright.guardrails.detectors import CARD, IBAN, ID, PERSONAL, Detector

#: A secret from this length on is replaced also inside longer words; a shorter one only where it stands alone, because
#: it might be a part of any word or id.
LONG_SECRET = 8
#: What is shorter is no secret: replacing it would only garble texts.
SHORTEST_SECRET = 4
#: Numbers of so many digits may be a card's, and are read like a text.
LONG_NUMBER = 10**12

#: The placeholders that were given: by kind, then by thing.
Known = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Redactor:
    """Replaces what its detectors find, and secrets wherever they stand. Never raises: where a detector fails, the
    whole text is left out.

    Args:
        detectors: what is looked for.
        literals: secret values, replaced exactly, also in the form that they have in a URL.
    """

    detectors: Sequence[Detector] = ()
    literals: Sequence[str] = field(default=(), repr=False)

    def text(self, text: str) -> str:
        """The text with placeholders."""
        return self._redacted(text, {})

    def value(self, value: Any) -> Any:
        """The JSON value with every string in it redacted, names of members and long numbers too; one thing has one
        placeholder in the whole of it."""
        return self._walked(value, {})

    def _walked(self, value: Any, known: Known) -> Any:
        if isinstance(value, str):
            return self._redacted(value, known)
        if isinstance(value, Mapping):
            return {self._walked(name, known): self._walked(item, known) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._walked(item, known) for item in value]
        if isinstance(value, int | float) and abs(value) >= LONG_NUMBER:
            digits = f"{value:.0f}" if isinstance(value, float) else str(value)
            redacted = self._redacted(digits, known)
            return value if redacted == digits else redacted
        return value

    def _redacted(self, text: str, known: Known) -> str:
        if len(text) < SHORTEST_SECRET:
            return text
        for form in self._forms:
            if form in text:
                text = self._secrets.sub(lambda found: _placeholder("secret", found[0], known), text)
                break
        if not self._worth_a_look(text):
            return text
        try:
            found = sorted(self._found(text), key=lambda each: (each[0], -each[1]))
        except Exception as error:  # noqa: BLE001 - an author's detector may raise anything; then nothing is shown
            return f"[left out: a detector failed with {type(error).__name__}]"
        parts, end = [], 0
        for start, stop, detector in found:
            if start >= end:
                parts += [text[end:start], _placeholder(detector.name, detector.same(text[start:stop]), known)]
            end = max(end, stop)  # what reaches beyond another find does not stay either
        return "".join([*parts, text[end:]]) if found else text

    def _found(self, text: str) -> Iterator[tuple[int, int, Detector]]:
        for detector in self.detectors:
            for start, stop in detector.find(text):
                if not 0 <= start < stop <= len(text):
                    raise ValueError(f"the detector {detector.name!r} found ({start}, {stop})")
                yield start, stop, detector

    def _worth_a_look(self, text: str) -> bool:
        for sign in self._signs:
            if sign is None or sign.search(text):
                return not ID.fullmatch(text)
        return False

    @cached_property
    def _signs(self) -> frozenset[re.Pattern[str] | None]:
        return frozenset(detector.sign for detector in self.detectors)

    @cached_property
    def _forms(self) -> tuple[str, ...]:
        """The secrets as they may stand in a text, the longest first."""
        forms = {form for literal in self.literals for form in (literal, quote(literal, safe="", errors="replace"))}
        return tuple(sorted((form for form in forms if len(form) >= SHORTEST_SECRET), key=len, reverse=True))

    @cached_property
    def _secrets(self) -> re.Pattern[str]:
        words = ((form, re.escape(form)) for form in self._forms)
        return re.compile(
            "|".join(word if len(form) >= LONG_SECRET else rf"(?<!\w){word}(?!\w)" for form, word in words)
        )


def _placeholder(name: str, thing: str, known: Known) -> str:
    things = known.setdefault(name, {})
    return things.setdefault(thing, f"[{name} {len(things) + 1}]")


@dataclass(frozen=True, kw_only=True)
class Redaction:
    """What a workflow hides, and where: `Workflow(..., redaction=Redaction(model=[*PERSONAL, customer_number]))`.

    Attributes:
        model: what is looked for in what a model reads.
        journal: what is looked for in the journal, in the words of errors, and in logs.
        outgoing: what is looked for in content that leaves; an address in a reply may be needed, a card number not.
        literals: secret values of this process, hidden everywhere; see `knowing`.
    """

    model: Sequence[Detector] = PERSONAL
    journal: Sequence[Detector] = PERSONAL
    outgoing: Sequence[Detector] = (CARD, IBAN)
    literals: Sequence[str] = field(default=(), repr=False)

    def knowing(self, literals: Iterable[str]) -> Redaction:
        """The same with the secrets of this process, which no author can know."""
        return replace(self, literals=(*self.literals, *literals))

    def for_model(self, value: Any) -> Any:
        """The JSON value (a string is one) as a model may read it."""
        return self._before_the_model.value(value)

    def for_journal(self, value: Any) -> Any:
        """The JSON value as it may stand in the journal and in logs."""
        return self._before_the_journal.value(value)

    def for_outgoing(self, value: Any) -> Any:
        """The JSON value of a content argument as it may leave."""
        return self._before_leaving.value(value)

    @cached_property
    def _before_the_model(self) -> Redactor:
        return Redactor(tuple(self.model), tuple(self.literals))

    @cached_property
    def _before_the_journal(self) -> Redactor:
        return Redactor(tuple(self.journal), tuple(self.literals))

    @cached_property
    def _before_leaving(self) -> Redactor:
        return Redactor(tuple(self.outgoing), tuple(self.literals))
