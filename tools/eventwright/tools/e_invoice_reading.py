"""Reading values out of an invoice's XML: texts, days and amounts, strictly, and never more than stands there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal
from xml.etree.ElementTree import Element

from eventwright.tools.e_invoice_fields import Unreadable

#: What XML Schema calls a decimal; no exponents, no thousands, no infinities.
DECIMAL = re.compile(r"[+-]?(?:\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})", re.ASCII)
#: So much of a value that cannot be read is repeated.
SHOWN = 40


class Reader:
    """Finds what stands below an element; keeps what could not be read."""

    def __init__(self, names: Mapping[str, str]) -> None:
        """Make a reader.

        Args:
            names: the namespaces by the prefixes that paths use.
        """
        self.names = dict(names)
        self.unreadable: list[Unreadable] = []

    def all(self, element: Element | None, path: str) -> Iterator[Element]:
        """Every element at the path."""
        return iter(()) if element is None else element.iterfind(path, self.names)

    def first(self, element: Element | None, path: str) -> Element | None:
        """The first element at the path. There is one at most: of two, readers could take one or the other."""
        found = list(self.all(element, path))
        if len(found) > 1:
            self.complain(re.sub(r"\b\w+:", "", path), f"stands {len(found)} times")
        return found[0] if found else None

    def text(self, element: Element | None, path: str) -> str | None:
        """The text at the path with its spaces put right; None if there is none."""
        return words(self.first(element, path))

    def code(self, element: Element | None, path: str) -> str | None:
        """The code at the path: nothing but spaces is a code as well, and in nobody's list; None if there is none."""
        found = self.first(element, path)
        return None if found is None else words(found) or ""

    def flag(self, element: Element | None, path: str, at: str) -> bool | None:
        """The truth value at the path, as XML Schema writes it."""
        text = self.text(element, path)
        value = {"true": True, "1": True, "false": False, "0": False}.get(text or "")
        if value is None:
            self.complain(at, text or "")
        return value

    def texts(self, element: Element | None, path: str) -> tuple[str, ...]:
        """Every text at the path."""
        return tuple(text for found in self.all(element, path) if (text := words(found)))

    def marks(self, element: Element | None, path: str, name: str) -> tuple[str, ...]:
        """What the attribute says of every element at the path that has it, each once."""
        return tuple(
            dict.fromkeys(" ".join(mark.split()) for one in self.all(element, path) if (mark := one.get(name)))
        )

    def one(self, element: Element | None, path: str, at: str) -> str | None:
        """The text of something that may stand once: of two, readers could take one or the other."""
        found = list(self.all(element, path))
        if len(found) > 1:
            self.complain(at, f"stands {len(found)} times")
            return None
        return words(found[0]) if found else None

    def amount(self, element: Element | None, path: str, at: str) -> Decimal | None:
        """The decimal at the path; an element that is there says one."""
        text = self.one(element, path, at)
        if text is None and len(list(self.all(element, path))) == 1:
            self.complain(at, "")
        return self.decimal(text, at)

    def decimal(self, text: str | None, at: str) -> Decimal | None:
        """The text as a decimal, with its digits as they were written."""
        if text is None:
            return None
        if not DECIMAL.fullmatch(text):
            self.complain(at, text)
            return None
        return Decimal(text)

    def day(self, text: str | None, at: str) -> date | None:
        """A day, as ISO 8601 or as the eight digits of UNTDID 2379's format 102."""
        if text is None:
            return None
        try:
            if re.fullmatch(r"\d{8}", text, re.ASCII):
                return datetime.strptime(text, "%Y%m%d").date()  # noqa: DTZ007 - a day has no zone
            # XML Schema lets a day bear a zone, which changes nothing here.
            return date.fromisoformat(re.sub(r"(?:Z|[+-]\d\d:\d\d)$", "", text))
        except ValueError:
            self.complain(at, text)
            return None

    def complain(self, at: str, text: str) -> None:
        """Keep that something cannot be read."""
        self.unreadable.append(Unreadable(at=at, text=text[:SHOWN]))


def words(element: Element | None) -> str | None:
    """The text of an element with its spaces put right; None if there is none."""
    return None if element is None else " ".join("".join(element.itertext()).split()) or None
