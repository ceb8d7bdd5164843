"""The rules of EN 16931: the standard's own unit tests agree, and its valid examples break none."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.invoice_documents import EXAMPLES, RuleCase, invoice, rule_cases

from eventwright.graphs.invoicing.findings import money, to_cents
from eventwright.graphs.invoicing.rules import findings, is_arithmetic
from eventwright.tools.e_invoice import read_xml
from eventwright.tools.e_invoice_fields import Category, EInvoice

CASES = dict(rule_cases())


def broken(xml: str) -> list[str]:
    return [finding.rule for finding in findings(read_xml(xml))]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_each_document_of_the_standards_own_tests_keeps_or_breaks_its_rule_as_they_say(case: RuleCase) -> None:
    assert (case.rule in broken(case.xml)) is case.breaks


def test_no_test_of_the_standard_is_left_out() -> None:
    rules = {file.stem for file in (Path(__file__).parent.parent / "data" / "invoices" / "rules").glob("*.xml")}
    assert {case.rule for case in CASES.values()} == rules
    assert len(CASES) == 106


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_the_valid_examples_of_the_standard_break_no_rule(file: Path) -> None:
    assert findings(read_xml(file.read_bytes())) == []


def test_our_own_small_invoice_breaks_no_rule() -> None:
    assert broken(invoice()) == broken(invoice(credit=True)) == []


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        ({"gross": "125.01"}, {"BR-CO-15"}),
        ({"due": "124.99"}, {"BR-CO-16"}),
        ({"vat": "26.01"}, {"BR-CO-15", "BR-CO-17", "BR-S-09"}),
        ({"lines": "90.00"}, {"BR-CO-13", "BR-S-08"}),
        ({"number": ""}, {"BR-02"}),
        ({"issued": ""}, {"BR-03"}),
        ({"currency": "XYZ"}, {"BR-CL-04", "BR-CL-03"}),
        ({"net": "100.001"}, {"BR-DEC-09", "BR-DEC-12", "BR-DEC-19", "BR-DEC-23", "BR-CO-10", "UBL-DT-01"}),
        ({"price": "-10.00"}, {"BR-27"}),
        ({"vat_id": "123456789"}, {"BR-CO-09"}),
        ({"gross": "1e3", "due": "125.00"}, {"FORM", "BR-CO-15", "BR-CO-16"}),
    ],
)
def test_a_mistake_is_found_by_the_rules_that_are_about_it(change: dict[str, str], rules: set[str]) -> None:
    assert set(broken(invoice(**change))) == rules  # type: ignore[arg-type]


def test_a_finding_says_the_rule_the_place_and_both_amounts() -> None:
    [found] = findings(read_xml(invoice(gross="125.01")))
    assert (found.rule, found.at, found.stated, found.expected) == ("BR-CO-15", "BT-112", "125.01", "125.00")
    assert found.words.startswith("BR-CO-15, BT-112: 125.01 stated, 125.00 expected")


def test_an_amount_that_stands_twice_is_no_amount() -> None:
    twice = invoice().replace(
        "<cbc:PayableAmount", '<cbc:PayableAmount currencyID="EUR">1.00</cbc:PayableAmount><cbc:PayableAmount'
    )
    read = read_xml(twice)
    assert read.owed is None
    assert "FORM" in broken(twice)


def category(code: str, rate: str | None, **more: str) -> Category:
    return Category(code=code, rate=None if rate is None else Decimal(rate), **more)  # type: ignore[arg-type]


def recategorised(part: Category, tax: str = "0.00", line: Category | None = None) -> EInvoice:
    """Our small invoice with everything in another VAT category."""
    plain = read_xml(invoice(vat=tax, gross=str(Decimal(100) + Decimal(tax))))
    [total], [one] = plain.taxes, plain.lines
    [breakdown] = total.breakdown
    told = total.model_copy(update={"breakdown": (breakdown.model_copy(update={"categories": (part,)}),)})
    own = line or Category(code=part.code, rate=part.rate)
    return plain.model_copy(update={"taxes": (told,), "lines": (one.model_copy(update={"categories": (own,)}),)})


@pytest.mark.parametrize(
    ("part", "tax", "rules"),
    [
        (category("Z", "0"), "0.00", set()),
        (category("Z", "0"), "1.00", {"BR-Z-09", "BR-CO-17"}),
        (category("Z", "0", reason="why not"), "0.00", {"BR-Z-10"}),
        (category("Z", "5"), "5.00", {"BR-Z-05", "BR-Z-09"}),
        (category("E", "0", reason="exempt"), "0.00", set()),
        (category("E", "0"), "0.00", {"BR-E-10"}),
        (category("AE", "0", reason="reverse charge"), "0.00", {"BR-AE-02"}),
        (category("G", "0", reason="export"), "0.00", set()),
        (category("K", "0", reason="within the Union"), "0.00", {"BR-IC-02", "BR-IC-11", "BR-IC-12"}),
        (category("O", None, reason="not subject"), "0.00", {"BR-O-02"}),
        (category("O", "0", reason="not subject"), "0.00", {"BR-O-02", "BR-O-05"}),
        (category("L", "7"), "7.00", set()),
        (category("L", "7"), "9.00", {"BR-AF-09", "BR-CO-17"}),
        (category("M", "0"), "0.00", set()),
        (category("M", "4", reason="x"), "4.00", {"BR-AG-10"}),
        (category("S", "0"), "0.00", {"BR-S-05"}),
        (category("S", None), "0.00", {"BR-48", "BR-S-05", "BR-S-09"}),
    ],
    ids=lambda value: f"{value.code}-{value.rate}" if isinstance(value, Category) else None,
)
def test_each_vat_category_has_its_rates_its_reason_and_its_numbers(part: Category, tax: str, rules: set[str]) -> None:
    assert {finding.rule for finding in findings(recategorised(part, tax))} == rules


def test_a_category_of_a_line_that_is_not_broken_down_is_found() -> None:
    found = findings(recategorised(category("Z", "0"), line=category("E", "0")))
    assert {finding.rule for finding in found} == {"BR-Z-08", "BR-E-01"}


@given(st.decimals(-10_000, 10_000, places=2), st.integers(1, 99))
def test_sums_are_decimals_so_what_adds_up_on_paper_adds_up_here(net: Decimal, rate: int) -> None:
    """With floats one of a few such invoices breaks a rule that it keeps."""
    vat = to_cents(net * rate / 100)
    xml = invoice(net=f"{net}", vat=f"{vat}", gross=f"{net + vat}").replace(">25<", f">{rate}<")
    assert broken(xml) == []


@given(st.decimals(-1_000_000, 1_000_000, places=3))
def test_halves_of_cents_go_up_as_in_xpath(number: Decimal) -> None:
    rounded = to_cents(number)
    assert Decimal("-0.005") < rounded - number <= Decimal("0.005")


def test_amounts_are_shown_with_cents_and_never_as_powers() -> None:
    assert [money(Decimal(text)) for text in ("1E+3", "5", "2.5", "0.125")] == ["1000.00", "5.00", "2.50", "0.125"]


def test_the_rules_that_reckon_are_known_as_such() -> None:
    found = findings(read_xml(invoice(vat="26.01", lines="90.00", net="100.001")))
    reckoning = {one.rule for one in found if is_arithmetic(one)}
    assert {"BR-CO-13", "BR-CO-15", "BR-CO-17", "BR-S-08", "BR-S-09", "BR-DEC-12"} <= reckoning
    assert not any(is_arithmetic(found) for found in findings(read_xml(invoice(number="", issued=""))))
