"""Reminders: a mail about an invoice, which leaves only while somebody still owes it.

To look and to send is one call. Made by two, they could be any time apart: a run that waits for its mail server, or
for a worker, or for a person to say whether a mail had left, would go on with what it had read before.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict

from eventwright.tools import mail
from eventwright.tools.contract import Call, NotDone, Role, ToolError, tool
from eventwright.tools.mail import Sent
from eventwright.tools.stripe_billing import InvoiceId, find_invoice


class Reminder(BaseModel):
    """What became of a reminder."""

    model_config = ConfigDict(frozen=True)

    #: How the invoice stood when it was due to be sent.
    status: str
    #: The mail; None if the invoice was not open any more.
    sent: Sent | None


@tool(writes="plain")
async def remind(
    invoice_id: Annotated[InvoiceId, Role.DESTINATION],
    to: Annotated[str, Role.DESTINATION],
    subject: Annotated[str, Role.CONTENT],
    body: Annotated[str, Role.CONTENT],
    *,
    call: Call,
) -> Reminder:
    """Send a mail about an invoice, if it is still open at this moment."""
    try:
        invoice = await find_invoice.function(invoice_id, call=call)
    except NotDone:
        raise
    except ToolError as error:
        # Whatever it was, no mail has left.
        raise NotDone(f"the invoice could not be read: {error}") from error
    sent = await mail.send.function(to, subject, body, call=call) if invoice.is_open else None
    return Reminder(status=invoice.status, sent=sent)
