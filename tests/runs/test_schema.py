"""The column types that make both stores keep times and money alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import StatementError

from eventwright.runs.database import Database, open_database
from eventwright.runs.schema import Json, Money, UtcDateTime

ledger = sa.Table(
    "ledger",
    sa.MetaData(),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("amount", Money),
    sa.Column("at", UtcDateTime),
    sa.Column("data", Json),
)


@pytest.fixture
async def database(empty_database_url: str) -> AsyncIterator[Database]:
    async with open_database(empty_database_url) as database:
        await database.write(ledger.create)
        yield database


async def kept(database: Database, **columns: Any) -> Any:
    """What comes back of one stored value."""
    ((column, value),) = columns.items()

    def store(connection: sa.Connection) -> None:
        connection.execute(sa.delete(ledger))
        connection.execute(sa.insert(ledger), {"number": 1, column: value})

    await database.write(store)
    return await database.read(lambda connection: connection.execute(sa.select(ledger.c[column])).scalar_one())


async def test_a_time_without_a_zone_is_refused(database: Database) -> None:
    with pytest.raises(StatementError, match="a time needs its zone"):
        await kept(database, at=datetime(2026, 1, 1))  # noqa: DTZ001 - the point


@pytest.mark.parametrize("amount", [1.5, 1, "1.50", Decimal("NaN"), Decimal("Infinity")])
async def test_money_is_a_finite_decimal_or_refused(database: Database, amount: Any) -> None:
    with pytest.raises(StatementError, match="money is a finite Decimal"):
        await kept(database, amount=amount)


@pytest.mark.parametrize(
    "amount", ["0.1", "19.99", "-0.01", "123456789012345678.99", "0.0000000001", "0", "100", "9007199254740993"]
)
async def test_money_comes_back_to_the_last_digit(database: Database, amount: str) -> None:
    stored = await kept(database, amount=Decimal(amount))

    assert isinstance(stored, Decimal)
    assert stored == Decimal(amount)


async def test_money_without_a_value_stays_without(database: Database) -> None:
    assert await kept(database, amount=None) is None


@pytest.mark.parametrize("offset", [0, 5.5, -9])
async def test_a_time_comes_back_as_the_same_moment_in_utc(database: Database, offset: float) -> None:
    moment = datetime(2026, 10, 25, 2, 30, 0, 123456, tzinfo=timezone(timedelta(hours=offset)))

    stored = await kept(database, at=moment)

    assert stored == moment
    assert stored.tzinfo is UTC


async def test_times_sort_as_they_passed(database: Database) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    moments = [start, start + timedelta(microseconds=1), start + timedelta(seconds=1), start + timedelta(days=400)]

    def store(connection: sa.Connection) -> None:
        rows = [{"number": number, "at": moment} for number, moment in enumerate(reversed(moments))]
        connection.execute(sa.insert(ledger), rows)

    await database.write(store)
    ordered = sa.select(ledger.c.at).order_by(ledger.c.at)

    assert await database.read(lambda connection: list(connection.execute(ordered).scalars())) == moments


@pytest.mark.parametrize("data", [{"z": 1, "a": [1e22, 1.0, 5e-324]}, [], {}, "é🐎", 2**60, False, {"n": None}])
async def test_json_comes_back_as_it_was(database: Database, data: Any) -> None:
    stored = await kept(database, data=data)

    assert repr(stored) == repr(data)
