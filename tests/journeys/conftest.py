"""Fixtures of the business stories."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.journeys.discounts_world import Sales, open_sales
from tests.journeys.invoice_world import Office, open_office
from tests.journeys.support_world import Outside
from tests.outside import World, a_world
from tests.tools.signature_provider import TOKEN, SignatureProvider, signature_provider

from eventwright.tools.crm import Crm
from eventwright.tools.payments import PaymentLedger
from eventwright.tools.signatures import HttpSignatures
from eventwright.tools.smtp_server import local_smtp


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    """A store, a clock, a provider and a process, on each of the two databases."""
    async with a_world(database_url) as world:
        yield world


@pytest.fixture
async def outside(tmp_path: Path) -> AsyncIterator[Outside]:
    async with AsyncExitStack() as stack:
        yield Outside(
            crm=await stack.enter_async_context(Crm.open(tmp_path / "crm.db")),
            ledger=await stack.enter_async_context(PaymentLedger.open(tmp_path / "payments.db")),
            smtp=await stack.enter_async_context(local_smtp()),
        )


@pytest.fixture
async def office(tmp_path: Path, database_url: str) -> AsyncIterator[Office]:
    """The accounting office, on each of the two stores."""
    async with open_office(tmp_path, database_url) as opened:
        yield opened


@pytest.fixture
async def sales(tmp_path: Path, database_url: str) -> AsyncIterator[Sales]:
    """Sales and what it deals with, on each of the two stores."""
    async with open_sales(tmp_path, database_url) as opened:
        yield opened


@pytest.fixture
async def abroad(tmp_path: Path, database_url: str) -> AsyncIterator[tuple[Sales, SignatureProvider]]:
    """The same, with a signature system at a provider."""
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(signature_provider())
        system = await stack.enter_async_context(HttpSignatures.open(provider.url, token=TOKEN, seconds=5))
        yield await stack.enter_async_context(open_sales(tmp_path, database_url, system)), provider
