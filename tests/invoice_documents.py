"""Documents for the tests of the invoice workflow: those of the standard, and ones made from them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

DATA = Path(__file__).parent / "data" / "invoices"
EXAMPLES = sorted((DATA / "examples").iterdir())


class RuleCase(NamedTuple):
    """A document, and whether it breaks the rule."""

    rule: str
    breaks: bool
    xml: str


def rule_cases() -> Iterator[tuple[str, RuleCase]]:
    """Every assertion of every unit test of the standard, with a name."""
    for file in sorted((DATA / "rules").glob("*.xml")):
        for place, test in enumerate(ElementTree.parse(file).getroot().findall("{*}test")):  # noqa: S314 - our own files
            said, document = test
            for word in said:
                name = word.tag.rpartition("}")[2]
                if name in ("success", "error"):
                    rule = word.text or ""
                    xml = ElementTree.tostring(document, encoding="unicode")
                    yield f"{file.stem}-{place}-{name}", RuleCase(rule, name == "error", xml)


def example(name: str) -> str:
    """The text of one of the examples."""
    return (DATA / "examples" / name).read_text(encoding="utf-8")


def invoice(
    *,
    number: str = "A-1",
    issued: str = "2026-11-02",
    net: str = "100.00",
    vat: str = "25.00",
    gross: str = "125.00",
    due: str | None = None,
    lines: str | None = None,
    quantity: str = "10",
    price: str = "10.00",
    account: str = "DE89370400440532013000",
    order: str = "PO-7",
    seller: str = "Paper Mill Ltd",
    vat_id: str = "DE123456789",
    currency: str = "EUR",
    credit: bool = False,
) -> str:
    """A small e-invoice of ten boxes of paper, valid as it stands; `due` and `lines` follow the sums unless they are
    given."""
    kind, quantity_name = ("CreditNote", "CreditedQuantity") if credit else ("Invoice", "InvoicedQuantity")
    money = f'currencyID="{currency}"'
    country = "<cac:Country><cbc:IdentificationCode>DE</cbc:IdentificationCode></cac:Country>"
    address = f"<cac:PostalAddress>{country}</cac:PostalAddress>"
    vat_scheme = "<cac:TaxScheme><cbc:ID>VAT</cbc:ID></cac:TaxScheme>"
    scheme = f"<cac:PartyTaxScheme><cbc:CompanyID>{vat_id}</cbc:CompanyID>{vat_scheme}</cac:PartyTaxScheme>"
    category = f"<cbc:ID>S</cbc:ID><cbc:Percent>25</cbc:Percent>{vat_scheme}"
    means = (
        f"<cac:PaymentMeans><cbc:PaymentMeansCode>58</cbc:PaymentMeansCode><cac:PayeeFinancialAccount>"
        f"<cbc:ID>{account}</cbc:ID></cac:PayeeFinancialAccount></cac:PaymentMeans>"
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<{kind} xmlns="urn:oasis:names:specification:ubl:schema:xsd:{kind}-2"
 xmlns:cac="urn:oasis:names:specification:ubl:schema:xsd:CommonAggregateComponents-2"
 xmlns:cbc="urn:oasis:names:specification:ubl:schema:xsd:CommonBasicComponents-2">
<cbc:CustomizationID>urn:cen.eu:en16931:2017</cbc:CustomizationID>
<cbc:ID>{number}</cbc:ID><cbc:IssueDate>{issued}</cbc:IssueDate>
<cbc:{kind}TypeCode>{381 if credit else 380}</cbc:{kind}TypeCode>
<cbc:DocumentCurrencyCode>{currency}</cbc:DocumentCurrencyCode>
<cac:OrderReference><cbc:ID>{order}</cbc:ID></cac:OrderReference>
<cac:AccountingSupplierParty><cac:Party>{address}{scheme}
<cac:PartyLegalEntity><cbc:RegistrationName>{seller}</cbc:RegistrationName></cac:PartyLegalEntity>
</cac:Party></cac:AccountingSupplierParty>
<cac:AccountingCustomerParty><cac:Party>{address}
<cac:PartyLegalEntity><cbc:RegistrationName>Us</cbc:RegistrationName></cac:PartyLegalEntity>
</cac:Party></cac:AccountingCustomerParty>
{means if account else ""}
<cac:PaymentTerms><cbc:Note>30 days</cbc:Note></cac:PaymentTerms>
<cac:TaxTotal><cbc:TaxAmount {money}>{vat}</cbc:TaxAmount><cac:TaxSubtotal>
<cbc:TaxableAmount {money}>{net}</cbc:TaxableAmount><cbc:TaxAmount {money}>{vat}</cbc:TaxAmount>
<cac:TaxCategory>{category}</cac:TaxCategory></cac:TaxSubtotal></cac:TaxTotal>
<cac:LegalMonetaryTotal><cbc:LineExtensionAmount {money}>{lines or net}</cbc:LineExtensionAmount>
<cbc:TaxExclusiveAmount {money}>{net}</cbc:TaxExclusiveAmount>
<cbc:TaxInclusiveAmount {money}>{gross}</cbc:TaxInclusiveAmount>
<cbc:PayableAmount {money}>{due or gross}</cbc:PayableAmount></cac:LegalMonetaryTotal>
<cac:{kind}Line><cbc:ID>1</cbc:ID><cbc:{quantity_name} unitCode="C62">{quantity}</cbc:{quantity_name}>
<cbc:LineExtensionAmount {money}>{lines or net}</cbc:LineExtensionAmount>
<cac:Item><cbc:Name>Paper A4</cbc:Name><cac:ClassifiedTaxCategory>{category}</cac:ClassifiedTaxCategory></cac:Item>
<cac:Price><cbc:PriceAmount {money}>{price}</cbc:PriceAmount></cac:Price></cac:{kind}Line>
</{kind}>"""


TEXT = """\
Invoice number: T-77
Date: 2026-11-02
From: Paper Mill Ltd
VAT number: DE123456789
Order number: PO-7

10 x Paper A4 @ 10.00 = 100.00

Net total: EUR 100.00
VAT 25%: EUR 25.00
Total: EUR 125.00
Please pay to DE89 3704 0044 0532 0130 00.
"""


def letter(text: str) -> bytes:
    """A PDF of one page with these lines on it."""
    shown = " T* ".join("({}) Tj".format(line.translate({40: "\\(", 41: "\\)"})) for line in text.splitlines())
    stream = f"BT /F1 11 Tf 14 TL 50 800 Td {shown} ET".encode()
    font = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
    parts = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        font,
    ]
    data, places = b"%PDF-1.7\n", []
    for number, part in enumerate(parts, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, part)
    start = len(data)
    data += b"xref\n0 6\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    return data + b"trailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % start
