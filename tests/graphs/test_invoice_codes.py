"""What the standard says of codes, of identifiers and of the two syntaxes, beside the rules that reckon."""

from __future__ import annotations

from decimal import Decimal

import pytest
from tests.invoice_documents import invoice
from tests.tools.test_e_invoice import CII

from eventwright.graphs.invoicing.rules import findings
from eventwright.tools.e_invoice import read_xml

PARTY = "<cac:AccountingSupplierParty><cac:Party>"
ITEM = "<cbc:Name>Paper A4</cbc:Name>"
TERMS = "<cac:PaymentTerms>"
DISCOUNT = (
    "<cac:AllowanceCharge><cbc:ChargeIndicator>{charge}</cbc:ChargeIndicator>"
    "<cbc:AllowanceChargeReasonCode>{code}</cbc:AllowanceChargeReasonCode>"
    '<cbc:Amount currencyID="EUR">0.00</cbc:Amount></cac:AllowanceCharge>'
)


def broken(xml: str) -> set[str]:
    return {finding.rule for finding in findings(read_xml(xml))}


def codes(xml: str) -> set[str]:
    return {rule for rule in broken(xml) if rule.startswith("BR-CL-")}


def tag(name: str, inside: str, **marks: str) -> str:
    """An element; of `cac` if others are inside, else of `cbc`."""
    full = f"{'cac' if inside.startswith('<') else 'cbc'}:{name}"
    return f"<{full}{''.join(f' {mark}={chr(34)}{value}{chr(34)}' for mark, value in marks.items())}>{inside}</{full}>"


TYPE = tag("InvoiceTypeCode", "380")
LAST_OF_CATEGORY = "<cac:TaxScheme><cbc:ID>VAT</cbc:ID></cac:TaxScheme></cac:TaxCategory>"
FILE = tag("Attachment", tag("EmbeddedDocumentBinaryObject", "QQ==", mimeCode="{}"))
#: The rule; beside what it is put; what is put there; a code that is in the list; and one that is not.
CODED = [
    ("BR-CL-01", TYPE, tag("InvoiceTypeCode", "{}"), "384", "381"),
    ("BR-CL-03", TERMS, tag("AllowanceCharge", tag("Amount", "0.00", currencyID="{}")), "SEK", "EURO"),
    ("BR-CL-06", TERMS, tag("InvoicePeriod", tag("DescriptionCode", "{}")), "35", "29"),
    ("BR-CL-10", PARTY, tag("PartyIdentification", tag("ID", "1", schemeID="{}")), "0088", "9999"),
    ("BR-CL-11", PARTY, tag("PartyLegalEntity", tag("CompanyID", "1", schemeID="{}")), "0002", "SEPA"),
    ("BR-CL-13", ITEM, tag("CommodityClassification", tag("ItemClassificationCode", "1", listID="{}")), "STI", "QQ"),
    ("BR-CL-15", ITEM, tag("OriginCountry", tag("IdentificationCode", "{}")), "CN", "ZZ"),
    ("BR-CL-19", TERMS, DISCOUNT.replace("{charge}", "false").replace("{code}", "{}"), "95", "FC"),
    ("BR-CL-20", TERMS, DISCOUNT.replace("{charge}", "true").replace("{code}", "{}"), "FC", "95"),
    ("BR-CL-21", ITEM, tag("StandardItemIdentification", tag("ID", "1", schemeID="{}")), "0160", "GTIN"),
    ("BR-CL-22", LAST_OF_CATEGORY, tag("TaxExemptionReasonCode", "{}"), "VATEX-EU-AE", "BECAUSE"),
    ("BR-CL-24", TERMS, tag("AdditionalDocumentReference", tag("ID", "1") + FILE), "application/pdf", "text/html"),
    ("BR-CL-25", PARTY, tag("EndpointID", "1", schemeID="{}"), "0192", "1234"),
    ("BR-CL-26", TERMS, tag("Delivery", tag("DeliveryLocation", tag("ID", "1", schemeID="{}"))), "0088", "X"),
]


