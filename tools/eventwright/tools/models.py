"""What a chat model is asked, what it answers, and what can go wrong between us.

A model only advises. Its answer is data for deterministic code; what it may cause is the gate's business.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from eventwright.tools.breaker import ProviderDown
from eventwright.tools.contract import NotDone, Permanent


class ModelUnavailable(NotDone):
    """The model did not answer now: overloaded, broken, too slow or out of reach. Ask again later."""


class ModelDown(ModelUnavailable, ProviderDown):
    """The model has failed again and again, and nobody asks it for now. A run waits until it may be asked again."""


class ModelAnswerInvalid(NotDone):
    """The model answered, but not in the form that was asked for. The next attempt asks again."""


class ModelRefused(Permanent):
    """The model, or its provider's filter, refuses this question. A person has to answer it."""


class ModelMisconfigured(Permanent):
    """The provider does not accept our request: key, rights, model name or request. An operator has to act."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a model is asked.

    Attributes:
        purpose: the judgement's name, `classify`, `draft`, `choose` (letters, digits, `_` and `-`).
        instructions: what to do; trusted, from the author of the workflow.
        material: what to read; untrusted, from the event.
        schema: the JSON schema of the wanted value.

    Raises:
        ValueError: the purpose is no name, or the schema is no JSON schema.
    """

    purpose: str
    instructions: str
    material: str
    schema: dict[str, Any]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", self.purpose):
            raise ValueError(f"purpose {self.purpose!r} is no name: use up to 64 letters, digits, `_` and `-`")
        try:
            _check_schema(json.dumps(self.schema, sort_keys=True))
        except SchemaError as error:
            raise ValueError(f"the schema of {self.purpose!r} is no JSON schema: {error.message}") from error

    @property
    def is_closed(self) -> bool:
        """Whether the value can only be one of a few texts."""
        values = self.schema.get("enum") or []
        return bool(values) and all(isinstance(value, str) for value in values)


@lru_cache(maxsize=256)
def _check_schema(written: str) -> None:
    """Raises SchemaError. A workflow asks with the same few schemas again and again, and this takes milliseconds."""
    Draft202012Validator.check_schema(json.loads(written))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model answered. This is what the ledger keeps, as JSON; answers of before lack what has a default.

    Attributes:
        value: fits the question's schema.
        confidence: 0 to 1, how sure one may be: the smaller of the two below, as far as they are known.
        reason: one sentence by the model.
        model: the name of the model that answered.
        input_tokens: as the provider counts; 0 if it does not say, or nonsense. Likewise `output_tokens`.
        seconds: how long the call took.
        cost: of the call, in `currency`; None if the price of the model or the number of tokens is not known.
        stated_confidence: what the model says of itself.
        token_confidence: the probability of the words in which it gave the value; None if nobody asked for it, or
            the provider does not say.
    """

    value: Any
    confidence: float
    reason: str
    model: str
    input_tokens: int
    output_tokens: int
    seconds: float
    cost: Decimal | None = None
    currency: str | None = None
    stated_confidence: float | None = None
    token_confidence: float | None = None

    @property
    def counted(self) -> bool:
        """Whether the provider said how many tokens it took. If not, 0 does not mean that it took none."""
        return self.input_tokens > 0 and self.output_tokens > 0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a question will take at most.

    Attributes:
        tokens: read and written together.
        cost: in `currency`; None if there is no price for a model that may be asked.
        currency: of the price table.
        model: the name of the model that is asked; where the cost is not known, of the one that has no price.
    """

    tokens: int
    cost: Decimal | None
    currency: str
    model: str
