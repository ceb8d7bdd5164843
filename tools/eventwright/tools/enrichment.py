"""Enrichment: what a provider outside knows of a company, by the domain of its mail. It reads, and changes nothing.

The API is `GET /companies?domain=example.com` with a bearer token: 200 with what is known, 404 for an unknown company.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Self
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eventwright.runs.errors import EventwrightError
from eventwright.tools.contract import Call, Permanent, ResourceMissing, tool
from eventwright.tools.http_json import SECONDS, Away, ask, json_client
from eventwright.tools.providers import Providers

#: The name of a host: `example.com`.
Domain = Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?\.[a-z]{2,63}$")]


class BadEnrichmentUrl(EventwrightError, ValueError):
    """The provider's address is not an http or https URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        super().__init__(
            f"{url!r} is no address of an enrichment provider; write https://host, with a path if it has one"
        )


class Company(BaseModel):
    """A company as the provider knows it. What it does not know is None; what else it says is left out."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str = Field(max_length=300)
    domain: str = Field(max_length=253)
    industry: str | None = Field(None, max_length=200)
    employees: int | None = Field(None, ge=0, le=10_000_000)
    #: ISO 3166, two letters.
    country: str | None = Field(None, max_length=2)


class Enrichment:
    """One provider. `async with Enrichment.open(url, token=...) as enrichment`."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.host = client.base_url.host

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, *, token: str = "", seconds: float = SECONDS) -> AsyncIterator[Self]:
        """A client, closed at the end; nothing is connected yet.

        Args:
            url: what `/companies` is added to.
            token: sent as a bearer token.
            seconds: that each step of a request may take.

        Raises:
            BadEnrichmentUrl: it is none.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadEnrichmentUrl(url)
        async with json_client(url, token=token, seconds=seconds) as client:
            yield cls(client)

    async def company(self, domain: str) -> Company | None:
        """The company with this domain; None if the provider does not know it.

        Raises:
            Away: no usable answer; it may be asked again.
            Permanent: the provider refuses, and will again.
        """
        reply = await ask(
            self._client, "GET", "/companies", reads=True, expected=[httpx.codes.NOT_FOUND], params={"domain": domain}
        )
        if reply.status == httpx.codes.NOT_FOUND:
            return None
        try:
            found = Company.model_validate(reply.document)
        except ValidationError as error:
            raise Away(f"{self.host} answers, but not with a company: {error.errors()[0]['msg']}") from error
        if found.domain.casefold() != domain:
            raise Away(f"{self.host} was asked for {domain} and answers with {found.domain!r}")
        return found


class NoProvider(Permanent):
    """No enrichment provider is set up."""


@tool
async def find_company(domain: Domain, *, call: Call) -> Company | None:
    """Ask the enrichment provider for the company that has this domain."""
    try:
        provider = call.use(Enrichment)
    except ResourceMissing as missing:
        raise NoProvider("no enrichment provider is set up; EVENTWRIGHT_ENRICHMENT_URL names one") from missing
    async with Providers.of(call.resources).asked(provider.host):
        return await provider.company(domain)
