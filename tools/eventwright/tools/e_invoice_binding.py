"""What the bindings of EN 16931 want of the XML itself: what stands once at most, and what may not be left out.

Of two elements where one belongs, one reader takes the first and another one the last; so a person has to look. Only
the rules that make a document invalid are here, and of those of CII the ones that are about values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple
from xml.etree.ElementTree import Element

from eventwright.tools.e_invoice_fields import Misplaced

_UBL = "urn:oasis:names:specification:ubl:schema:xsd:"
_CII = "urn:un:unece:uncefact:data:standard:"
NAMES = {
    "cac": f"{_UBL}CommonAggregateComponents-2",
    "cbc": f"{_UBL}CommonBasicComponents-2",
    "rsm": f"{_CII}CrossIndustryInvoice:100",
    "ram": f"{_CII}ReusableAggregateBusinessInformationEntity:100",
    "udt": f"{_CII}UnqualifiedDataType:100",
}


class Times(NamedTuple):
    """How often something stands in each of the elements where it may."""

    rule: str
    within: str
    path: str
    least: int = 0
    most: int = 1


_SUPPLIER, _CUSTOMER = "cac:AccountingSupplierParty/cac:Party", "cac:AccountingCustomerParty/cac:Party"
_LINES = (".//cac:InvoiceLine", ".//cac:CreditNoteLine")
UBL = (
    Times("UBL-SR-01", ".", "cac:ContractDocumentReference/cbc:ID"),
    Times("UBL-SR-02", ".", "cac:ReceiptDocumentReference/cbc:ID"),
    Times("UBL-SR-03", ".", "cac:DespatchDocumentReference/cbc:ID"),
    Times("UBL-SR-04", ".", "cac:AdditionalDocumentReference[cbc:DocumentTypeCode='130']/cbc:ID"),
    Times("UBL-SR-05", ".", "cac:PaymentTerms/cbc:Note"),
    Times("UBL-SR-06", ".//cac:BillingReference", "cac:InvoiceDocumentReference"),
    Times("UBL-SR-07", ".//cac:BillingReference", "cac:InvoiceDocumentReference/cbc:ID", 1, 9),
    Times("UBL-SR-08", ".", "cac:InvoicePeriod"),
    Times("UBL-SR-09", ".", f"{_SUPPLIER}/cac:PartyLegalEntity/cbc:RegistrationName"),
    Times("UBL-SR-10", ".", f"{_SUPPLIER}/cac:PartyName/cbc:Name"),
    Times("UBL-SR-11", ".", f"{_SUPPLIER}/cac:PartyLegalEntity/cbc:CompanyID"),
    Times("UBL-SR-14", ".", f"{_SUPPLIER}/cac:PartyLegalEntity/cbc:CompanyLegalForm"),
    Times("UBL-SR-15", ".", f"{_CUSTOMER}/cac:PartyLegalEntity/cbc:RegistrationName"),
    Times("UBL-SR-16", ".", f"{_CUSTOMER}/cac:PartyIdentification/cbc:ID"),
    Times("UBL-SR-17", ".", f"{_CUSTOMER}/cac:PartyLegalEntity/cbc:CompanyID"),
    Times("UBL-SR-22", "cac:TaxRepresentativeParty", "cac:PartyName/cbc:Name"),
    Times("UBL-SR-23", "cac:TaxRepresentativeParty", "cac:PartyTaxScheme/cbc:CompanyID"),
    Times("UBL-SR-24", ".", "cac:Delivery"),
    Times("UBL-SR-25", ".//cac:Delivery", "cac:DeliveryParty/cac:PartyName/cbc:Name"),
    Times("UBL-SR-26", ".//cac:PaymentMeans", "cbc:PaymentID"),
    Times("UBL-SR-27", ".//cac:PaymentMeans", "cbc:PaymentMeansCode"),
    Times("UBL-SR-28", ".//cac:PaymentMeans", "cac:PaymentMandate/cbc:ID"),
    Times("UBL-SR-30", ".//cac:AllowanceCharge[cbc:ChargeIndicator='false']", "cbc:AllowanceChargeReason"),
    Times("UBL-SR-31", ".//cac:AllowanceCharge[cbc:ChargeIndicator='true']", "cbc:AllowanceChargeReason"),
    Times("UBL-SR-32", ".//cac:TaxSubtotal", "cac:TaxCategory/cbc:TaxExemptionReason"),
    Times("UBL-SR-33", ".//cac:AdditionalDocumentReference", "cbc:DocumentDescription"),
    *(Times("UBL-SR-34", lines, "cbc:Note") for lines in _LINES),
    *(Times("UBL-SR-35", lines, "cac:OrderLineReference/cbc:LineID") for lines in _LINES),
    *(Times("UBL-SR-36", lines, "cac:InvoicePeriod") for lines in _LINES),
    *(Times("UBL-SR-37", lines, "cac:Price/cac:AllowanceCharge/cbc:Amount") for lines in _LINES),
    Times("UBL-SR-39", ".", "cac:ProjectReference/cbc:ID"),
    Times("UBL-SR-40", ".", f"{_CUSTOMER}/cac:PartyName/cbc:Name"),
    Times("UBL-SR-42", _SUPPLIER, "cac:PartyTaxScheme", 0, 2),
    Times("UBL-SR-45", ".", "cac:PaymentMeans/cbc:PaymentDueDate"),
    Times("UBL-SR-46", ".", "cac:PaymentMeans/cbc:PaymentMeansCode[@name]"),
    *(Times("UBL-SR-48", lines, "cac:Item/cac:ClassifiedTaxCategory", 1) for lines in _LINES),
    Times("UBL-SR-49", ".", "cac:InvoicePeriod/cbc:DescriptionCode"),
    *(Times("UBL-SR-50", lines, "cac:Item/cbc:Description") for lines in _LINES),
    Times("UBL-SR-51", ".//cac:PostalAddress", "cac:AddressLine"),
    Times("UBL-SR-51", ".//cac:Address", "cac:AddressLine"),
    *(Times("UBL-SR-52", lines, "cac:DocumentReference") for lines in _LINES),
    Times("UBL-SR-53", ".//cac:PartyTaxScheme", "cac:TaxScheme/cbc:ID", 1, 9),
    Times("UBL-SR-53", ".//cac:PartyTaxScheme", "cbc:CompanyID", 1, 9),
    Times("UBL-SR-54", ".", "cac:PaymentMeans/cac:CardAccount"),
    Times("UBL-SR-55", ".", "cac:PaymentMeans/cac:PaymentMandate"),
    Times("UBL-SR-56", ".", "cac:OriginatorDocumentReference/cbc:ID"),
    Times("UBL-CR-666", ".", ".//cac:AdditionalDocumentReference[cbc:DocumentTypeCode='130']/cac:Attachment", 0, 0),
    Times(
        "UBL-CR-673",
        ".",
        ".//cac:AdditionalDocumentReference[cbc:DocumentTypeCode='130']/cbc:DocumentDescription",
        0,
        0,
    ),
)
_TRADE = "rsm:SupplyChainTradeTransaction"
_LINE = f"{_TRADE}/ram:IncludedSupplyChainTradeLineItem"
_PRODUCT, _LINE_AGREEMENT = f"{_LINE}/ram:SpecifiedTradeProduct", f"{_LINE}/ram:SpecifiedLineTradeAgreement"
_AGREEMENT, _SETTLEMENT = (
    f"{_TRADE}/ram:ApplicableHeaderTradeAgreement",
    f"{_TRADE}/ram:ApplicableHeaderTradeSettlement",
)
_SUMS = f"{_SETTLEMENT}/ram:SpecifiedTradeSettlementHeaderMonetarySummation"
_EXTRA, _NET = ".//ram:SpecifiedTradeAllowanceCharge", "ram:NetPriceProductTradePrice/ram:ChargeAmount"
CII = (
    Times("CII-SR-009", "rsm:ExchangedDocumentContext", "ram:GuidelineSpecifiedDocumentContextParameter", 1),
    Times("CII-SR-010", "rsm:ExchangedDocumentContext", "ram:GuidelineSpecifiedDocumentContextParameter/ram:ID", 1),
    Times("CII-SR-014", "rsm:ExchangedDocument", "ram:TypeCode", 1),
    Times("CII-SR-069", f"{_PRODUCT}/ram:ApplicableProductCharacteristic", "ram:Description", 1),
    Times("CII-SR-072", f"{_PRODUCT}/ram:ApplicableProductCharacteristic", "ram:Value", 1),
    Times("CII-SR-090", f"{_PRODUCT}/ram:OriginTradeCountry/..", "ram:OriginTradeCountry/ram:ID", 1),
    Times("CII-SR-439", _LINE_AGREEMENT, _NET, 1),
    Times("CII-SR-440", ".//ram:GrossPriceProductTradePrice/ram:AppliedTradeAllowanceCharge", "ram:ActualAmount"),
    Times("CII-SR-441", _LINE_AGREEMENT, _NET),
    Times("CII-SR-455", _AGREEMENT, "ram:SellerTradeParty/ram:DefinedTradeContact"),
    Times("CII-SR-456", _AGREEMENT, "ram:BuyerTradeParty/ram:DefinedTradeContact"),
    Times("CII-SR-459", _AGREEMENT, "ram:SellerTradeParty/ram:URIUniversalCommunication"),
    Times("CII-SR-460", _AGREEMENT, "ram:BuyerTradeParty/ram:URIUniversalCommunication"),
    Times("CII-SR-461", _SETTLEMENT, "ram:ApplicableTradeTax/ram:TaxPointDate"),
    Times("CII-SR-463", _EXTRA, "ram:ChargeIndicator", 1, 9),
    Times("CII-SR-469", ".", ".//ram:ApplicableHeaderTradeSettlement/ram:PaymentReference"),
    Times("CII-SR-471", _EXTRA, "ram:RateApplicablePercent"),
    Times("CII-SR-472", _EXTRA, "ram:CategoryTradeTax"),
    Times("CII-SR-473", _EXTRA, "ram:ActualAmount"),
    Times("CII-SR-477", _SUMS, "ram:LineTotalAmount"),
    Times("CII-SR-478", _SUMS, "ram:ChargeTotalAmount"),
    Times("CII-SR-479", _SUMS, "ram:AllowanceTotalAmount"),
    Times("CII-SR-480", _SUMS, "ram:TaxBasisTotalAmount"),
    Times("CII-SR-481", _SUMS, "ram:RoundingAmount"),
    Times("CII-SR-482", _SUMS, "ram:GrandTotalAmount"),
    Times("CII-SR-484", _SUMS, "ram:TotalPrepaidAmount"),
    Times("CII-SR-487", _SUMS, "ram:DuePayableAmount"),
)


def ubl_binding(root: Element) -> Iterator[Misplaced]:
    """What is wrong with the XML of an invoice or credit note in UBL."""
    yield from _times(root, UBL)
    for party, one, two in ((_SUPPLIER, "UBL-SR-12", "UBL-SR-13"), (_CUSTOMER, "UBL-SR-18", None)):
        schemes = _all(root, f"{party}/cac:PartyTaxScheme")
        numbers = {True: 0, False: 0}
        for scheme in schemes:
            for name in _texts(scheme, "cac:TaxScheme/cbc:ID"):
                numbers[name.upper() == "VAT"] += len(_all(scheme, "cbc:CompanyID"))
        yield from _unless(one, party, numbers[True] <= 1)
        if two is not None:
            yield from _unless(two, party, numbers[False] <= 1)
    for payee in _all(root, "cac:PayeeParty"):
        yield from _payee(root, payee)
    creditors = [one for one in _all(root, ".//cac:PartyIdentification/cbc:ID") if _scheme(one).upper() == "SEPA"]
    yield from _unless("UBL-SR-29", "cac:PartyIdentification", len(creditors) <= 1)
    for rule, name in (("UBL-SR-44", "cbc:PaymentID"), ("UBL-SR-47", "cbc:PaymentMeansCode")):
        yield from _unless(rule, name, len(set(_texts(root, f".//{name}"))) <= 1)
    credit = root.tag.endswith("}CreditNote")
    for document in _all(root, ".//cac:AdditionalDocumentReference"):
        kinds = _texts(document, "cbc:DocumentTypeCode")
        plain = not kinds and all("schemeID" not in id.attrib for id in _all(document, "cbc:ID"))
        right = plain or "130" in kinds or (credit and "50" in kinds)
        yield from _unless("UBL-SR-43", "cac:AdditionalDocumentReference", right)
    yield from _ubl_types(root)


def _payee(root: Element, payee: Element) -> Iterator[Misplaced]:
    names = _texts(payee, "cac:PartyName/cbc:Name")
    sellers = _texts(root, f"{_SUPPLIER}/cac:PartyLegalEntity/cbc:RegistrationName")
    another = any(name != seller for name in names for seller in sellers)
    ids = [one for one in _all(payee, "cac:PartyIdentification/cbc:ID") if "schemeID" in one.attrib]
    counts = (
        ("UBL-SR-19", len(names)),
        ("UBL-SR-20", sum(_scheme(one).upper() != "SEPA" for one in ids)),
        ("UBL-SR-21", len(_all(payee, "cac:PartyLegalEntity/cbc:CompanyID"))),
    )
    for rule, count in counts:
        yield from _unless(rule, "cac:PayeeParty", count <= 1 and another)


def _ubl_types(root: Element) -> Iterator[Misplaced]:
    price = {id(one) for one in root.iterfind(".//cac:Price/cac:AllowanceCharge/*", NAMES)}
    for element in root.iter():
        name = element.tag.rpartition("}")[2]
        if name.endswith("Amount") and not name.endswith("PriceAmount") and id(element) not in price:
            yield from _unless("UBL-DT-01", name, len("".join(element.itertext()).partition(".")[2]) <= 2)
        elif name.endswith("BinaryObject"):
            yield from _unless("UBL-DT-06", name, "mimeCode" in element.attrib)
            yield from _unless("UBL-DT-07", name, "filename" in element.attrib)


def cii_binding(root: Element) -> Iterator[Misplaced]:
    """What is wrong with the XML of an invoice in CII."""
    yield from _times(root, CII)
    means = ".//ram:SpecifiedTradeSettlementPaymentMeans"
    for rule, path in (
        ("CII-SR-462", ".//ram:ApplicableTradeTax/ram:DueDateTypeCode"),
        ("CII-SR-467", f"{means}/ram:TypeCode"),
        ("CII-SR-468", f"{means}/ram:Information"),
    ):
        yield from _unless(rule, path.removeprefix(".//"), len(set(_texts(root, path))) <= 1)
    for one in _all(root, means):
        account = "ram:PayeePartyCreditorFinancialAccount"
        transfer = bool({"30", "58"} & set(_texts(one, "ram:TypeCode")))
        known = _all(one, f"{account}/ram:IBANID") or _all(one, f"{account}/ram:ProprietaryID")
        yield from _unless("CII-SR-470", account, not transfer or bool(known))
    for one in _all(root, _PRODUCT):
        ids = _all(one, "ram:GlobalID")
        yield from _unless("CII-SR-046", "ram:GlobalID", not ids or any("schemeID" in id.attrib for id in ids))
    for element in root.iter():
        name = element.tag.rpartition("}")[2]
        if name.endswith("Amount") and name != "TaxTotalAmount":
            # All amounts are in the invoice's currency; one that says otherwise would be read as if it did not.
            yield from _unless("CII-DT-031", name, "currencyID" not in element.attrib)
        elif name.endswith("TradeTax"):
            kinds = [child.text or "" for child in _all(element, "ram:TypeCode")]
            yield from _unless("CII-DT-037", name, not kinds or "VAT" in kinds)
        elif name == "DateTimeString" and element.get("format") == "102":
            day = re.fullmatch(r"\s*\d{4}(1[0-2]|0[1-9])(3[01]|[12][0-9]|0[1-9])\s*", element.text or "", re.ASCII)
            yield from _unless("CII-DT-097", name, day is not None)


def _times(root: Element, rules: tuple[Times, ...]) -> Iterator[Misplaced]:
    for rule, within, path, least, most in rules:
        for element in [root] if within == "." else root.iterfind(within, NAMES):
            yield from _unless(rule, path, least <= len(_all(element, path)) <= most)


def _unless(rule: str, path: str, right: bool) -> Iterator[Misplaced]:
    if not right:
        yield Misplaced(rule=rule, at=re.sub(r"\b[a-z]{3}:|^[./]+", "", path))


def _all(element: Element, path: str) -> list[Element]:
    return element.findall(path, NAMES)


def _texts(element: Element, path: str) -> list[str]:
    return [" ".join("".join(one.itertext()).split()) for one in _all(element, path)]


def _scheme(element: Element) -> str:
    return element.get("schemeID", "")
