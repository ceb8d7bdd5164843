"""The rules of EN 16931, one family a file. `findings(invoice)` is all of them; a valid invoice has none."""

from __future__ import annotations

import re

from eventwright.graphs.invoicing import rules_fields as fields
from eventwright.graphs.invoicing.findings import Finding
from eventwright.graphs.invoicing.rules_codes import code_lists
from eventwright.graphs.invoicing.rules_sums import sums
from eventwright.graphs.invoicing.rules_vat import categories
from eventwright.tools.e_invoice_fields import EInvoice

#: In the order in which people read an invoice.
FAMILIES = (
    fields.document,
    fields.parties,
    fields.payment,
    fields.lines,
    sums,
    categories,
    code_lists,
    fields.decimals,
)
#: What can be asked of a letter on paper as well: that it says who wants how much for what, and adds up.
FOR_TEXTS = frozenset(
    {
        "FORM",
        "BR-02",
        "BR-03",
        "BR-05",
        "BR-06",
        "BR-13",
        "BR-14",
        "BR-15",
        "BR-16",
        "BR-24",
        "BR-CO-10",
        "BR-CO-13",
        "BR-CO-15",
        "BR-CO-16",
        "BR-CL-04",
    }
)
#: The rules that reckon: a sum, a rate, a decimal too many, another currency.
ARITHMETIC = re.compile(r"BR-CO-1[0-7]|BR-[A-Z]+-0[89]|BR-DEC-\d+|UBL-DT-01|CURRENCY|FORM")


def findings(invoice: EInvoice) -> list[Finding]:
    """What the standard finds wrong."""
    found = [finding for family in FAMILIES for finding in family(invoice) if not _is_there(finding, invoice)]
    if invoice.syntax == "text":
        found = [finding for finding in found if finding.rule in FOR_TEXTS]
    return found


def _is_there(finding: Finding, invoice: EInvoice) -> bool:
    """Whether what is said to be missing is there, and only cannot be read: `FORM` says that already."""
    nothing = finding.stated is None and finding.expected is None
    return nothing and any(one.at.startswith(f"{finding.at} ") for one in invoice.unreadable)


def is_arithmetic(finding: Finding) -> bool:
    """Whether it is about numbers that do not add up."""
    return ARITHMETIC.fullmatch(finding.rule) is not None
