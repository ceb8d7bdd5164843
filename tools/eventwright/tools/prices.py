"""What asking a model costs: a table of prices that comes with the package and that users can replace."""

from __future__ import annotations

import functools
import re
import tomllib
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from eventwright.runs.errors import EventwrightError
from eventwright.tools.offline_model import NAME as OFFLINE

#: Prices are for so many tokens.
PER = 1_000_000

#: What dated snapshots have behind their name.
_SNAPSHOT = re.compile(r"-(\d{4}|\d{8}|\d{4}-\d{2}-\d{2})")


class PricesUnusable(EventwrightError, ValueError):
    """A price table cannot be used."""

    def __init__(self, place: str, problem: str) -> None:
        self.place, self.problem = place, problem
        super().__init__(f"the price table {place} cannot be used: {problem}")


def _written_as_text(value: object) -> object:
    if not isinstance(value, str | Decimal):
        raise ValueError(f'write it as text, like "0.40", not as {value!r}')
    return value


_Money = Annotated[Decimal, BeforeValidator(_written_as_text), Field(ge=0, le=PER, decimal_places=9)]


class Price(BaseModel):
    """What a model costs per million tokens. `cached_input` is for those the provider read from its cache."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: _Money
    output: _Money
    cached_input: _Money | None = None


class Prices(BaseModel):
    """A table of prices in one currency.

    Attributes:
        currency: its code, `USD`.
        models: by the model's name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    currency: str = Field(pattern=r"^[A-Z]{3}$")
    models: dict[str, Price]

    @classmethod
    def packaged(cls) -> Prices:
        """The table that comes with the package."""
        return _packaged()

    @classmethod
    def read(cls, path: Path) -> Self:
        """The table in this TOML file, in the form of the packaged one.

        Raises:
            PricesUnusable: there is none, or an entry is wrong; it says which.
        """
        try:
            return cls._parsed(path.read_bytes(), str(path))
        except OSError as error:
            raise PricesUnusable(str(path), error.strerror or str(error)) from error

    @classmethod
    def _parsed(cls, content: bytes, place: str) -> Self:
        try:
            return cls.model_validate(tomllib.loads(content.decode()))
        except ValidationError as error:
            raise PricesUnusable(place, "; ".join(map(_problem, error.errors()))) from error
        except (ValueError, RecursionError) as error:
            raise PricesUnusable(place, f"it is no TOML: {error}") from error

    def price(self, model: str) -> Price | None:
        """The price of a model: under its exact name, or under the longest name of which it is a dated snapshot.

        Never under a name that is merely like it: `gpt-5-pro` costs twelve times what `gpt-5` does.
        """
        if model == OFFLINE:
            return Price(input=Decimal(0), output=Decimal(0))
        fitting = [name for name in self.models if model == name or _is_snapshot(model, name)]
        return self.models[max(fitting, key=len)] if fitting else None

    def cost(self, model: str, input_tokens: int, output_tokens: int, *, cached_tokens: int = 0) -> Decimal | None:
        """What a call of the model cost; None if the table has no price for it.

        Args:
            input_tokens: all that were read, the cached ones among them.
            cached_tokens: how many of them the provider read from its cache.
        """
        price = self.price(model)
        if price is None:
            return None
        if min(input_tokens - cached_tokens, cached_tokens, output_tokens) < 0:
            raise ValueError(f"nobody reads {input_tokens}, {cached_tokens} of them cached, or writes {output_tokens}")
        cached = price.input if price.cached_input is None else price.cached_input
        fresh = input_tokens - cached_tokens
        return (fresh * price.input + cached_tokens * cached + output_tokens * price.output) / PER

    def at_most(self, model: str, prompt_bytes: int, max_output_tokens: int) -> Decimal | None:
        """What a call of the model can cost at most, for a prompt of so many bytes; None without a price.

        A token stands for one byte at least, so a prompt has no more tokens than bytes.
        """
        price = self.price(model)
        if price is None:
            return None
        dearer = max(price.input, price.cached_input or Decimal(0))
        return (prompt_bytes * dearer + max_output_tokens * price.output) / PER


@functools.cache
def _packaged() -> Prices:
    content = (files("eventwright.tools") / "data" / "prices.toml").read_bytes()
    return Prices._parsed(content, "of the package")


def _is_snapshot(model: str, name: str) -> bool:
    return model.startswith(name) and _SNAPSHOT.fullmatch(model, len(name)) is not None


def _problem(error: Any) -> str:
    """What is wrong with an entry, in one line."""
    where = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden" and isinstance(error["input"], dict) and len(error["loc"]) > 2:
        return f'{where}: a name with a dot needs quotes: [models."{where.removeprefix("models.")}"]'
    return f"{where}: {error['msg']}"
