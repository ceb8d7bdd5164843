"""Reading UN/CEFACT's Cross Industry Invoice, which PDF invoices (Factur-X, ZUGFeRD) carry inside, by the binding of
EN 16931."""

from __future__ import annotations

from datetime import date
from xml.etree.ElementTree import Element

from eventwright.tools.e_invoice_binding import cii_binding
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

_CII = "urn:un:unece:uncefact:data:standard:"
INVOICE = f"{{{_CII}CrossIndustryInvoice:100}}CrossIndustryInvoice"
NAMES = {
    "rsm": f"{_CII}CrossIndustryInvoice:100",
    "ram": f"{_CII}ReusableAggregateBusinessInformationEntity:100",
    "udt": f"{_CII}UnqualifiedDataType:100",
    "qdt": f"{_CII}QualifiedDataType:100",
}


def read_cii(root: Element) -> EInvoice:
    """The invoice below this root."""
    reader = Reader(NAMES)
    document = reader.first(root, "rsm:ExchangedDocument")
    trade = reader.first(root, "rsm:SupplyChainTradeTransaction")
    agreement = reader.first(trade, "ram:ApplicableHeaderTradeAgreement")
    delivery = reader.first(trade, "ram:ApplicableHeaderTradeDelivery")
    settlement = reader.first(trade, "ram:ApplicableHeaderTradeSettlement")
    ship_to = reader.first(delivery, "ram:ShipToTradeParty/ram:PostalTradeAddress")
    context = "rsm:ExchangedDocumentContext/ram:GuidelineSpecifiedDocumentContextParameter/ram:ID"
    currency = reader.one(settlement, "ram:InvoiceCurrencyCode", "BT-5 currency")
    terms = reader.first(settlement, "ram:SpecifiedTradePaymentTerms")
    references = "ram:AdditionalReferencedDocument", "ram:InvoiceReferencedDocument"
    fields = {
        "specification": reader.text(root, context),
        "number": reader.one(document, "ram:ID", "BT-1 number"),
        "issued": _day(reader, document, "ram:IssueDateTime", "BT-2 issue date"),
        "type": reader.code(document, "ram:TypeCode"),
        "currency": currency,
        "tax_currency": reader.code(settlement, "ram:TaxCurrencyCode"),
        "amount_currencies": reader.marks(root, ".//ram:TaxTotalAmount", "currencyID"),
        "tax_point": _day(reader, settlement, "ram:ApplicableTradeTax/ram:TaxPointDate", "BT-7 tax point date"),
        "due": _day(reader, terms, "ram:DueDateDateTime", "BT-9 due date"),
        "terms": reader.text(terms, "ram:Description"),
        "order": reader.text(agreement, "ram:BuyerOrderReferencedDocument/ram:IssuerAssignedID"),
        "periods": _periods(reader, settlement),
        "documents": tuple(reader.text(one, "ram:IssuerAssignedID") for one in reader.all(agreement, references[0])),
        "preceding": tuple(reader.text(one, "ram:IssuerAssignedID") for one in reader.all(settlement, references[1])),
        "references": tuple(words(one) or "" for one in reader.all(root, ".//ram:ReferenceTypeCode")),
        "subjects": reader.texts(root, ".//ram:SubjectCode"),
        "attachments": reader.marks(root, ".//ram:AttachmentBinaryObject", "mimeCode"),
        "seller": _party(reader, reader.first(agreement, "ram:SellerTradeParty")),
        "buyer": _party(reader, reader.first(agreement, "ram:BuyerTradeParty")),
        "payee": _party(reader, reader.first(settlement, "ram:PayeeTradeParty")),
        "representative": _party(reader, reader.first(agreement, "ram:SellerTaxRepresentativeTradeParty")),
        "delivered": _day(
            reader, delivery, "ram:ActualDeliverySupplyChainEvent/ram:OccurrenceDateTime", "BT-72 delivery date"
        ),
        "delivery_country": reader.code(ship_to, "ram:CountryID"),
        "delivery_scheme": next(iter(reader.marks(delivery, "ram:ShipToTradeParty/ram:GlobalID", "schemeID")), None),
        "has_delivery_address": ship_to is not None,
        "payment": _payment(reader, settlement, terms),
        "extras": _extras(reader, settlement, "document"),
        "taxes": _taxes(reader, settlement, currency),
        "totals": _totals(reader, settlement),
        "lines": tuple(
            _line(reader, one, place)
            for place, one in enumerate(reader.all(trade, "ram:IncludedSupplyChainTradeLineItem"), 1)
        ),
    }
    return EInvoice(
        syntax="cii",
        unreadable=tuple(reader.unreadable),
        misplaced=tuple(cii_binding(root)),
        **fields,  # type: ignore[arg-type] # pydantic validates them
    )


