"""Reading e-invoices: both syntaxes, PDF files with one inside, and documents that mean harm."""

from __future__ import annotations

import io
import zlib
from decimal import Decimal
from pathlib import Path

import facturx
import pypdf
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.invoice_documents import EXAMPLES, TEXT, example, invoice, letter

from eventwright.graphs.invoicing.rules import findings
from eventwright.tools.e_invoice import MOST_LETTERS, MOST_PAGES, UnreadableDocument, read_pdf, read_xml

CII = """<?xml version="1.0" encoding="UTF-8"?>
<rsm:CrossIndustryInvoice xmlns:rsm="urn:un:unece:uncefact:data:standard:CrossIndustryInvoice:100"
 xmlns:ram="urn:un:unece:uncefact:data:standard:ReusableAggregateBusinessInformationEntity:100"
 xmlns:udt="urn:un:unece:uncefact:data:standard:UnqualifiedDataType:100">
<rsm:ExchangedDocumentContext><ram:GuidelineSpecifiedDocumentContextParameter><ram:ID>urn:cen.eu:en16931:2017</ram:ID>
</ram:GuidelineSpecifiedDocumentContextParameter></rsm:ExchangedDocumentContext>
<rsm:ExchangedDocument><ram:ID>A-1</ram:ID><ram:TypeCode>380</ram:TypeCode>
<ram:IssueDateTime><udt:DateTimeString format="102">20261102</udt:DateTimeString></ram:IssueDateTime>
</rsm:ExchangedDocument><rsm:SupplyChainTradeTransaction>
<ram:IncludedSupplyChainTradeLineItem>
<ram:AssociatedDocumentLineDocument><ram:LineID>1</ram:LineID></ram:AssociatedDocumentLineDocument>
<ram:SpecifiedTradeProduct><ram:Name>Paper A4</ram:Name></ram:SpecifiedTradeProduct>
<ram:SpecifiedLineTradeAgreement><ram:NetPriceProductTradePrice><ram:ChargeAmount>10.00</ram:ChargeAmount>
</ram:NetPriceProductTradePrice></ram:SpecifiedLineTradeAgreement>
<ram:SpecifiedLineTradeDelivery><ram:BilledQuantity unitCode="C62">10</ram:BilledQuantity>
</ram:SpecifiedLineTradeDelivery>
<ram:SpecifiedLineTradeSettlement><ram:ApplicableTradeTax><ram:TypeCode>VAT</ram:TypeCode>
<ram:CategoryCode>S</ram:CategoryCode><ram:RateApplicablePercent>25</ram:RateApplicablePercent>
</ram:ApplicableTradeTax><ram:SpecifiedTradeSettlementLineMonetarySummation>
<ram:LineTotalAmount>100.00</ram:LineTotalAmount></ram:SpecifiedTradeSettlementLineMonetarySummation>
</ram:SpecifiedLineTradeSettlement></ram:IncludedSupplyChainTradeLineItem>
<ram:ApplicableHeaderTradeAgreement>
<ram:SellerTradeParty><ram:Name>Paper Mill Ltd</ram:Name>
<ram:PostalTradeAddress><ram:CountryID>DE</ram:CountryID></ram:PostalTradeAddress>
<ram:SpecifiedTaxRegistration><ram:ID schemeID="VA">DE123456789</ram:ID></ram:SpecifiedTaxRegistration>
</ram:SellerTradeParty><ram:BuyerTradeParty><ram:Name>Us</ram:Name>
<ram:PostalTradeAddress><ram:CountryID>DE</ram:CountryID></ram:PostalTradeAddress></ram:BuyerTradeParty>
<ram:BuyerOrderReferencedDocument><ram:IssuerAssignedID>PO-7</ram:IssuerAssignedID></ram:BuyerOrderReferencedDocument>
</ram:ApplicableHeaderTradeAgreement><ram:ApplicableHeaderTradeDelivery/>
<ram:ApplicableHeaderTradeSettlement><ram:InvoiceCurrencyCode>EUR</ram:InvoiceCurrencyCode>
<ram:SpecifiedTradeSettlementPaymentMeans><ram:TypeCode>58</ram:TypeCode><ram:PayeePartyCreditorFinancialAccount>
<ram:IBANID>DE89370400440532013000</ram:IBANID></ram:PayeePartyCreditorFinancialAccount>
</ram:SpecifiedTradeSettlementPaymentMeans>
<ram:ApplicableTradeTax><ram:CalculatedAmount>25.00</ram:CalculatedAmount><ram:TypeCode>VAT</ram:TypeCode>
<ram:BasisAmount>100.00</ram:BasisAmount><ram:CategoryCode>S</ram:CategoryCode>
<ram:RateApplicablePercent>25</ram:RateApplicablePercent></ram:ApplicableTradeTax>
<ram:SpecifiedTradePaymentTerms><ram:Description>30 days</ram:Description></ram:SpecifiedTradePaymentTerms>
<ram:SpecifiedTradeSettlementHeaderMonetarySummation><ram:LineTotalAmount>100.00</ram:LineTotalAmount>
<ram:TaxBasisTotalAmount>100.00</ram:TaxBasisTotalAmount><ram:TaxTotalAmount currencyID="EUR">25.00</ram:TaxTotalAmount>
<ram:GrandTotalAmount>125.00</ram:GrandTotalAmount><ram:DuePayableAmount>125.00</ram:DuePayableAmount>
</ram:SpecifiedTradeSettlementHeaderMonetarySummation>
</ram:ApplicableHeaderTradeSettlement></rsm:SupplyChainTradeTransaction></rsm:CrossIndustryInvoice>"""


# -- documents that mean harm ------------------------------------------------------------------------------------------


