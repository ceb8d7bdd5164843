"""What stands in an invoice's XML where it must not, too often, or in another spelling; and what only looks wrong."""

from __future__ import annotations

import io

import pypdf
import pytest
from tests.invoice_documents import TEXT, invoice, letter
from tests.tools.test_e_invoice import CII

from eventwright.graphs.invoicing.rules import findings
from eventwright.tools.e_invoice import MOST_MARKS, UnreadableDocument, read_pdf, read_xml

TERMS = "<cac:PaymentTerms>"
PARTY = "<cac:AccountingSupplierParty><cac:Party>"
VAT = "<cac:TaxScheme><cbc:ID>VAT</cbc:ID></cac:TaxScheme>"


def broken(xml: str) -> set[str]:
    return {finding.rule for finding in findings(read_xml(xml))}


def whole(xml: str, name: str) -> str:
    """The element of this name with everything inside."""
    return xml[xml.index(f"<{name}>") : xml.index(f"</{name}>") + len(f"</{name}>")]


def reference(inside: str, kind: str = "<cbc:DocumentTypeCode>130</cbc:DocumentTypeCode>") -> str:
    return f"<cac:AdditionalDocumentReference>{inside}{kind}</cac:AdditionalDocumentReference>"


# -- what could be read in two ways ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cac:LegalMonetaryTotal", "cac:AccountingSupplierParty", "cac:Item", "cac:Price"])
def test_of_two_elements_where_one_belongs_none_is_taken_without_a_word(name: str) -> None:
    xml = invoice()
    assert "FORM" in broken(xml.replace(whole(xml, name), whole(xml, name) * 2))


@pytest.mark.parametrize("said", ["", "perhaps"])
def test_what_is_neither_an_allowance_nor_a_charge_is_found(said: str) -> None:
    extra = (
        f"<cac:AllowanceCharge><cbc:ChargeIndicator>{said}</cbc:ChargeIndicator>"
        '<cbc:Amount currencyID="EUR">50.00</cbc:Amount></cac:AllowanceCharge>'
    )
    assert broken(invoice().replace(TERMS, extra + TERMS)) == {"FORM"}


@pytest.mark.parametrize("name", ["PayableAmount", "TaxInclusiveAmount", "PriceAmount"])
def test_an_amount_in_another_currency_than_the_invoice_is_found(name: str) -> None:
    assert broken(invoice().replace(f'<cbc:{name} currencyID="EUR"', f'<cbc:{name} currencyID="USD"')) == {"CURRENCY"}
    cii = CII.replace("<ram:DuePayableAmount>", '<ram:DuePayableAmount currencyID="USD">')
    assert broken(cii) == {"CII-DT-031"}


def test_the_vat_may_be_told_in_the_currency_of_the_tax_as_well() -> None:
    told = '<cac:TaxTotal><cbc:TaxAmount currencyID="SEK">280.00</cbc:TaxAmount></cac:TaxTotal>'
    currency = "</cbc:DocumentCurrencyCode>"
    xml = invoice().replace(currency, f"{currency}<cbc:TaxCurrencyCode>SEK</cbc:TaxCurrencyCode>")
    assert broken(xml) == {"BR-53"}
    assert broken(xml.replace("<cac:LegalMonetaryTotal>", told + "<cac:LegalMonetaryTotal>")) == set()


def test_an_amount_without_a_currency_is_found() -> None:
    assert broken(invoice().replace('<cbc:PriceAmount currencyID="EUR"', "<cbc:PriceAmount")) == {"BR-CL-03"}
    bare = CII.replace('<ram:TaxTotalAmount currencyID="EUR">', "<ram:TaxTotalAmount>")
    assert "BR-CO-15" in broken(bare)


@pytest.mark.parametrize("form", ['format="101"', 'format="203"', ""])
def test_a_day_in_another_format_than_the_standards_is_no_day(form: str) -> None:
    assert broken(CII.replace('format="102"', form)) == {"FORM"}


def test_of_two_invoices_in_one_pdf_none_is_chosen() -> None:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(letter(TEXT)))
    for name, due in (("a.xml", "125.00"), ("b.xml", "1.00")):
        writer.add_attachment(name, CII.replace("125.00</ram:Due", f"{due}</ram:Due").encode())
    file = io.BytesIO()
    writer.write(file)
    with pytest.raises(UnreadableDocument, match="several invoices"):
        read_pdf(file.getvalue())


def test_xml_of_more_tags_or_attributes_than_any_invoice_is_refused_before_it_is_read() -> None:
    for much in ("<a/>" * MOST_MARKS, f"<a {'b=1 ' * (MOST_MARKS + 1)}/>"):
        with pytest.raises(UnreadableDocument, match="at most"):
            read_xml(f"<a>{much}</a>")


# -- the rules of the syntaxes -----------------------------------------------------------------------------------------

