"""A price table is right to the last digit, or it is refused with the entry that is wrong."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventwright.tools.building import DEFAULT_MODEL, ModelSettings, build_models
from eventwright.tools.prices import Prices, PricesUnusable

TABLE = """
currency = "EUR"
[models."shop-1.5"]
input = "2.00"
cached_input = "0.50"
output = "8.00"
[models."shop-1.5-2025-01-01"]
input = "4"
output = "16"
"""
ENTRY = '[models.m]\ninput = "1"\noutput = "2"\n'


def table(text: str) -> Prices:
    return Prices._parsed(text.encode(), "the test")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "currency: Field required; models: Field required"),
        ("<html>", "it is no TOML"),
        ("\x00", "it is no TOML"),
        (b"\xff\xfe", "it is no TOML"),
        (b"x = " + b"[" * 100_000, "it is no TOML"),
        (ENTRY, "currency: Field required"),
        (f'currency = "euro"\n{ENTRY}', "currency: "),
        (f"currency = 3\n{ENTRY}", "currency: "),
        ('currency = "EUR"\nmodels = "all"', "models: "),
        ('currency = "EUR"\n[models]\nm = "1"', "models.m: "),
        ('currency = "EUR"\n[models.m]\ninput = "1"', "models.m.output: Field required"),
        (f'currency = "EUR"\n{ENTRY}cached = "1"', "models.m.cached: Extra inputs"),
        (f'currency = "EUR"\n{ENTRY}\n{ENTRY}', "it is no TOML: Cannot declare"),
        (f'currency = "EUR"\n{ENTRY}[model.other]\ninput = "1"', "model: Extra inputs"),
        (
            'currency = "EUR"\n[models.gpt-4.1-mini]\ninput = "1"\noutput = "2"',
            'a name with a dot needs quotes: [models."gpt-4.1-mini"]',
        ),
        *(
            (f'currency = "EUR"\n[models.m]\noutput = "1"\ninput = {value}', "models.m.input: ")
            for value in ('"-0.01"', '"NaN"', '"Infinity"', '"-0.0000001"', '"a dollar"', '""', '"1e7"', '"1e-20"')
        ),
        *(
            (f'currency = "EUR"\n[models.m]\noutput = "1"\ninput = {value}', 'write it as text, like "0.40"')
            for value in ("0.1", "1", "nan", "true", "[]", "2026-01-01")
        ),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_its_file_and_the_entry(
    tmp_path: Path, content: str | bytes, complaint: str
) -> None:
    file = tmp_path / "prices.toml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(PricesUnusable) as caught:
        Prices.read(file)
    assert str(caught.value).startswith(f"the price table {file} cannot be used: ")
    assert complaint in str(caught.value)


def test_every_wrong_entry_is_named_at_once() -> None:
    with pytest.raises(PricesUnusable, match=r"models\.m\.input: .*; models\.m\.output: .*; models\.n\.input: "):
        table('currency = "EUR"\n[models.m]\ninput = "-1"\n[models.n]\ninput = "x"\noutput = "1"')


@pytest.mark.parametrize("place", ["missing.toml", "."])
def test_a_table_that_is_not_there_stops_the_start(tmp_path: Path, place: str) -> None:
    with pytest.raises(PricesUnusable, match=f"the price table {tmp_path / place} cannot be used: (No such|Is a)"):
        build_models(ModelSettings(prices=tmp_path / place))


@pytest.mark.parametrize(
    "model", ["", "shop", "shop-1", "shop-1.5-pro", "shop-1.50", "shop-1.5-32k", "SHOP-1.5", "shop-1.5-", "x-shop-1.5"]
)
def test_a_model_that_is_merely_called_like_another_has_no_price(model: str) -> None:
    prices = table(TABLE)
    assert prices.price(model) is None
    assert prices.cost(model, 1, 1) is None
    assert prices.at_most(model, 1, 1) is None


@pytest.mark.parametrize("model", ["shop-1.5", "shop-1.5-2024-08-06", "shop-1.5-20240806", "shop-1.5-0613"])
def test_a_dated_snapshot_costs_what_its_model_does(model: str) -> None:
    assert table(TABLE).cost(model, 1_000_000, 1_000_000) == Decimal("10.00")


def test_a_snapshot_with_a_price_of_its_own_goes_before_its_model() -> None:
    assert table(TABLE).cost("shop-1.5-2025-01-01", 1_000_000, 1_000_000) == Decimal(20)


def test_the_smallest_costs_are_exact_and_cached_tokens_cost_less_where_the_table_says_so() -> None:
    prices = table(TABLE)
    assert prices.cost("shop-1.5", 31, 7) == Decimal("0.000118")
    assert prices.cost("shop-1.5", 31, 7, cached_tokens=30) == Decimal("0.000073")
    assert prices.cost("shop-1.5-2025-01-01", 31, 7, cached_tokens=30) == Decimal("0.000236")
    assert table('currency="EUR"\n[models.m]\ninput="0.000000001"\noutput="0"').cost("m", 1, 1) == Decimal("1E-15")


@pytest.mark.parametrize(("read", "cached", "written"), [(-1, 0, 1), (1, 0, -1), (1, 2, 1), (1, -1, 1)])
def test_tokens_that_nobody_can_have_used_have_no_cost(read: int, cached: int, written: int) -> None:
    with pytest.raises(ValueError, match="nobody reads"):
        table(TABLE).cost("shop-1.5", read, written, cached_tokens=cached)


money = st.decimals(min_value=0, max_value=1_000_000, places=6)


@given(money, money, st.none() | money, st.data())
def test_no_call_costs_more_than_what_is_set_aside_for_it(
    read: Decimal, written: Decimal, cached: Decimal | None, data: st.DataObject
) -> None:
    price = {"input": read, "output": written} | ({} if cached is None else {"cached_input": cached})
    prices = Prices.model_validate({"currency": "EUR", "models": {"m": price}})
    size, limit = data.draw(st.integers(0, 10**6)), data.draw(st.integers(1, 10**6))
    tokens, answered = data.draw(st.integers(0, size)), data.draw(st.integers(0, limit))
    cost = prices.cost("m", tokens, answered, cached_tokens=data.draw(st.integers(0, tokens)))
    most = prices.at_most("m", size, limit)
    assert cost is not None
    assert most is not None
    assert cost <= most


def test_the_packaged_table_has_a_price_for_the_default_model_and_the_offline_one_is_free_in_every_table() -> None:
    packaged = Prices.packaged()
    assert packaged.currency == "USD"
    assert packaged.price(DEFAULT_MODEL) is not None
    for price in packaged.models.values():
        assert price.output > price.input > (price.cached_input or 0)
    for prices in (packaged, table(TABLE)):
        assert prices.cost("offline-rules", 500, 50) == 0
        assert prices.at_most("offline-rules", 500, 50) == 0
