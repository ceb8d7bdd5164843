"""What something costs: to the cent, alike every time, and by which version of what."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some
from pydantic import ValidationError

from eventwright.tools import pricing
from eventwright.tools.contract import Call, OutsideGate, Resources
from eventwright.tools.pricing import RULES, Item, NotForSale, Price, PriceList, PriceListUnusable

LIST = PriceList.packaged()


def wanted(**quantities: int) -> list[Item]:
    return [Item(sku=sku.replace("_", "-"), quantity=quantity) for sku, quantity in quantities.items()]


def price(percent: str = "0", currency: str = "EUR", **quantities: int) -> Price:
    return LIST.price(wanted(**quantities), currency, Decimal(percent))


@pytest.mark.parametrize(
    ("quantities", "missing"),
    [({"SEAT_GOLD": 1}, ["SEAT-GOLD"]), ({"SEAT_PRO": 1, "X": 1, "Y": 1}, ["X", "Y"]), ({"seat_pro": 1}, ["seat-pro"])],
)
def test_what_the_list_does_not_have_is_named_and_nothing_is_priced(quantities: Any, missing: list[str]) -> None:
    with pytest.raises(NotForSale, match="SEAT-BASIC") as refused:
        price(**quantities)
    assert refused.value.items == missing


def test_an_article_without_a_price_in_a_currency_is_not_sold_in_it() -> None:
    for currency in ("JPY", "CHF"):
        with pytest.raises(NotForSale, match=currency):
            price(currency=currency, ONBOARDING=1)


@pytest.mark.parametrize(
    "items",
    [
        [],
        [{"sku": "SEAT-PRO", "quantity": 0}],
        [{"sku": "SEAT-PRO", "quantity": -3}],
        [{"sku": "SEAT-PRO", "quantity": 1.5}],
        [{"sku": "SEAT-PRO", "quantity": "2"}],
        [{"sku": "SEAT-PRO", "quantity": 5}, {"sku": "SEAT-PRO", "quantity": 5}],
        [{"sku": "SEAT-PRO", "quantity": 1, "price": "0.01"}],
        [{"sku": f"S{number}", "quantity": 1} for number in range(101)],
    ],
)
def test_items_that_make_no_sense_are_refused(items: Any) -> None:
    with pytest.raises(ValidationError):
        pricing.price.arguments.model_validate_json(json.dumps({"items": items, "currency": "EUR", "percent": "0"}))


@pytest.mark.parametrize("percent", ["-1", "100.01", "0.001", "NaN", "Infinity"])
def test_a_discount_that_makes_no_sense_is_refused(percent: str) -> None:
    items = [{"sku": "SEAT-PRO", "quantity": 1}]
    with pytest.raises(ValidationError, match="percent"):
        pricing.price.arguments.model_validate_json(json.dumps({"items": items, "currency": "EUR", "percent": percent}))


@pytest.mark.parametrize(
    ("quantity", "tier", "unit"),
    [(9, "0", "349.00"), (10, "4", "335.04"), (49, "4", "335.04"), (50, "8.5", "319.34"), (250, "15", "296.65")],
)
def test_a_volume_takes_off_what_its_tier_says_from_its_first_piece_on(quantity: int, tier: str, unit: str) -> None:
    # 349.00 less 8.5 % is 319.335: a half goes up.
    [line] = price(SEAT_PRO=quantity).lines
    assert (line.tier, line.unit_price, line.amount) == (Decimal(tier), Decimal(unit), Decimal(unit) * quantity)


def test_the_discount_is_taken_off_once_after_the_tiers() -> None:
    found = price("12.5", SEAT_PRO=10, SUPPORT_24=1)
    assert (found.list_amount, found.amount) == (Decimal("8390.00"), Decimal("8250.40"))
    assert (found.discount, found.total) == (Decimal("1031.30"), Decimal("7219.10"))


def test_a_currency_without_cents_gets_none() -> None:
    found = price("3", currency="JPY", SEAT_PRO=10)
    assert (found.amount, found.discount, found.total) == (Decimal(552000), Decimal(16560), Decimal(535440))
    assert found.total.as_tuple().exponent == 0


def test_the_price_says_by_which_rules_and_list_it_was_made() -> None:
    found = price(SEAT_PRO=1)
    assert (found.rules, found.price_list) == (RULES, LIST.label)
    assert LIST.label.startswith(LIST.version)


def test_a_list_that_was_changed_under_its_old_version_is_told_apart() -> None:
    first, *others = LIST.products
    dearer = first.model_copy(update={"prices": {**first.prices, "EUR": Decimal("121.00")}})
    changed = LIST.model_copy(update={"products": (dearer, *others)})
    assert changed.version == LIST.version
    assert changed.label != LIST.label


@given(
    quantities=some.dictionaries(
        some.sampled_from([one.sku for one in LIST.products]), some.integers(1, 3000), min_size=1
    ),
    percent=some.decimals(0, 100, places=2),
    currency=some.sampled_from(["EUR", "GBP", "USD"]),
)
def test_whatever_is_bought_the_lines_add_up_and_the_same_again_costs_the_same(
    quantities: dict[str, int], percent: Decimal, currency: str
) -> None:
    items = [Item(sku=sku, quantity=quantity) for sku, quantity in quantities.items()]
    found = LIST.price(items, currency, percent)
    assert found == LIST.price(items, currency, percent)
    assert found == Price.model_validate_json(found.model_dump_json())
    assert sum(line.amount for line in found.lines) == found.amount == found.discount + found.total
    assert 0 <= found.total <= found.amount <= found.list_amount
    assert all(int(amount.as_tuple().exponent) >= -2 for amount in (found.amount, found.discount, found.total))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (('version = "2026-1"', ""), "version"),
        (('EUR = "120.00"', "EUR = 120.0"), "write it as text"),
        (('EUR = "120.00"', 'EUR = "-1"'), "greater than 0"),
        (('EUR = "120.00"', 'CHF = "120.00"'), "none of the currencies"),
        (('JPY = "19800"', 'JPY = "19800.50"'), "more places than JPY has"),
        (('sku = "SEAT-PRO"', 'sku = "SEAT-BASIC"'), "stands there twice"),
        (('from = 50, percent = "10"', 'from = 5, percent = "10"'), "stands later"),
        (('from = 50, percent = "10"', 'from = 50, percent = "4"'), "takes more off"),
        (("[currencies]", "[currencies"), "Expected"),
        (('name = "Basic seat, one year"', 'name = "Basic seat, one year"\ncolour = "red"'), "colour"),
    ],
)
def test_a_price_list_with_a_mistake_in_it_is_refused_whole(change: tuple[str, str], why: str, tmp_path: Path) -> None:
    packaged = Path(pricing.__file__).parent / "data" / "price_list.toml"
    text = packaged.read_text("utf-8")
    assert change[0] in text
    file = tmp_path / "list.toml"
    file.write_text(text.replace(*change, 1), "utf-8")
    with pytest.raises(PriceListUnusable, match=why):
        PriceList.read(file)


def test_a_price_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PriceListUnusable, match=r"none\.toml"):
        PriceList.read(tmp_path / "none.toml")


async def test_the_tool_asks_the_list_of_its_process_and_works_in_a_node_alone() -> None:
    arguments = pricing.price.arguments.model_validate(
        {"items": wanted(SEAT_PRO=1), "currency": "EUR", "percent": Decimal(0)}
    )
    call = Call(run_id="run_1", node="price", idempotency_key="k", attempt=1, resources=Resources((LIST,)))
    assert await pricing.price.perform(arguments, call) == price(SEAT_PRO=1)
    with pytest.raises(OutsideGate):
        await pricing.price(wanted(SEAT_PRO=1), "EUR", Decimal(0))
