"""The errands of the storm: those of `errand.py` at a provider that takes its time, with budgets for many of them.

The environment says where the provider's book and the clock by which it is written are.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import tests.faults.errand as plain
from tests.faults.books import Provider
from tests.faults.storm_clock import Clock

from eventwright.guardrails.budgets import Budget

#: How long the provider takes for an answer, at most.
ANSWER_SECONDS = 1.5
BOOK, CLOCK = "STORM_BOOK", "STORM_CLOCK"


@asynccontextmanager
async def provider() -> AsyncIterator[list[object]]:
    with closing(Clock(Path(os.environ[CLOCK]))) as clock:
        yield [Provider(Path(os.environ[BOOK]), clock.time, ANSWER_SECONDS)]


errand = replace(
    plain.errand,
    lifespan=provider,
    budgets=[Budget("calls", 10_000_000, per="day")],
).with_policy("buy", budgets=[Budget("amount", "1000000000", per="day", of=plain.pay)])
hurry = replace(plain.hurry, lifespan=provider)
