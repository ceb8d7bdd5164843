"""Reading e-invoices: UBL 2.1, UN/CEFACT's CII, and PDF files that carry one of them inside. Pure: no file, no network.

What comes in was written by anybody. XML may have no document type, so it has no entities, none of which would be
looked up anyway; a PDF is read with limits on what it may unfold to.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

import pypdf
from defusedxml import DefusedXmlException
from defusedxml import ElementTree as Defused

from eventwright.runs.errors import EventwrightError
from eventwright.tools import e_invoice_cii as cii
from eventwright.tools import e_invoice_ubl as ubl
from eventwright.tools.e_invoice_fields import EInvoice

#: Letters of the largest XML that is read: files may be inside, and are long. Its tags and attributes are as many as
#: the longest invoice needs, for each takes memory.
MOST_LETTERS, MOST_MARKS, MOST_LINES = 10_000_000, 200_000, 1_000
#: Pages, and letters, that are read of a PDF's text; files attached to it that are looked at.
MOST_PAGES, MOST_TEXT, MOST_ATTACHED = 20, 20_000, 20
#: Bytes that a part of a PDF may unfold to, and what may stand in a page before it is given up.
LIMITS: dict[str, Any] = {
    "array_based_stream_maximum_output_length": 5_000_000,
    "lzw_maximum_output_length": 5_000_000,
    "run_length_maximum_output_length": 5_000_000,
    "zlib_maximum_output_length": 5_000_000,
    "brotli_maximum_output_length": 5_000_000,
    "stream_decoding_work_maximum_length": 20_000_000,
    "stream_parsing_work_maximum_count": 200_000,
    "xform_maximum_invocations_per_extraction": 100,
    "jbig2dec_binary": None,  # no picture is looked at, and no program started
}
#: The names that the standards give to the XML inside a PDF; these are tried before any other `.xml`.
NAMES_INSIDE = ("factur-x.xml", "zugferd-invoice.xml", "xrechnung.xml")


class UnreadableDocument(EventwrightError, ValueError):
    """A document is no e-invoice, or cannot be read safely. A person has to look at it."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"{why}; ask the sender for an invoice in UBL 2.1 or CII, or as a PDF with a text")


@dataclass(frozen=True)
class PdfContent:
    """What a PDF holds: the invoice inside it, or only words."""

    invoice: EInvoice | None
    text: str


def read_xml(text: str | bytes) -> EInvoice:
    """The invoice in this XML.

    Raises:
        UnreadableDocument: no XML, XML with a document type, too large, or another kind of document.
    """
    root = parse(text)
    if root.tag in (ubl.INVOICE, ubl.CREDIT_NOTE):
        invoice = ubl.read_ubl(root)
    elif root.tag == cii.INVOICE:
        invoice = cii.read_cii(root)
    else:
        raise UnreadableDocument(f"the XML is {str(root.tag)[:120]!r}, no invoice or credit note of EN 16931")
    if len(invoice.lines) > MOST_LINES:
        raise UnreadableDocument(f"the invoice has {len(invoice.lines)} lines, of {MOST_LINES} at most")
    return invoice


def parse(text: str | bytes) -> Element:
    """The root of the XML. Without document types there are no entities: nothing unfolds, nothing is fetched.

    Raises:
        UnreadableDocument: no XML, XML with a document type, or too large.
    """
    if len(text) > MOST_LETTERS:
        raise UnreadableDocument(f"the XML has {len(text)} letters, of {MOST_LETTERS} at most")
    for mark in "<", "=":
        marks = text.count(mark) if isinstance(text, str) else text.count(mark.encode())
        if marks > MOST_MARKS:
            raise UnreadableDocument(f"the XML has {marks} {mark!r}, of {MOST_MARKS} at most")
    try:
        root: Element = Defused.fromstring(text.strip(), forbid_dtd=True)
    except DefusedXmlException as error:
        raise UnreadableDocument(f"the XML has a document type or an entity ({type(error).__name__})") from error
    except (Defused.ParseError, ValueError, LookupError) as error:
        raise UnreadableDocument(f"the XML cannot be parsed: {error}"[:300]) from error
    return root


def read_pdf(data: bytes) -> PdfContent:
    """The invoice inside a PDF; where there is none, the words on its pages.

    Raises:
        UnreadableDocument: no PDF, an encrypted one, one without invoice and words, or one that unfolds too far.
    """
    try:
        with pypdf.apply_configuration(**LIMITS):
            pdf = pypdf.PdfReader(io.BytesIO(data))
            if pdf.is_encrypted:
                raise UnreadableDocument("the PDF is encrypted")
            invoice = _inside(pdf)
            text = "" if invoice else _words(pdf)
    except UnreadableDocument:
        raise
    except Exception as error:  # pypdf raises what its many parts raise; nothing of a broken file is trusted
        raise UnreadableDocument(f"the PDF cannot be read: {type(error).__name__}: {error}"[:300]) from error
    if invoice is None and not text:
        raise UnreadableDocument("the PDF has neither an invoice inside nor words on its pages")
    return PdfContent(invoice, text)


def _inside(pdf: pypdf.PdfReader) -> EInvoice | None:
    """The invoice that is attached to the file."""
    attached = []
    for place, part in enumerate(pdf.attachment_list):
        if place >= MOST_ATTACHED:
            raise UnreadableDocument(f"the PDF has more than {MOST_ATTACHED} files attached")
        if (part.name or "").lower().endswith(".xml"):
            attached.append(part)
    named = [part for part in attached if (part.name or "").lower() in NAMES_INSIDE]
    # Two invoices in one file: people and programs could each read another one.
    several = UnreadableDocument("the PDF carries several invoices")
    if len(named) > 1:
        raise several
    if named:
        return read_xml(named[0].content)
    found = []
    for part in attached:
        with contextlib.suppress(UnreadableDocument):  # a file may hold other XML than invoices
            found.append(read_xml(part.content))
    if len(found) > 1:
        raise several
    return found[0] if found else None


def _words(pdf: pypdf.PdfReader) -> str:
    text = ""
    for place, page in enumerate(pdf.pages):
        if place >= MOST_PAGES:
            raise UnreadableDocument(f"the PDF has more than {MOST_PAGES} pages")
        text += page.extract_text() + "\n"
        if len(text) > MOST_TEXT:
            raise UnreadableDocument(f"the PDF has more than {MOST_TEXT} letters")
    return text.strip()