def _day(reader: Reader, element: Element | None, path: str, at: str) -> date | None:
    holder = reader.first(element, path)
    if holder is None:
        return None
    told = reader.first(holder, "udt:DateTimeString")
    if told is None:
        told = reader.first(holder, "udt:DateString")
    if told is None or told.get("format") != "102":
        # The standard has one format; in another one the same digits may be another day.
        reader.complain(at, "" if told is None else f"{words(told)} in the format {told.get('format')}")
        return None
    return reader.day(words(told), at)


def _party(reader: Reader, party: Element | None) -> Party | None:
    if party is None:
        return None
    address = reader.first(party, "ram:PostalTradeAddress")
    endpoint = reader.first(party, "ram:URIUniversalCommunication/ram:URIID")
    numbers = list(reader.all(party, "ram:SpecifiedTaxRegistration/ram:ID"))
    name = reader.text(party, "ram:Name")
    return Party(
        name=name,
        trading_name=reader.text(party, "ram:SpecifiedLegalOrganization/ram:TradingBusinessName") or name,
        ids=(*reader.texts(party, "ram:ID"), *reader.texts(party, "ram:GlobalID")),
        id_schemes=reader.marks(party, "ram:GlobalID", "schemeID"),
        legal_id=reader.text(party, "ram:SpecifiedLegalOrganization/ram:ID"),
        legal_scheme=next(iter(reader.marks(party, "ram:SpecifiedLegalOrganization/ram:ID", "schemeID")), None),
        vat_ids=tuple(text for one in numbers if one.get("schemeID") == "VA" and (text := words(one))),
        tax_ids=tuple(text for one in numbers if one.get("schemeID") != "VA" and (text := words(one))),
        has_address=address is not None,
        country=reader.code(address, "ram:CountryID"),
        endpoint=words(endpoint),
        endpoint_scheme=None if endpoint is None else endpoint.get("schemeID"),
    )


def _periods(reader: Reader, element: Element | None) -> tuple[Period, ...]:
    periods = [
        Period(
            start=_day(reader, one, "ram:StartDateTime", "period, start"),
            end=_day(reader, one, "ram:EndDateTime", "period, end"),
        )
        for one in reader.all(element, "ram:BillingSpecifiedPeriod")
    ]
    codes = dict.fromkeys(reader.texts(element, "ram:ApplicableTradeTax/ram:DueDateTypeCode"))
    return (*periods, *(Period(code=code) for code in codes))


def _payment(reader: Reader, settlement: Element | None, terms: Element | None) -> tuple[PaymentMeans, ...]:
    mandate = reader.first(terms, "ram:DirectDebitMandateID") is not None
    found: list[PaymentMeans] = []
    for one in reader.all(settlement, "ram:SpecifiedTradeSettlementPaymentMeans"):
        bank = reader.text(one, "ram:PayeeSpecifiedCreditorFinancialInstitution/ram:BICID")
        accounts = tuple(
            Account(id=reader.text(account, "ram:IBANID") or reader.text(account, "ram:ProprietaryID"), bank=bank)
            for account in reader.all(one, "ram:PayeePartyCreditorFinancialAccount")
        )
        card = reader.text(one, "ram:ApplicableTradeSettlementFinancialCard/ram:ID")
        code = reader.text(one, "ram:TypeCode")
        found.append(PaymentMeans(code=code, accounts=accounts, card=card, has_mandate=mandate and not found))
    return tuple(found)


def _category(reader: Reader, element: Element) -> Category:
    return Category(
        code=reader.code(element, "ram:CategoryCode"),
        rate=reader.amount(element, "ram:RateApplicablePercent", "VAT rate"),
        vat=(reader.text(element, "ram:TypeCode") or "").upper() == "VAT",
        reason=reader.text(element, "ram:ExemptionReason"),
        reason_code=reader.text(element, "ram:ExemptionReasonCode"),
    )


def _extras(reader: Reader, element: Element | None, where: str) -> tuple[AllowanceCharge, ...]:
    return tuple(
        AllowanceCharge(
            is_charge=reader.flag(one, "ram:ChargeIndicator/udt:Indicator", f"{where}, allowance or charge"),
            amount=reader.amount(one, "ram:ActualAmount", f"{where}, amount of an allowance or charge"),
            base=reader.amount(one, "ram:BasisAmount", f"{where}, base of an allowance or charge"),
            reason=reader.text(one, "ram:Reason"),
            reason_code=reader.text(one, "ram:ReasonCode"),
            categories=tuple(_category(reader, tax) for tax in reader.all(one, "ram:CategoryTradeTax")),
        )
        for one in reader.all(element, "ram:SpecifiedTradeAllowanceCharge")
    )


