"""What the support workflow deals with outside, for its tests: real, embedded, and empty at the start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eventwright.tools.crm import Account, Crm, packaged_accounts
from eventwright.tools.mail import Mailer
from eventwright.tools.payments import PaymentLedger, Refund
from eventwright.tools.smtp_server import LocalSmtp

ANN = next(packaged_accounts())
CLEAR = "Can I track my card while it is in the process of delivery?"
UNCLEAR = "please set an alarm for seven"
REFUND = "I want to return an item for a refund can I do that?"


@dataclass
class Outside:
    """The systems outside."""

    crm: Crm
    ledger: PaymentLedger
    smtp: LocalSmtp

    @property
    def clients(self) -> list[object]:
        return [self.crm, self.ledger, Mailer(self.smtp.url)]

    async def refunds(self, account: Account = ANN) -> list[Refund]:
        return await self.ledger.refunds_of(account.id)


def ticket(text: str = CLEAR, sender: str | None = ANN.email, **more: Any) -> dict[str, Any]:
    return {"sender": sender, "subject": "My card", "text": text, **more}