@pytest.mark.parametrize(("rule", "before", "put", "listed", "unlisted"), CODED, ids=[row[0] for row in CODED])
def test_a_code_that_is_in_nobody_s_list_is_found_by_its_rule_and_a_listed_one_is_not(
    rule: str, before: str, put: str, listed: str, unlisted: str
) -> None:
    assert before in invoice()
    after = "" if before == TYPE else before

    def with_code(code: str) -> str:
        added = put.format(code)
        # A party or an item begins with what was searched for.
        xml = after + added if before in (PARTY, ITEM) else added + after
        return invoice().replace(before, xml, 1)

    assert codes(with_code(listed)) == set()
    assert codes(with_code(unlisted)) == {rule}


@pytest.mark.parametrize(("unit", "rules"), [("KGM", set()), ("XBX", set()), ("boxes", {"BR-CL-23"})])
def test_a_unit_is_one_of_the_united_nations(unit: str, rules: set[str]) -> None:
    assert codes(invoice().replace('unitCode="C62"', f'unitCode="{unit}"')) == rules


def test_what_a_bank_knows_a_creditor_by_is_no_identifier_of_the_seller() -> None:
    number = '<cac:PartyIdentification><cbc:ID schemeID="{}">DE98ZZZ</cbc:ID></cac:PartyIdentification>'
    without = invoice().replace("<cbc:CompanyID>DE123456789</cbc:CompanyID>", "")
    assert "BR-CO-26" in broken(without)
    assert "BR-CO-26" in broken(without.replace(PARTY, PARTY + number.format("SEPA"), 1))
    assert "BR-CO-26" not in broken(without.replace(PARTY, PARTY + number.format("0204"), 1))


@pytest.mark.parametrize("kind", ["381", "396", "502", "503"])
def test_no_type_of_credit_note_is_ever_money_that_we_owe(kind: str) -> None:
    read = read_xml(CII.replace(">380<", f">{kind}<"))
    assert read.is_credit
    assert read.owed == Decimal("-125.00")
    assert findings(read) == []


def test_a_vat_of_nothing_may_be_left_away_in_cii_and_a_total_that_hides_it_is_found() -> None:
    exempt = (
        CII.replace(">25.00</ram:CalculatedAmount>", ">0.00</ram:CalculatedAmount>")
        .replace("<ram:CategoryCode>S<", "<ram:CategoryCode>Z<")
        .replace("Percent>25<", "Percent>0<")
        .replace('<ram:TaxTotalAmount currencyID="EUR">25.00</ram:TaxTotalAmount>', "")
    )
    assert broken(exempt) == {"BR-CO-15"}
    assert broken(exempt.replace("125.00", "100.00")) == set()


@pytest.mark.parametrize(("basis", "rules"), [("100.99", set()), ("101.00", {"BR-Z-08"})])
def test_cii_leaves_room_for_those_who_round_on_each_line_and_no_more(basis: str, rules: set[str]) -> None:
    zero = CII.replace("<ram:CategoryCode>S<", "<ram:CategoryCode>Z<").replace("Percent>25<", "Percent>0<")
    zero = zero.replace(">25.00<", ">0.00<").replace(">125.00<", ">100.00<")
    assert broken(zero) == set()
    assert broken(zero.replace("BasisAmount>100.00<", f"BasisAmount>{basis}<")) == rules


def test_a_category_of_another_tax_does_not_break_the_vat_down() -> None:
    other = (
        invoice(vat="0.00", gross="100.00").replace("<cbc:ID>S</cbc:ID>", "<cbc:ID>Z</cbc:ID>").replace(">25<", ">0<")
    )
    assert broken(other) == set()
    total, at, lines = other.partition("</cac:TaxTotal>")
    assert "BR-Z-01" in broken(total.replace("<cac:TaxScheme><cbc:ID>VAT<", "<cac:TaxScheme><cbc:ID>GST<") + at + lines)