def _taxes(reader: Reader, settlement: Element | None, currency: str | None) -> tuple[TaxTotal, ...]:
    """The VAT in the invoice's own currency, with its parts; in another one only the sum is told."""
    parts = tuple(
        Breakdown(
            taxable=reader.amount(one, "ram:BasisAmount", "BT-116 taxable amount"),
            tax=reader.amount(one, "ram:CalculatedAmount", "BT-117 tax amount"),
            categories=(_category(reader, one),),
        )
        for one in reader.all(settlement, "ram:ApplicableTradeTax")
    )
    summation = reader.first(settlement, "ram:SpecifiedTradeSettlementHeaderMonetarySummation")
    found: list[TaxTotal] = []
    for one in reader.all(summation, "ram:TaxTotalAmount"):
        tax_currency = one.get("currencyID")
        tax = reader.decimal(words(one), "BT-110 total VAT")
        own = tax_currency == currency and not any(total.breakdown for total in found)
        found.append(TaxTotal(tax=tax, currency=tax_currency, breakdown=parts if own else ()))
    if parts and not any(total.breakdown for total in found):
        found.append(TaxTotal(currency=currency, breakdown=parts))
    return tuple(found)


def _totals(reader: Reader, settlement: Element | None) -> Totals | None:
    element = reader.first(settlement, "ram:SpecifiedTradeSettlementHeaderMonetarySummation")
    if element is None:
        return None
    return Totals(
        lines=reader.amount(element, "ram:LineTotalAmount", "BT-106 sum of lines"),
        allowances=reader.amount(element, "ram:AllowanceTotalAmount", "BT-107 allowances"),
        charges=reader.amount(element, "ram:ChargeTotalAmount", "BT-108 charges"),
        without_vat=reader.amount(element, "ram:TaxBasisTotalAmount", "BT-109 total without VAT"),
        with_vat=reader.amount(element, "ram:GrandTotalAmount", "BT-112 total with VAT"),
        prepaid=reader.amount(element, "ram:TotalPrepaidAmount", "BT-113 paid already"),
        rounding=reader.amount(element, "ram:RoundingAmount", "BT-114 rounding"),
        payable=reader.amount(element, "ram:DuePayableAmount", "BT-115 amount due"),
    )


def _line(reader: Reader, element: Element, place: int) -> Line:
    where = f"line {place}"
    product = reader.first(element, "ram:SpecifiedTradeProduct")
    agreement = reader.first(element, "ram:SpecifiedLineTradeAgreement")
    settlement = reader.first(element, "ram:SpecifiedLineTradeSettlement")
    quantity = reader.first(element, "ram:SpecifiedLineTradeDelivery/ram:BilledQuantity")
    net = reader.first(agreement, "ram:NetPriceProductTradePrice")
    gross = reader.first(agreement, "ram:GrossPriceProductTradePrice")
    summation = reader.first(settlement, "ram:SpecifiedTradeSettlementLineMonetarySummation")
    return Line(
        id=reader.text(element, "ram:AssociatedDocumentLineDocument/ram:LineID"),
        quantity=reader.decimal(words(quantity), f"{where}, BT-129 quantity"),
        unit=None if quantity is None else quantity.get("unitCode"),
        amount=reader.amount(summation, "ram:LineTotalAmount", f"{where}, BT-131 net amount"),
        name=reader.text(product, "ram:Name"),
        seller_item=reader.text(product, "ram:SellerAssignedID"),
        order_line=reader.text(agreement, "ram:BuyerOrderReferencedDocument/ram:LineID"),
        origin=reader.code(product, "ram:OriginTradeCountry/ram:ID"),
        price=reader.amount(net, "ram:ChargeAmount", f"{where}, BT-146 net price"),
        price_units=tuple(
            one.get("unitCode") for price in (net, gross) for one in reader.all(price, "ram:BasisQuantity")
        ),
        price_base=reader.amount(net, "ram:BasisQuantity", f"{where}, BT-149 base quantity"),
        gross_price=reader.amount(gross, "ram:ChargeAmount", f"{where}, BT-148 gross price"),
        categories=tuple(_category(reader, one) for one in reader.all(settlement, "ram:ApplicableTradeTax")),
        periods=_periods(reader, settlement),
        extras=_extras(reader, settlement, where),
        attributes=tuple(
            Attribute(name=reader.text(one, "ram:Description"), value=reader.text(one, "ram:Value"))
            for one in reader.all(product, "ram:ApplicableProductCharacteristic")
        ),
        standard_schemes=tuple(one.get("schemeID") for one in reader.all(product, "ram:GlobalID")),
        classification_schemes=tuple(
            one.get("listID") for one in reader.all(product, "ram:DesignatedProductClassification/ram:ClassCode")
        ),
    )
