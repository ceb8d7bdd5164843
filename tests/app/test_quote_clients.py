"""Which price list and which signature system a process has, its settings say."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from eventwright.app.quote_clients import quote_clients
from eventwright.app.settings import Settings
from eventwright.tools import pricing
from eventwright.tools.contract import Resources
from eventwright.tools.embedded_signatures import EmbeddedSignatures
from eventwright.tools.pricing import PriceList, PriceListUnusable
from eventwright.tools.quotes import QuoteBook
from eventwright.tools.signatures import HttpSignatures


async def opened(home: Path, **settings: Any) -> Resources:
    async with AsyncExitStack() as stack:
        return Resources(tuple(await quote_clients(Settings(home=home, **settings), stack)))


async def test_without_settings_everything_is_embedded(tmp_path: Path) -> None:
    clients = await opened(tmp_path)
    assert clients.use(PriceList) == PriceList.packaged()
    assert clients.use(QuoteBook)
    assert clients.use(EmbeddedSignatures)
    assert {file.name for file in tmp_path.iterdir()} >= {"quotes.db", "signatures.db"}


async def test_an_address_leads_to_the_provider_with_the_secret_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTWRIGHT_SECRET_SIGNATURES_TOKEN", "made-up-token")
    clients = await opened(tmp_path, signatures_url="https://sign.example.com/restapi/v2.1/accounts/1")
    assert clients.use(HttpSignatures).host == "sign.example.com"


async def test_a_price_list_of_ones_own_counts_and_a_bad_one_stops_the_process(tmp_path: Path) -> None:
    packaged = Path(pricing.__file__).parent / "data" / "price_list.toml"
    own = tmp_path / "own.toml"
    own.write_text(packaged.read_text("utf-8").replace("2026-1", "our own"), "utf-8")
    assert (await opened(tmp_path, price_list=str(own))).use(PriceList).version == "our own"
    own.write_text("version = 1", "utf-8")
    with pytest.raises(PriceListUnusable, match=r"own\.toml"):
        await opened(tmp_path, price_list=str(own))
