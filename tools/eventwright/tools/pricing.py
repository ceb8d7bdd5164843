"""What something costs: a price list with volume tiers, a wanted discount, and rules that round alike every time.

The same items, discount and price list always come to the same amounts. A price says by which version of the rules
and of the list it was made, and by what was in that list.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from eventwright.runs.errors import EventwrightError
from eventwright.tools.contract import Call, Permanent, tool

#: Of the arithmetic below. Another way to round, or to combine tiers and discounts, is another version.
RULES = "1"
#: The most pieces of one article that anybody is quoted.
MOST_PIECES = 1_000_000
#: The most lines of one quote.
MOST_LINES = 100
HUNDRED = Decimal(100)


def _written_as_text(value: object) -> object:
    if not isinstance(value, str | Decimal):
        raise ValueError(f'write it as text, like "12.50", not as {value!r}')
    return value


#: 0 to 100, in hundredths at the finest.
Percent = Annotated[Decimal, Field(ge=0, le=100, max_digits=5, decimal_places=2)]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
Sku = Annotated[str, Field(min_length=1, max_length=64)]
_Text = Annotated[Percent, BeforeValidator(_written_as_text)]
_UnitPrice = Annotated[Decimal, BeforeValidator(_written_as_text), Field(gt=0, max_digits=12, decimal_places=2)]


class PriceListUnusable(EventwrightError, ValueError):
    """A price list cannot be used."""

    def __init__(self, place: str, problem: str) -> None:
        self.place, self.problem = place, problem
        super().__init__(f"the price list {place} cannot be used: {problem}")


class NotForSale(Permanent):
    """The price list has no price for something. `items` are its article numbers."""

    def __init__(self, message: str, *, items: Sequence[str]) -> None:
        self.items = list(items)
        super().__init__(message)


class Item(BaseModel):
    """So many pieces of one article."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sku: Sku
    quantity: int = Field(ge=1, le=MOST_PIECES, strict=True)