def hostile(doctype: str, number: str = "&x;") -> str:
    head, _, body = invoice(number=number).partition("?>")
    return f"{head}?>{doctype}{body}"


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE Invoice [<!ENTITY x "y">]>',
        '<!DOCTYPE Invoice [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;"><!ENTITY x "&b;&b;&b;&b;&b;">]>',
        '<!DOCTYPE Invoice [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE Invoice [<!ENTITY x SYSTEM "http://127.0.0.1:9/x">]>',
        '<!DOCTYPE Invoice [<!ENTITY % p SYSTEM "http://127.0.0.1:9/x"> %p;]>',
        '<!DOCTYPE Invoice SYSTEM "http://127.0.0.1:9/x.dtd">',
        "<!DOCTYPE Invoice>",
    ],
    ids=["entity", "laughs", "file", "http", "parameter", "outside", "plain"],
)
def test_xml_with_a_document_type_is_refused_before_anything_unfolds_or_is_fetched(doctype: str) -> None:
    for number in ("&x;", "A-1"):
        with pytest.raises(UnreadableDocument, match=r"document type|parsed"):
            read_xml(hostile(doctype, number))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain words",
        "<Invoice/>",
        "<a>" * 50,
        "\x00",
        invoice()[:500],
        "<a>" + "x" * MOST_LETTERS + "</a>",
        '<?xml version="1.0" encoding="no-such"?><a/>',
    ],
    ids=["empty", "words", "another", "open", "nul", "cut", "huge", "encoding"],
)
def test_what_is_no_invoice_is_refused_with_a_reason(text: str) -> None:
    for document in (text, text.encode()):
        with pytest.raises(UnreadableDocument, match="ask the sender"):
            read_xml(document)


@given(st.binary(max_size=300))
def test_no_bytes_make_the_reader_fail_otherwise(data: bytes) -> None:
    for read in (read_xml, read_pdf):
        with pytest.raises(UnreadableDocument):
            read(data)


def test_an_element_of_another_namespace_is_no_amount() -> None:
    evil = invoice().replace(
        "<cbc:PayableAmount", '<x:PayableAmount xmlns:x="urn:evil">1</x:PayableAmount><cbc:PayableAmount'
    )
    assert read_xml(evil).owed == Decimal("125.00")


def test_a_pdf_whose_parts_unfold_too_far_is_refused() -> None:
    bomb = zlib.compress(b"0 0 m " * 4_000_000)
    page = letter("x").replace(b"/Contents 4 0 R", b"/Contents 6 0 R")
    part = b"6 0 obj\n<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream\nendobj\n" % (len(bomb), bomb)
    with pytest.raises(UnreadableDocument):
        read_pdf(page.replace(b"xref", part + b"xref", 1))


# -- what is read ------------------------------------------------------------------------------------------------------


def test_both_syntaxes_say_the_same() -> None:
    ubl, cii = read_xml(invoice()), read_xml(CII)
    assert findings(cii) == findings(ubl) == []
    shared = {"number", "issued", "type", "currency", "order", "totals", "taxes", "owed", "accounts", "specification"}
    assert {name: getattr(cii, name) for name in shared} == {name: getattr(ubl, name) for name in shared}
    assert [line.amount for line in cii.lines] == [line.amount for line in ubl.lines]
    assert cii.seller is not None
    assert cii.seller.vat_ids == ("DE123456789",)


def test_a_pdf_with_an_invoice_inside_is_that_invoice() -> None:
    pdf = facturx.generate_from_binary(letter("See inside"), CII.encode(), check_xsd=False, check_schematron=False)
    content = read_pdf(pdf)
    assert content.invoice == read_xml(CII)
    assert content.text == ""


def test_a_pdf_with_words_alone_gives_its_words() -> None:
    content = read_pdf(letter(TEXT))
    assert content.invoice is None
    assert "Invoice number: T-77" in content.text
    assert "10 x Paper A4 @ 10.00 = 100.00" in content.text


@pytest.mark.parametrize("inside", ["<Order/>", hostile('<!DOCTYPE x [<!ENTITY x "y">]>'), "no XML"])
def test_a_pdf_whose_invoice_cannot_be_read_is_not_read_by_its_words_instead(inside: str) -> None:
    """Who reads the words and who reads the invoice would pay two different things."""
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(letter(TEXT)))
    writer.add_attachment("factur-x.xml", inside.encode())
    file = io.BytesIO()
    writer.write(file)
    with pytest.raises(UnreadableDocument):
        read_pdf(file.getvalue())


def test_an_encrypted_pdf_and_one_with_too_many_pages_are_refused() -> None:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(letter(TEXT)))
    for _ in range(MOST_PAGES):
        writer.add_page(writer.pages[0])
    long, locked = io.BytesIO(), io.BytesIO()
    writer.write(long)
    writer.encrypt("secret", algorithm="RC4-128")
    writer.write(locked)
    for file, why in ((long, "pages"), (locked, "encrypted")):
        with pytest.raises(UnreadableDocument, match=why):
            read_pdf(file.getvalue())


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_the_state_of_a_run_holds_an_invoice_as_json_and_gets_it_back(file: Path) -> None:
    read = read_xml(file.read_bytes())
    assert type(read).model_validate_json(read.model_dump_json()) == read


def test_a_credit_note_and_a_negative_invoice_lessen_what_is_owed() -> None:
    assert read_xml(example("ubl-tc434-creditnote1.xml")).owed == Decimal("-100.11")
    assert read_xml(example("BIS3_Invoice_negativ.XML")).owed == Decimal("-782179.43")
    assert read_xml(CII.replace(">380<", ">381<")).owed == Decimal("-125.00")
