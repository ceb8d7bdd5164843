"""Tools of a shop whose calls are taken back by others, for the tests of that."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from tests.outside import Provider

from eventwright.tools.contract import Call, Undo, tool


@tool(writes="keyed", name="shop.refund")
async def refund(amount: Decimal, *, call: Call) -> str:
    """Give money back."""
    return await call.use(Provider).do("refund", str(amount), call, repeats=False)


@tool(
    writes="keyed", name="shop.charge", trusted=True, undo=Undo(refund, lambda asked, _answer: {"amount": asked.amount})
)
async def charge(amount: Decimal, *, call: Call) -> str:
    """Take money."""
    return await call.use(Provider).do("charge", str(amount), call, repeats=False)


@tool(writes="plain", name="shop.recall")
async def recall(parcel: str, *, call: Call) -> str:
    """Call a parcel back."""
    return await call.use(Provider).do("recall", parcel, call)


@tool(writes="keyed", name="shop.ship", trusted=True, undo=Undo(recall, lambda _asked, parcel: {"parcel": parcel}))
async def ship(what: str, *, call: Call) -> str:
    """Send a parcel."""
    return await call.use(Provider).do("ship", what, call, repeats=False)


@tool(name="shop.stock", trusted=True)
async def stock(what: str) -> int:
    """How many are there?"""
    return len(what)


def _nonsense(asked: Any, _answer: Any) -> dict[str, Any]:
    return {"parcel": asked.nothing}


@tool(writes="keyed", name="shop.gift", undo=Undo(recall, _nonsense))
async def gift(what: str, *, call: Call) -> str:
    """Send a gift, of which its author does not know how to take it back."""
    return await call.use(Provider).do("gift", what, call, repeats=False)
