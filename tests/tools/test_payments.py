"""The payment provider: one refund for one key, whatever happens, and no impossible refunds."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import AsyncExitStack, closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from eventwright.tools import payments
from eventwright.tools.contract import Call, NotDone, OutsideGate, Permanent, Resources, Tool, ToolClass
from eventwright.tools.payments import PaymentLedger, Refund

WANTED = {"account_id": "rec-122-org", "amount": "12.50", "currency": "AUD", "reason": "charged twice"}


async def perform(tool: Tool, ledger: PaymentLedger, arguments: dict[str, Any], key: str = "key-1") -> Any:
    call = Call(run_id="run_1", node="refund", idempotency_key=key, attempt=1, resources=Resources((ledger,)))
    return await tool.perform(tool.arguments.model_validate_json(json.dumps(arguments)), call)


async def test_outside_a_node_no_money_moves() -> None:
    with pytest.raises(OutsideGate, match=r"payments\.refund"):
        await payments.refund("rec-122-org", Decimal("12.50"), "AUD", "charged twice")


@pytest.mark.parametrize("amount", ["0", "0.00", "-1", "0.001", "12.345", "NaN", "Infinity", "1e20", "1e-3", ""])
async def test_an_impossible_amount_is_refused_before_the_provider_is_asked(amount: str) -> None:
    with pytest.raises(ValidationError, match="amount"):
        payments.refund.arguments.model_validate_json(json.dumps(WANTED | {"amount": amount}))


@pytest.mark.parametrize("currency", ["", "aud", "AU", "AUDX", "AUD\n", "A$D", "ÄUD"])
async def test_an_impossible_currency_is_refused_before_the_provider_is_asked(currency: str) -> None:
    with pytest.raises(ValidationError, match="currency"):
        payments.refund.arguments.model_validate_json(json.dumps(WANTED | {"currency": currency}))


async def test_a_refund_to_nobody_or_for_no_reason_is_refused() -> None:
    for name in ("account_id", "reason"):
        with pytest.raises(ValidationError, match=name):
            payments.refund.arguments.model_validate_json(json.dumps(WANTED | {name: ""}))


async def test_the_ledger_itself_refuses_an_impossible_amount_for_good(tmp_path: Path) -> None:
    async with PaymentLedger.open(tmp_path / "ledger.db") as ledger:
        with pytest.raises(Permanent, match="amount"):
            await ledger.refund("rec-122-org", Decimal("-5"), "AUD", "charged twice", idempotency_key="key")

        assert await ledger.refunds_of("rec-122-org") == []


@pytest.mark.parametrize(
    "other",
    [{"amount": "12.51"}, {"currency": "EUR"}, {"account_id": "rec-1-org"}, {"reason": "goodwill"}],
)
async def test_the_same_key_for_another_refund_is_refused_for_good(tmp_path: Path, other: dict[str, str]) -> None:
    async with PaymentLedger.open(tmp_path / "ledger.db") as ledger:
        first = await perform(payments.refund, ledger, WANTED)

        with pytest.raises(Permanent, match=first.id):
            await perform(payments.refund, ledger, WANTED | other)

        assert await ledger.refunds_of("rec-122-org") == [first]
        assert await ledger.refunds_of("rec-1-org") == []


async def test_a_ledger_that_somebody_else_is_writing_has_refunded_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventwright.tools.sqlite_file.PATIENCE", 0.05)
    async with PaymentLedger.open(tmp_path / "ledger.db") as ledger:
        with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(NotDone, match="another process"):
                await perform(payments.refund, ledger, WANTED)
            other.execute("ROLLBACK")

        assert await ledger.refunds_of("rec-122-org") == []
        assert (await perform(payments.refund, ledger, WANTED)).amount == Decimal("12.50")


async def test_the_same_key_again_answers_with_the_first_refund_unchanged(tmp_path: Path) -> None:
    async with PaymentLedger.open(tmp_path / "ledger.db") as ledger:
        first = await perform(payments.refund, ledger, WANTED)
        second = await perform(payments.refund, ledger, WANTED | {"amount": "12.5"})

        assert second == first
        assert await ledger.refunds_of("rec-122-org") == [first]


async def test_the_same_key_after_a_restart_answers_with_the_first_refund_unchanged(tmp_path: Path) -> None:
    async with PaymentLedger.open(tmp_path / "ledger.db") as ledger:
        first = await perform(payments.refund, ledger, WANTED)

    async with PaymentLedger.open(tmp_path / "ledger.db") as ledger:
        assert await perform(payments.refund, ledger, WANTED) == first
        assert await perform(payments.refunds_of, ledger, {"account_id": "rec-122-org"}) == [first]


async def test_calls_with_one_key_at_the_same_moment_make_one_refund(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        ledgers = [await stack.enter_async_context(PaymentLedger.open(tmp_path / "ledger.db")) for _ in range(4)]

        answers = await asyncio.gather(
            *(perform(payments.refund, ledger, WANTED) for ledger in ledgers * 5),
        )

        assert len({answer.id for answer in answers}) == 1
        assert await ledgers[0].refunds_of("rec-122-org") == [answers[0]]


async def test_a_refund_that_never_was_cannot_be_cancelled(tmp_path: Path) -> None:
    async with PaymentLedger.open(tmp_path / "ledger.db") as ledger:
        with pytest.raises(Permanent, match="no refund 'ref_0'"):
            await perform(payments.cancel_refund, ledger, {"refund_id": "ref_0"})


async def test_a_key_that_cancelled_one_refund_cancels_no_other(tmp_path: Path) -> None:
    async with PaymentLedger.open(tmp_path / "ledger.db") as ledger:
        first, second = [await perform(payments.refund, ledger, WANTED, key) for key in ("key-1", "key-2")]
        await perform(payments.cancel_refund, ledger, {"refund_id": first.id}, "undo")
        with pytest.raises(Permanent, match="belongs to another refund"):
            await perform(payments.cancel_refund, ledger, {"refund_id": second.id}, "undo")
        cancelled = [refund.cancelled_at is not None for refund in await ledger.refunds_of("rec-122-org")]
        assert cancelled == [True, False]


async def test_a_refund_is_cancelled_once_and_stays_in_the_list_as_cancelled(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        ledgers = [await stack.enter_async_context(PaymentLedger.open(tmp_path / "ledger.db")) for _ in range(4)]
        given = await perform(payments.refund, ledgers[0], WANTED)
        asked = [(ledger, key) for ledger in ledgers for key in ("undo-1", "undo-2")]
        answers = await asyncio.gather(
            *(perform(payments.cancel_refund, ledger, {"refund_id": given.id}, key) for ledger, key in asked)
        )
        assert {answer.cancelled_at for answer in answers} == {answers[0].cancelled_at} - {None}
        assert await ledgers[0].refunds_of("rec-122-org") == [answers[0]]
        # The first call's answer does not come back to life, and does not pretend that nothing happened since.
        assert await perform(payments.refund, ledgers[0], WANTED) == answers[0]


async def test_two_keys_are_two_refunds_oldest_first_and_to_the_cent(tmp_path: Path) -> None:
    async with PaymentLedger.open(tmp_path / "ledger.db") as ledger:
        first = await perform(payments.refund, ledger, WANTED | {"amount": "0.10"}, "key-1")
        second = await perform(payments.refund, ledger, WANTED | {"amount": "999999999999.99"}, "key-2")

        refunds = await perform(payments.refunds_of, ledger, {"account_id": "rec-122-org"})

    assert refunds == [first, second]
    assert [str(refund.amount) for refund in refunds] == ["0.10", "999999999999.99"]


async def test_a_refund_comes_back_from_the_run_s_record_as_it_was(tmp_path: Path) -> None:
    async with PaymentLedger.open(tmp_path / "ledger.db") as ledger:
        refund = await perform(payments.refund, ledger, WANTED)

    recorded = json.loads(json.dumps(payments.refund.dump(refund)))

    assert recorded["amount"] == "12.50"
    assert payments.refund.load(recorded) == refund
    assert isinstance(payments.refund.load(recorded), Refund)


async def test_a_refund_says_how_it_is_taken_back(tmp_path: Path) -> None:
    assert payments.refund.undo is not None
    async with PaymentLedger.open(tmp_path / "ledger.db") as ledger:
        given = await perform(payments.refund, ledger, WANTED)
        arguments = payments.refund.undo.arguments(WANTED, given)
        assert (await perform(payments.refund.undo.tool, ledger, arguments, "undo")).cancelled_at is not None


def test_a_refund_is_a_keyed_write_and_the_list_a_read() -> None:
    assert (payments.refund.name, payments.refund.tool_class) == ("payments.refund", ToolClass.KEYED)
    assert (payments.refunds_of.name, payments.refunds_of.tool_class) == ("payments.refunds_of", ToolClass.READ)
