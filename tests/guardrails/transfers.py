"""What the tests of bad days share: transfers of money that people must approve, and how people answer."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

from tests.outside import Provider, chain, job, pay, says

from eventwright.guardrails.policy import Policy
from eventwright.tools.contract import Call, Role, tool


@tool(writes="keyed", name="outside.transfer", trusted=True)
async def transfer(amount: Annotated[Decimal, Role.AMOUNT], to: str = "ann", *, call: Call) -> str:
    """Transfer money to somebody."""
    return await call.use(Provider).do("pay", f"{amount} {to}", call, repeats=False)


async def transfers(state: Any) -> dict[str, Any]:
    return {"log": [await transfer(Decimal(500))]}


async def pays(state: Any) -> dict[str, Any]:
    return {"log": [await pay(Decimal(500))]}


def one_node(node: Any = pays, **policy: Any) -> Any:
    return job(chain(node=node), {"node": Policy(**policy)})


async def answered(run: Any, kind: str, by: str, *, number: int = 0, **more: Any) -> Any:
    """The answer of one person to the open question of this number."""
    return await run.answer(says(kind, by=by, **more), (await run.reviews())[number].id)