MEANS = whole(invoice(), "cac:PaymentMeans")
SCHEME = f"<cac:PartyTaxScheme><cbc:CompanyID>DE123456789</cbc:CompanyID>{VAT}</cac:PartyTaxScheme>"
OBJECT = reference('<cbc:ID schemeID="{}">1</cbc:ID>')


@pytest.mark.parametrize(
    ("rule", "before", "put"),
    [
        ("UBL-SR-05", TERMS, "<cac:PaymentTerms><cbc:Note>at once</cbc:Note></cac:PaymentTerms>"),
        ("UBL-SR-08", TERMS, "<cac:InvoicePeriod><cbc:StartDate>2026-01-01</cbc:StartDate></cac:InvoicePeriod>" * 2),
        ("UBL-SR-12", SCHEME, SCHEME),
        ("UBL-SR-43", TERMS, reference('<cbc:ID schemeID="AAA">1</cbc:ID>', "")),
        (
            "UBL-SR-44",
            "<cac:PayeeFinancialAccount>",
            "<cbc:PaymentID>1</cbc:PaymentID><cbc:PaymentID>2</cbc:PaymentID>",
        ),
        ("UBL-SR-47", TERMS, MEANS.replace(">58<", ">57<")),
        ("UBL-SR-48", "<cac:ClassifiedTaxCategory>", whole(invoice(), "cac:ClassifiedTaxCategory")),
        ("UBL-SR-53", SCHEME, f"<cac:PartyTaxScheme>{VAT}</cac:PartyTaxScheme>"),
    ],
)
def test_what_the_syntax_lets_stand_once_or_wants_is_found_by_its_rule(rule: str, before: str, put: str) -> None:
    assert before in invoice()
    assert rule in broken(invoice().replace(before, put + before, 1))


def test_in_cii_what_may_stand_once_is_found_by_its_rule() -> None:
    due = "<ram:DuePayableAmount>125.00</ram:DuePayableAmount>"
    assert "CII-SR-487" in broken(CII.replace(due, due + due.replace("125", "1")))
    assert "CII-SR-014" in broken(CII.replace("<ram:TypeCode>380</ram:TypeCode>", "", 1))


@pytest.mark.parametrize(("scheme", "rules"), [("AAA", set()), ("ZZZ", set()), ("QQQ", {"BR-CL-07"})])
def test_what_an_invoice_is_about_is_told_by_a_listed_code(scheme: str, rules: set[str]) -> None:
    assert broken(invoice().replace(TERMS, OBJECT.format(scheme) + TERMS)) == rules


@pytest.mark.parametrize(
    ("note", "rules"), [("#ADU#hello", set()), ("# 1 of 2 #", set()), ("no code", set()), ("#QQQ#hello", {"BR-CL-08"})]
)
def test_what_a_note_is_about_is_told_by_a_listed_code(note: str, rules: set[str]) -> None:
    assert broken(invoice().replace(TERMS, f"<cbc:Note>{note}</cbc:Note>{TERMS}")) == rules


# -- what is valid, and is not stopped ---------------------------------------------------------------------------------


def test_the_reason_of_an_exemption_may_be_written_in_small_letters() -> None:
    reason = "<cbc:TaxExemptionReasonCode>vatex-eu-132-1g</cbc:TaxExemptionReasonCode>"
    end = f"{VAT}</cac:TaxCategory>"
    exempt = invoice(vat="0.00", gross="100.00").replace("<cbc:ID>S<", "<cbc:ID>E<").replace(">25<", ">0<")
    assert broken(exempt.replace(end, reason + end)) == set()


def test_an_invoice_that_says_nothing_about_when_to_pay_is_valid() -> None:
    assert broken(invoice().replace(whole(invoice(), "cac:PaymentTerms"), "")) == set()


def test_an_invoice_with_a_long_file_inside_is_read() -> None:
    file = '<cac:Attachment><cbc:EmbeddedDocumentBinaryObject mimeCode="application/pdf" filename="a.pdf">{}</cbc:{}>'
    inside = file.format("QUJD" * 1_000_000, "EmbeddedDocumentBinaryObject") + "</cac:Attachment>"
    assert broken(invoice().replace(TERMS, reference(f"<cbc:ID>1</cbc:ID>{inside}", "") + TERMS)) == set()


@pytest.mark.parametrize(("tax", "rules"), [("26.00", set()), ("26.01", {"BR-CO-17", "BR-S-09"})])
def test_in_cii_the_vat_may_be_one_off_and_no_more(tax: str, rules: set[str]) -> None:
    whole_sums = CII.replace(">25.00<", f">{tax}<").replace(">125.00<", f">{100 + float(tax):.2f}<")
    assert broken(whole_sums) - {"BR-S-09"} == rules - {"BR-S-09"}


def test_in_cii_the_basis_of_the_standard_rate_is_exact() -> None:
    assert "BR-S-08" in broken(CII.replace("BasisAmount>100.00<", "BasisAmount>100.50<"))