def _each_once(items: list[Item]) -> list[Item]:
    skus = [item.sku for item in items]
    twice = next((sku for sku in skus if skus.count(sku) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice!r} stands there twice; its pieces belong into one line, or no tier counts them all")
    return items


#: What is wanted: every article once.
Items = Annotated[list[Item], Field(min_length=1, max_length=MOST_LINES), AfterValidator(_each_once)]


class Tier(BaseModel):
    """From so many pieces on, so much off the unit price."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    from_: int = Field(ge=2, le=MOST_PIECES, alias="from")
    percent: _Text


class Product(BaseModel):
    """An article, with its unit price by currency."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sku: Sku
    name: str = Field(min_length=1, max_length=200)
    prices: Mapping[Currency, _UnitPrice] = Field(min_length=1)
    tiers: tuple[Tier, ...] = ()

    @model_validator(mode="after")
    def _tiers_rise(self) -> Self:
        steps = [(tier.from_, tier.percent) for tier in self.tiers]
        if any(later[0] <= sooner[0] or later[1] <= sooner[1] for sooner, later in pairwise(steps)):
            raise ValueError("of two tiers the one for more pieces stands later and takes more off")
        return self

    def tier(self, quantity: int) -> Decimal:
        """How much so many pieces take off the unit price, in percent."""
        return max((tier.percent for tier in self.tiers if quantity >= tier.from_), default=Decimal(0))


class Line(BaseModel):
    """One article of a price. Amounts are in the price's currency."""

    model_config = ConfigDict(frozen=True)

    sku: Sku
    name: str
    quantity: int
    list_price: Decimal
    #: What the tier takes off, in percent.
    tier: Decimal
    unit_price: Decimal
    amount: Decimal


class Price(BaseModel):
    """What items cost together, and how that was found.

    Attributes:
        items: what was asked for, in the same order.
        list_amount: by the list alone.
        amount: after the volume tiers, before the discount.
        discount: what the discount takes off, as an amount.
        total: what is to be paid.
        rules: the version of the arithmetic.
        price_list: the version of the list, and the beginning of the SHA-256 of what was in it.
    """

    model_config = ConfigDict(frozen=True)

    items: list[Item]
    currency: Currency
    lines: list[Line]
    list_amount: Decimal
    amount: Decimal
    percent: Decimal
    discount: Decimal
    total: Decimal
    rules: str
    price_list: str


class PriceList(BaseModel):
    """What we sell. `PriceList.packaged()` is the one that comes with the package."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str = Field(min_length=1, max_length=40)
    #: How many places behind the point an amount has, by currency.
    currencies: Mapping[Currency, Annotated[int, Field(ge=0, le=2)]]
    products: tuple[Product, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        skus = [product.sku for product in self.products]
        if len(set(skus)) < len(skus):
            raise ValueError("an article number stands there twice")
        for product in self.products:
            for currency, price in product.prices.items():
                if currency not in self.currencies:
                    raise ValueError(f"{product.sku}: {currency} is none of the currencies of the list")
                if price != self.rounded(price, currency):
                    raise ValueError(f"{product.sku}: {price} has more places than {currency} has")
        return self

    @classmethod
    def packaged(cls) -> Self:
        """The list that comes with the package."""
        return cls.parse((files("eventwright.tools") / "data" / "price_list.toml").read_text("utf-8"), "packaged")

    @classmethod
    def read(cls, path: Path) -> Self:
        """A list of one's own. Raises PriceListUnusable."""
        try:
            return cls.parse(path.read_text("utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise PriceListUnusable(str(path), str(error)) from error

    @classmethod
    def parse(cls, text: str, place: str) -> Self:
        """A list from its TOML. Raises PriceListUnusable."""
        try:
            return cls.model_validate(tomllib.loads(text))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the list"
            raise PriceListUnusable(place, f"{where}: {first['msg']}") from error
        except tomllib.TOMLDecodeError as error:
            raise PriceListUnusable(place, str(error)) from error

    @property
    def label(self) -> str:
        """Its version and what is in it: a list that was changed under an old version is told apart."""
        content = self.model_dump_json(by_alias=True)
        return f"{self.version} ({hashlib.sha256(content.encode()).hexdigest()[:12]})"

    def rounded(self, amount: Decimal, currency: str) -> Decimal:
        """The amount in whole cents, or whatever the currency's smallest coin is; a half goes up."""
        return amount.quantize(Decimal(1).scaleb(-self.currencies[currency]), ROUND_HALF_UP)

    def price(self, items: Sequence[Item], currency: str, percent: Decimal) -> Price:
        """What these items cost with this discount.

        The tier of an article is taken off its unit price, which is rounded; then it is multiplied. The discount is
        taken off the sum of the lines, and is rounded once.

        Raises:
            NotForSale: the list has no price for something.
        """
        lines = [self._line(product, item, currency) for product, item in self._found(items, currency)]
        amount = sum((line.amount for line in lines), Decimal(0))
        discount = self.rounded(amount * percent / HUNDRED, currency)
        return Price(
            items=list(items),
            currency=currency,
            lines=lines,
            list_amount=sum((line.list_price * line.quantity for line in lines), Decimal(0)),
            amount=amount,
            percent=percent,
            discount=discount,
            total=amount - discount,
            rules=RULES,
            price_list=self.label,
        )

    def _found(self, items: Sequence[Item], currency: str) -> list[tuple[Product, Item]]:
        known = {product.sku: product for product in self.products}
        found = [(known[item.sku], item) for item in items if currency in getattr(known.get(item.sku), "prices", {})]
        missing = [item.sku for item in items if not any(item is priced for _, priced in found)]
        if missing:
            there = ", ".join(sku for sku, one in known.items() if currency in one.prices)
            raise NotForSale(
                f"the price list {self.version} has no price in {currency} for {', '.join(missing)}; "
                f"what it has one for: {there or 'nothing'}",
                items=missing,
            )
        return found

    def _line(self, product: Product, item: Item, currency: str) -> Line:
        listed, tier = self.rounded(product.prices[currency], currency), product.tier(item.quantity)
        unit = self.rounded(listed * (HUNDRED - tier) / HUNDRED, currency)
        return Line(
            sku=product.sku,
            name=product.name,
            quantity=item.quantity,
            list_price=listed,
            tier=tier,
            unit_price=unit,
            amount=unit * item.quantity,
        )


@tool(trusted=True)
async def price(items: Items, currency: Currency, percent: Percent, *, call: Call) -> Price:
    """Find out what items cost, with a discount in percent."""
    return call.use(PriceList).price(items, currency, percent)
