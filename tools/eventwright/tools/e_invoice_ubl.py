"""Reading UBL 2.1, Invoice and CreditNote, by the binding of EN 16931."""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree.ElementTree import Element

from eventwright.tools.e_invoice_binding import ubl_binding
from eventwright.tools.e_invoice_fields import (
    Account,
    AllowanceCharge,
    Attribute,
    Breakdown,
    Category,
    EInvoice,
    Line,
    Party,
    PaymentMeans,
    Period,
    TaxTotal,
    Totals,
)
from eventwright.tools.e_invoice_reading import Reader, words

_UBL = "urn:oasis:names:specification:ubl:schema:xsd:"
INVOICE, CREDIT_NOTE = f"{{{_UBL}Invoice-2}}Invoice", f"{{{_UBL}CreditNote-2}}CreditNote"
NAMES = {"cac": f"{_UBL}CommonAggregateComponents-2", "cbc": f"{_UBL}CommonBasicComponents-2"}
#: The elements that bear a currency.
AMOUNTS = frozenset(
    f"{{{NAMES['cbc']}}}{name}Amount"
    for name in (
        *("", "Base", "Price", "Tax", "Taxable", "LineExtension", "TaxExclusive", "TaxInclusive", "AllowanceTotal"),
        *("ChargeTotal", "Prepaid", "PayableRounding", "Payable"),
    )
)
#: Where the VAT may be told in another currency.
TAX_TOTAL = f"{{{NAMES['cac']}}}TaxTotal"


def read_ubl(root: Element) -> EInvoice:
    """The invoice or credit note below this root."""
    reader = Reader(NAMES)
    credit = root.tag == CREDIT_NOTE
    # A credit note has no due date of its own.
    due = reader.text(root, "cac:PaymentMeans/cbc:PaymentDueDate" if credit else "cbc:DueDate")
    # Lines of the other kind do not belong here; who adds up counts them, so they are read.
    lines = [line for kind in ("Invoice", "CreditNote") for line in reader.all(root, f"cac:{kind}Line")]
    delivery = reader.first(root, "cac:Delivery")
    address = reader.first(delivery, "cac:DeliveryLocation/cac:Address")
    totals = reader.first(root, "cac:LegalMonetaryTotal")
    fields = {
        "specification": reader.text(root, "cbc:CustomizationID"),
        "number": reader.one(root, "cbc:ID", "BT-1 number"),
        "issued": reader.day(reader.one(root, "cbc:IssueDate", "BT-2 issue date"), "BT-2 issue date"),
        "type": reader.code(root, f"cbc:{'CreditNote' if credit else 'Invoice'}TypeCode"),
        "currency": reader.one(root, "cbc:DocumentCurrencyCode", "BT-5 currency"),
        "tax_currency": reader.code(root, "cbc:TaxCurrencyCode"),
        "amount_currencies": _currencies(root.iter()),
        "sum_currencies": _currencies(part for one in root if one.tag != TAX_TOTAL for part in one.iter()),
        "tax_point": reader.day(reader.text(root, "cbc:TaxPointDate"), "BT-7 tax point date"),
        "due": reader.day(due, "BT-9 due date"),
        "terms": reader.text(root, "cac:PaymentTerms/cbc:Note"),
        "order": reader.text(root, "cac:OrderReference/cbc:ID"),
        "periods": tuple(_period(reader, one) for one in reader.all(root, "cac:InvoicePeriod")),
        "preceding": tuple(
            reader.text(one, "cac:InvoiceDocumentReference/cbc:ID") for one in reader.all(root, "cac:BillingReference")
        ),
        "documents": tuple(reader.text(one, "cbc:ID") for one in reader.all(root, "cac:AdditionalDocumentReference")),
        "references": _references(reader, root),
        "subjects": tuple(code for note in reader.texts(root, "cbc:Note") if (code := _subject(note))),
        "attachments": reader.marks(root, ".//cbc:EmbeddedDocumentBinaryObject", "mimeCode"),
        "seller": _party(reader, reader.first(root, "cac:AccountingSupplierParty"), "cac:Party"),
        "buyer": _party(reader, reader.first(root, "cac:AccountingCustomerParty"), "cac:Party"),
        "payee": _party(reader, reader.first(root, "cac:PayeeParty")),
        "representative": _party(reader, reader.first(root, "cac:TaxRepresentativeParty")),
        "delivered": reader.day(reader.text(delivery, "cbc:ActualDeliveryDate"), "BT-72 delivery date"),
        "delivery_country": reader.code(address, "cac:Country/cbc:IdentificationCode"),
        "delivery_scheme": next(iter(reader.marks(delivery, "cac:DeliveryLocation/cbc:ID", "schemeID")), None),
        "has_delivery_address": address is not None,
        "payment": tuple(_payment(reader, one) for one in reader.all(root, "cac:PaymentMeans")),
        "extras": tuple(_extra(reader, one, "document") for one in reader.all(root, "cac:AllowanceCharge")),
        "taxes": tuple(_taxes(reader, one) for one in reader.all(root, "cac:TaxTotal")),
        "totals": None if totals is None else _totals(reader, totals),
        "lines": tuple(_line(reader, one, place) for place, one in enumerate(lines, 1)),
    }
    return EInvoice(
        syntax="ubl",
        root="credit_note" if credit else "invoice",
        unreadable=tuple(reader.unreadable),
        misplaced=tuple(ubl_binding(root)),
        **fields,  # type: ignore[arg-type] # pydantic validates them
    )


