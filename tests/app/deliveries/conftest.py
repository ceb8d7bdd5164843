"""An App that hears every sender of webhooks."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.app.deliveries.delivering import Opened, listening
from tests.senders import SENDERS, URL

from eventwright.app.composition import App


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for sender in SENDERS:
        monkeypatch.setenv(f"EVENTWRIGHT_WEBHOOK_{sender.scheme.upper()}_SECRET", sender.secret)
    monkeypatch.setenv("EVENTWRIGHT_WEBHOOK_HUBSPOT_URL", URL)
    monkeypatch.setenv("EVENTWRIGHT_WEBHOOK_HMAC_SCHEME", "hmac")


@pytest.fixture
async def app(opened: Opened) -> AsyncIterator[App]:
    async with opened(listening()) as app:
        yield app
