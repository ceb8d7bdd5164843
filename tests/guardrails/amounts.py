"""Tools with amounts, for the tests of budgets."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from tests.outside import Provider

from eventwright.tools.contract import Call, Role, tool


@tool(writes="keyed", name="outside.refund", trusted=True)
async def refund(
    amount: Annotated[Decimal, Role.AMOUNT],
    account: Annotated[str, Role.DESTINATION] = "ann",
    currency: Annotated[str, Role.DESTINATION] = "EUR",
    *,
    call: Call,
) -> str:
    """Refund something."""
    return await call.use(Provider).do("refund", f"{amount} {currency} {account}", call, repeats=False)


@tool(writes="plain", name="outside.grant", trusted=True)
async def grant(
    points: Annotated[int | float | None, Role.AMOUNT], hours: Annotated[int, Role.AMOUNT], *, call: Call
) -> str:
    """Grant something."""
    return await call.use(Provider).do("grant", f"{points} {hours}", call)