def _party(reader: Reader, element: Element | None, path: str = ".") -> Party | None:
    """Somebody; the seller and the buyer stand one level deeper, and may be named without being there."""
    if element is None:
        return None
    party = reader.first(element, path)
    vat: list[str] = []
    other: list[str] = []
    for scheme in reader.all(party, "cac:PartyTaxScheme"):
        number = reader.text(scheme, "cbc:CompanyID")
        if number:
            (vat if _is_vat(reader, scheme) else other).append(number)
    address = reader.first(party, "cac:PostalAddress")
    endpoint = reader.first(party, "cbc:EndpointID")
    return Party(
        name=reader.text(party, "cac:PartyLegalEntity/cbc:RegistrationName"),
        trading_name=reader.text(party, "cac:PartyName/cbc:Name"),
        ids=tuple(
            text
            for one in reader.all(party, "cac:PartyIdentification/cbc:ID")
            if one.get("schemeID") != "SEPA" and (text := words(one))
        ),
        id_schemes=reader.marks(party, "cac:PartyIdentification/cbc:ID", "schemeID"),
        legal_id=reader.text(party, "cac:PartyLegalEntity/cbc:CompanyID"),
        legal_scheme=next(iter(reader.marks(party, "cac:PartyLegalEntity/cbc:CompanyID", "schemeID")), None),
        vat_ids=tuple(vat),
        tax_ids=tuple(other),
        has_address=address is not None,
        country=reader.code(address, "cac:Country/cbc:IdentificationCode"),
        endpoint=words(endpoint),
        endpoint_scheme=None if endpoint is None else endpoint.get("schemeID"),
    )


def _is_vat(reader: Reader, element: Element) -> bool:
    return (reader.text(element, "cac:TaxScheme/cbc:ID") or "").upper() == "VAT"


def _currencies(elements: Iterable[Element]) -> tuple[str, ...]:
    """Those that the amounts bear, each once; "" if one bears none."""
    amounts = (element for element in elements if element.tag in AMOUNTS)
    return tuple(dict.fromkeys(" ".join(one.get("currencyID", "").split()) for one in amounts))


def _references(reader: Reader, root: Element) -> tuple[str, ...]:
    """The kinds of the objects that the document, or a line, is about."""
    kinds = ("AdditionalDocumentReference", "DocumentReference")
    ids = (one for kind in kinds for one in reader.all(root, f".//cac:{kind}[cbc:DocumentTypeCode='130']/cbc:ID"))
    return tuple(dict.fromkeys(" ".join(one.get("schemeID", "").split()) for one in ids if "schemeID" in one.attrib))


def _subject(note: str) -> str | None:
    """What a note says that it is about: a code of three letters between two `#`, before its words."""
    _, _, rest = note.partition("#")
    code, found, _ = rest.partition("#")
    return code if found and len(code) == 3 else None


def _period(reader: Reader, element: Element) -> Period:
    return Period(
        start=reader.day(reader.text(element, "cbc:StartDate"), "period, start"),
        end=reader.day(reader.text(element, "cbc:EndDate"), "period, end"),
        code=reader.text(element, "cbc:DescriptionCode"),
    )


def _payment(reader: Reader, element: Element) -> PaymentMeans:
    return PaymentMeans(
        code=reader.code(element, "cbc:PaymentMeansCode"),
        accounts=tuple(
            Account(
                id=reader.text(one, "cbc:ID"),
                bank=reader.text(one, "cac:FinancialInstitutionBranch/cbc:ID"),
            )
            for one in reader.all(element, "cac:PayeeFinancialAccount")
        ),
        card=reader.text(element, "cac:CardAccount/cbc:PrimaryAccountNumberID"),
        has_mandate=reader.first(element, "cac:PaymentMandate") is not None,
    )


def _category(reader: Reader, element: Element) -> Category:
    return Category(
        code=reader.code(element, "cbc:ID"),
        rate=reader.amount(element, "cbc:Percent", "VAT rate"),
        vat=_is_vat(reader, element),
        reason=reader.text(element, "cbc:TaxExemptionReason"),
        reason_code=reader.text(element, "cbc:TaxExemptionReasonCode"),
    )


