"""The promise of the invoice workflow under any change of a valid invoice: no arithmetic fault is paid unapproved."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.invoice_documents import EXAMPLES
from tests.journeys.invoice_world import Office, open_office

from eventwright.graphs.invoicing.rules import findings, is_arithmetic
from eventwright.runs.records import Decision, DecisionType
from eventwright.tools.e_invoice import UnreadableDocument, read_xml

#: Elements whose text is a number.
NUMBER = re.compile(r"(<cbc:(?:\w*Amount|Percent|\w*Quantity)\b[^>]*>)(-?[\d.]+)(<)")
TEXTS = [file.read_text(encoding="utf-8") for file in EXAMPLES]
NUMBERS = st.one_of(
    st.decimals(-100_000, 100_000, places=2).map(str),
    st.sampled_from(["0", "-0", "1e9", "NaN", "Infinity", "", "1,000.00", "٣", "0.001", "9" * 40]),
)


def change(text: str, place: int, number: str) -> str:
    """The document with one of its numbers changed."""
    found = list(NUMBER.finditer(text))
    one = found[place % len(found)]
    return f"{text[: one.start(2)]}{number}{text[one.end(2) :]}"


async def paid_unapproved(migrated_sqlite: Path, text: str, original: str) -> tuple[bool, bool]:
    """Whether money is scheduled before anybody has said a word, and whether it is after everybody has said no."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "runs.db"
        with closing(sqlite3.connect(migrated_sqlite)) as template:
            template.execute("VACUUM INTO ?", (str(file),))
        async with open_office(Path(folder), f"sqlite+aiosqlite:///{file}") as office:
            return await _played(office, text, original)


async def _played(office: Office, text: str, original: str) -> tuple[bool, bool]:
    await office.knows(read_xml(original))
    async with office.received(xml=text) as run:
        before = bool(await office.paid())
        while reviews := await run.reviews():
            await run.answer(Decision(type=DecisionType.REJECT, by="nobody"), reviews[0].id)
        return before, bool(await office.paid())


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(text=st.sampled_from(TEXTS), place=st.integers(0, 500), number=NUMBERS)
def test_no_invoice_with_a_fault_in_its_sums_is_paid_without_an_approval(
    migrated_sqlite: Path, text: str, place: int, number: str
) -> None:
    changed = change(text, place, number)
    try:
        faults = [finding for finding in findings(read_xml(changed)) if is_arithmetic(finding)]
    except UnreadableDocument:
        faults = []
    paid, after = asyncio.run(paid_unapproved(migrated_sqlite, changed, text))
    owed = read_xml(changed).owed
    assert not (faults and paid)
    assert not ((paid or after) and (owed is None or owed <= 0))


@settings(max_examples=150)
@given(st.sampled_from(TEXTS), st.integers(0, 500), st.decimals(-100_000, 100_000, places=2))
def test_a_changed_total_never_escapes_every_rule(text: str, place: int, number: object) -> None:
    """A single total, changed by one or more, breaks a sum: they hang together."""
    totals = re.compile(r"(<cbc:(?:TaxExclusive|TaxInclusive|Payable)Amount\b[^>]*>)(-?[\d.]+)(<)")
    found = list(totals.finditer(text))
    one = found[place % len(found)]
    if float(one[2]) == float(str(number)):
        return
    changed = f"{text[: one.start(2)]}{number}{text[one.end(2) :]}"
    assert any(is_arithmetic(finding) for finding in findings(read_xml(changed)))
