"""The books: every entry balances, nothing is booked twice, and what goes elsewhere goes there once."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.loopback import on_loopback

from eventwright.tools.accounting import NEAR, Books, BooksMoved, Twin
from eventwright.tools.accounting_export import CsvExport, HttpExport, harmless
from eventwright.tools.accounting_records import (
    Entry,
    NewBooking,
    OrderLine,
    PurchaseOrder,
    Sums,
    Supplier,
    balanced,
    lines_key,
)
from eventwright.tools.contract import NotDone, Permanent, ToolError

ACCOUNT = "DE89370400440532013000"
MILL = Supplier(id="sup-1", name="Paper Mill Ltd", vat_id="DE 123456789", accounts=("DE89 3704 0044 0532 0130 00",))
BOX = OrderLine(number="1", name="Paper A4", quantity=Decimal(10), price=Decimal("10.00"))
ORDER = PurchaseOrder(number="PO-7", supplier_id="sup-1", currency="EUR", lines=(BOX,))


def new(**more: Any) -> NewBooking:
    fields = {
        "supplier_id": "sup-1",
        "number": "A-1",
        "is_credit": False,
        "issued": date(2026, 11, 2),
        "due": date(2026, 12, 2),
        "owed": Decimal("125.00"),
        "currency": "EUR",
        "sums": Sums(net=Decimal("100.00"), vat=Decimal("25.00")),
        "lines_key": lines_key([(Decimal("100.00"), Decimal(10))]),
        "sha256": "0" * 64,
    }
    return NewBooking(**{**fields, **more})


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    async with Books.open(tmp_path / "accounting.db") as opened:
        await opened.add_supplier(MILL)
        await opened.add_order(ORDER)
        yield opened


async def book(books: Books, key: str = "k1", account: str | None = ACCOUNT, twin: bool = False, **more: Any) -> Any:
    return await books.book(new(**more), account=account, known_twin=twin, idempotency_key=key)


# -- once --------------------------------------------------------------------------------------------------------------


async def test_the_same_key_is_the_same_booking_and_another_booking_needs_another_key(books: Books) -> None:
    first = await book(books)
    assert await book(books) == first
    with pytest.raises(Permanent, match="belongs to the booking"):
        await book(books, owed=Decimal("126.00"))
    assert len(await books.entries()) == len(await books.payments()) == 1


@pytest.mark.parametrize("number", ["A-1", "a 1", "A/1", "A1"])
async def test_a_number_is_booked_once_however_it_is_written(books: Books, number: str) -> None:
    await book(books)
    for known in (False, True):
        with pytest.raises(Twin, match="booked already"):
            await book(books, "k2", number=number, twin=known, issued=date(2026, 1, 1))


async def test_the_same_lines_under_another_number_need_a_persons_word(books: Books) -> None:
    await book(books)
    with pytest.raises(Twin):
        await book(books, "k2", number="B-1", issued=date(2026, 11, 2) + NEAR)
    await book(books, "k2", number="B-1", twin=True)
    assert len(await books.payments()) == 2


@pytest.mark.parametrize(
    "more",
    [
        {"issued": date(2026, 11, 3) + NEAR},
        {"owed": Decimal("125.01")},
        {"lines_key": lines_key([(Decimal("100.00"), Decimal(11))])},
        {"supplier_id": "sup-2"},
        {"currency": "GBP"},
    ],
    ids=["later", "amount", "lines", "supplier", "currency"],
)
async def test_an_invoice_that_differs_is_another_one(books: Books, more: dict[str, Any]) -> None:
    await book(books)
    await book(books, "k2", number="B-1", **more)


async def test_invoices_for_two_periods_are_two_even_on_one_day(books: Books) -> None:
    await book(books, period="2026-09-01/2026-09-30")
    await book(books, "k2", number="B-1", period="2026-10-01/2026-10-31")
    with pytest.raises(Twin):
        await book(books, "k3", number="C-1", period="2026-10-01/2026-10-31")


async def test_a_credit_may_bear_the_number_of_its_invoice(books: Books) -> None:
    await book(books)
    credit = {"owed": Decimal("-125.00"), "is_credit": True, "sums": Sums(net=Decimal(-100), vat=Decimal(-25))}
    assert (await book(books, "k2", None, **credit)).pay_on is None


async def test_bookings_at_the_same_moment_and_from_two_processes_are_booked_once(tmp_path: Path, books: Books) -> None:
    async with Books.open(tmp_path / "accounting.db") as other:
        tries = [book(which, f"k{place}") for place, which in enumerate([books, other] * 5)]
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert [type(one) for one in outcomes if isinstance(one, Exception)] == [Twin] * 9
    assert len(await books.entries()) == 1


async def test_lines_are_known_by_their_amounts_in_whatever_order_and_digits() -> None:
    one = [(Decimal("100.00"), Decimal(10)), (Decimal(5), None)]
    assert lines_key(one) == lines_key([(Decimal("5.0"), None), (Decimal(100), Decimal("10.000"))])
    assert lines_key(one) != lines_key(one[:1])


# -- money -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{"owed": Decimal("-1.00")}, {"owed": Decimal(0)}, {"is_credit": True}])
async def test_what_asks_for_no_money_is_never_paid_out(books: Books, more: dict[str, Any]) -> None:
    with pytest.raises(Permanent, match="never paid out"):
        await book(books, **more)
    assert await books.payments() == []


async def test_a_payment_is_not_scheduled_for_a_day_that_is_past(books: Books) -> None:
    booked = await book(books, due=date(2000, 1, 1))
    assert booked.pay_on is not None
    assert booked.pay_on > date(2026, 1, 1)
    late = await book(books, "k2", number="B-1", owed=Decimal("5.00"), due=booked.pay_on + timedelta(days=9))
    assert late.pay_on == booked.pay_on + timedelta(days=9)


async def test_a_booking_whose_order_was_used_up_meanwhile_is_refused(books: Books) -> None:
    await book(books, order="PO-7", order_invoiced=Decimal(0))
    found = await books.order("PO-7")
    assert found is not None
    assert (found.total, found.left) == (Decimal("100.00"), Decimal("0.00"))
    with pytest.raises(BooksMoved, match=r"100\.00 of order"):
        await book(books, "k2", number="B-1", order="PO-7", order_invoiced=Decimal(0), issued=date(2026, 1, 1))


MONEY = st.decimals(-(10**9), 10**9, places=2)


@given(MONEY, MONEY, MONEY, MONEY, MONEY)
def test_every_entry_balances_also_one_of_an_invoice_that_does_not_add_up(
    net: Decimal, vat: Decimal, prepaid: Decimal, rounding: Decimal, owed: Decimal
) -> None:
    postings = balanced(Sums(net=net, vat=vat, prepaid=prepaid, rounding=rounding), owed)
    assert sum(one.debit for one in postings) == sum(one.credit for one in postings)
    assert all(one.debit >= 0 and one.credit >= 0 for one in postings)
    [owing] = [one.credit - one.debit for one in postings if one.account == "2000 payables"] or [Decimal(0)]
    assert owing == owed


async def test_a_booking_is_taken_back_once_and_its_payment_with_it(books: Books) -> None:
    booked = await book(books, order="PO-7")
    back = await books.reverse(booked.id, idempotency_key="r1")
    assert await books.reverse(booked.id, idempotency_key="r2") == back
    assert [one.cancelled_at is None for one in await books.payments()] == [False]
    found = await books.order("PO-7")
    assert found is not None
    assert found.left == Decimal(100)
    with pytest.raises(Permanent, match="no booking"):
        await books.reverse("book_none", idempotency_key="r3")
    await book(books, "k2")  # and it may be booked anew


# -- records -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "found"),
    [
        (["de123456789"], True),
        (["nobody", "paper mill, LTD."], True),
        (["sup-1"], True),
        ([""], False),
        (["Paper"], False),
        (["' OR 1=1 --"], False),
    ],
)
async def test_a_supplier_is_found_by_number_or_name_and_by_nothing_less(
    books: Books, written: list[str], found: bool
) -> None:
    assert (await books.supplier(*written) is not None) is found


async def test_a_name_that_two_suppliers_have_names_neither(books: Books) -> None:
    await books.add_supplier(Supplier(id="sup-2", name="Paper Mill Ltd."))
    assert await books.supplier("Paper Mill Ltd") is None


# -- elsewhere ---------------------------------------------------------------------------------------------------------


async def test_an_entry_stands_in_the_file_once_with_its_postings(books: Books, tmp_path: Path) -> None:
    booked = await book(books)
    export = CsvExport(tmp_path / "out" / "entries.csv")
    await asyncio.gather(*(export.send(booked.entry, idempotency_key="k") for _ in range(5)))
    rows = list(csv.DictReader(export.path.read_text(encoding="utf-8").splitlines()))
    assert [(row["account"], row["debit"], row["credit"]) for row in rows] == [
        ("5000 purchases", "100.00", "0"),
        ("1400 input VAT", "25.00", "0"),
        ("2000 payables", "0", "125.00"),
    ]


@pytest.mark.parametrize("text", ["=cmd()", "+1", "-1", "@x"])
def test_no_spreadsheet_takes_a_suppliers_words_for_a_formula(text: str) -> None:
    assert harmless(text) == f"'{text}"


class Server:
    """An accounting system that honours idempotency keys, and answers with what a test wants first."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.taken, self.keys = list(answers), {}, []  # type: ignore[var-annotated]

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = dict(line.lower().split(": ", 1) for line in head.splitlines()[1:] if ": " in line)
        body = await reader.readexactly(int(lines["content-length"]))
        self.keys.append(lines["idempotency-key"])
        answer = self.answers.pop(0) if self.answers else "201 Created"
        if answer.startswith(("2", "lost")):
            self.taken[lines["idempotency-key"]] = json.loads(body)
        if answer != "lost":
            writer.write(f"HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
            await writer.drain()


@asynccontextmanager
async def exporting(server: Server, **more: Any) -> AsyncIterator[HttpExport]:
    async with on_loopback(server.converse) as port, httpx.AsyncClient() as client:
        yield HttpExport(client, f"http://127.0.0.1:{port}/entries", **more)


async def an_entry(books: Books) -> Entry:
    booked = await book(books)
    entry: Entry = booked.entry
    return entry


async def test_a_server_gets_the_entry_as_json_with_our_key(books: Books) -> None:
    server, entry = Server(), await an_entry(books)
    async with exporting(server, token="s3cret") as export:
        assert (await export.send(entry, idempotency_key="k-1")).entry == entry.id
    assert server.taken == {"k-1": entry.model_dump(mode="json")}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("503 Busy", NotDone),
        ("429 Slow\r\nretry-after: 7", NotDone),
        ("401 Who", Permanent),
        ("422 No", Permanent),
        ("302 Elsewhere\r\nlocation: http://127.0.0.1:9/", Permanent),
        ("lost", ToolError),
    ],
)
async def test_each_answer_of_the_server_is_the_error_that_it_means(
    books: Books, answer: str, error: type[ToolError]
) -> None:
    server, entry = Server(answer), await an_entry(books)
    async with exporting(server) as export:
        with pytest.raises(ToolError) as failed:
            await export.send(entry, idempotency_key="k-1")
        assert type(failed.value) is error
        assert getattr(failed.value, "retry_after", None) == (7.0 if "retry-after" in answer else None)
        # The same key again: taken once, whatever was lost.
        await export.send(entry, idempotency_key="k-1")
    assert set(server.keys) == set(server.taken) == {"k-1"}


async def test_a_server_that_is_not_there_took_nothing(books: Books) -> None:
    entry = await an_entry(books)
    async with exporting(Server()) as export:
        gone = export
    async with httpx.AsyncClient() as client:
        with pytest.raises(NotDone, match="does not answer"):
            await HttpExport(client, gone._url).send(entry, idempotency_key="k-1")


async def test_a_file_that_cannot_be_written_is_an_error_that_says_so(books: Books, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ToolError, match="cannot be written"):
        await CsvExport(tmp_path / "folder").send(await an_entry(books), idempotency_key="k")