def _categories(reader: Reader, element: Element, path: str) -> tuple[Category, ...]:
    """All of them; several belong in no place where one does, and `first` says so."""
    reader.first(element, path)
    return tuple(_category(reader, one) for one in reader.all(element, path))


def _extra(reader: Reader, element: Element, where: str) -> AllowanceCharge:
    return AllowanceCharge(
        is_charge=reader.flag(element, "cbc:ChargeIndicator", f"{where}, allowance or charge"),
        amount=reader.amount(element, "cbc:Amount", f"{where}, amount of an allowance or charge"),
        base=reader.amount(element, "cbc:BaseAmount", f"{where}, base of an allowance or charge"),
        reason=reader.text(element, "cbc:AllowanceChargeReason"),
        reason_code=reader.text(element, "cbc:AllowanceChargeReasonCode"),
        categories=_categories(reader, element, "cac:TaxCategory"),
    )


def _taxes(reader: Reader, element: Element) -> TaxTotal:
    amount = reader.first(element, "cbc:TaxAmount")
    return TaxTotal(
        tax=reader.amount(element, "cbc:TaxAmount", "BT-110 total VAT"),
        currency=None if amount is None else amount.get("currencyID"),
        breakdown=tuple(
            Breakdown(
                taxable=reader.amount(one, "cbc:TaxableAmount", "BT-116 taxable amount"),
                tax=reader.amount(one, "cbc:TaxAmount", "BT-117 tax amount"),
                categories=_categories(reader, one, "cac:TaxCategory"),
            )
            for one in reader.all(element, "cac:TaxSubtotal")
        ),
    )


def _totals(reader: Reader, element: Element) -> Totals:
    return Totals(
        lines=reader.amount(element, "cbc:LineExtensionAmount", "BT-106 sum of lines"),
        allowances=reader.amount(element, "cbc:AllowanceTotalAmount", "BT-107 allowances"),
        charges=reader.amount(element, "cbc:ChargeTotalAmount", "BT-108 charges"),
        without_vat=reader.amount(element, "cbc:TaxExclusiveAmount", "BT-109 total without VAT"),
        with_vat=reader.amount(element, "cbc:TaxInclusiveAmount", "BT-112 total with VAT"),
        prepaid=reader.amount(element, "cbc:PrepaidAmount", "BT-113 paid already"),
        rounding=reader.amount(element, "cbc:PayableRoundingAmount", "BT-114 rounding"),
        payable=reader.amount(element, "cbc:PayableAmount", "BT-115 amount due"),
    )


def _line(reader: Reader, element: Element, place: int) -> Line:
    where = f"line {place}"
    quantity = reader.first(element, "cbc:InvoicedQuantity")
    if quantity is None:
        quantity = reader.first(element, "cbc:CreditedQuantity")
    item, price = reader.first(element, "cac:Item"), reader.first(element, "cac:Price")
    return Line(
        id=reader.text(element, "cbc:ID"),
        quantity=reader.decimal(words(quantity), f"{where}, BT-129 quantity"),
        unit=None if quantity is None else quantity.get("unitCode"),
        amount=reader.amount(element, "cbc:LineExtensionAmount", f"{where}, BT-131 net amount"),
        name=reader.text(item, "cbc:Name"),
        seller_item=reader.text(item, "cac:SellersItemIdentification/cbc:ID"),
        order_line=reader.text(element, "cac:OrderLineReference/cbc:LineID"),
        origin=reader.code(item, "cac:OriginCountry/cbc:IdentificationCode"),
        price=reader.amount(price, "cbc:PriceAmount", f"{where}, BT-146 net price"),
        price_units=tuple(one.get("unitCode") for one in reader.all(price, "cbc:BaseQuantity")),
        price_base=reader.amount(price, "cbc:BaseQuantity", f"{where}, BT-149 base quantity"),
        gross_price=reader.amount(price, "cac:AllowanceCharge/cbc:BaseAmount", f"{where}, BT-148 gross price"),
        categories=() if item is None else _categories(reader, item, "cac:ClassifiedTaxCategory"),
        periods=tuple(_period(reader, one) for one in reader.all(element, "cac:InvoicePeriod")),
        extras=tuple(_extra(reader, one, where) for one in reader.all(element, "cac:AllowanceCharge")),
        attributes=tuple(
            Attribute(name=reader.text(one, "cbc:Name"), value=reader.text(one, "cbc:Value"))
            for one in reader.all(item, "cac:AdditionalItemProperty")
        ),
        standard_schemes=tuple(
            one.get("schemeID") for one in reader.all(item, "cac:StandardItemIdentification/cbc:ID")
        ),
        classification_schemes=tuple(
            one.get("listID") for one in reader.all(item, "cac:CommodityClassification/cbc:ItemClassificationCode")
        ),
    )
