"""The enrichment provider: what it knows, and every way in which it does not say it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from pydantic import ValidationError
from tests.tools.vendors import Enricher, Trouble, on_http

from eventwright.tools import enrichment
from eventwright.tools.contract import Call, Permanent, Resources, ToolClass
from eventwright.tools.enrichment import BadEnrichmentUrl, Company, Enrichment, NoProvider
from eventwright.tools.http_json import Away

GOOD = {"name": "Initech", "domain": "initech.example.com"}


@pytest.fixture
def provider() -> Enricher:
    return Enricher()


@pytest.fixture
async def client(provider: Enricher) -> AsyncIterator[Enrichment]:
    async with (
        on_http(provider.answer) as port,
        Enrichment.open(f"http://127.0.0.1:{port}/v1", token="enrich-me", seconds=0.3) as client,
    ):
        yield client


async def find(domain: str, *clients: object) -> Company | None:
    call = Call(run_id="run_1", node="enrich", idempotency_key="key", attempt=1, resources=Resources(clients))
    found: Company | None = await enrichment.find_company.perform(
        enrichment.find_company.arguments(domain=domain), call
    )
    return found


@pytest.mark.parametrize("url", ["", "companies.example.com", "ftp://companies.example.com", "https://"])
async def test_an_address_that_is_none_is_refused_before_anybody_is_asked(url: str) -> None:
    with pytest.raises(BadEnrichmentUrl):
        async with Enrichment.open(url):
            pass


@pytest.mark.parametrize(
    "domain", ["", "localhost", "a b.com", "x.com/../y", "x.com?y=1", "-x.com", "x" * 250 + ".com"]
)
async def test_what_is_no_domain_is_not_asked_for(domain: str) -> None:
    with pytest.raises(ValidationError):
        enrichment.find_company.arguments(domain=domain)


async def test_without_a_provider_the_refusal_says_so() -> None:
    with pytest.raises(NoProvider, match="no enrichment provider is set up"):
        await find("initech.example.com")


@pytest.mark.parametrize(
    "trouble",
    [
        Trouble(0),
        Trouble(429),
        Trouble(500),
        Trouble(503),
        Trouble(200, "<html>"),
        Trouble(200, ["a list"]),
        Trouble(200, {}),
        Trouble(200, GOOD | {"employees": "many"}),
        Trouble(200, GOOD | {"employees": -1}),
        Trouble(200, GOOD | {"domain": "somebody-else.example"}),
    ],
    ids=lambda trouble: f"{trouble.status} {str(trouble.body)[:30]}",
)
async def test_an_answer_that_is_none_may_be_asked_for_again(
    provider: Enricher, client: Enrichment, trouble: Trouble
) -> None:
    provider.troubles = [trouble]
    with pytest.raises(Away):
        await find("initech.example.com", client)
    assert await find("initech.example.com", client) is not None


async def test_a_provider_that_names_a_time_is_waited_for(provider: Enricher, client: Enrichment) -> None:
    provider.troubles = [Trouble(429, headers={"retry-after": "12"})]
    with pytest.raises(Away) as refused:
        await find("initech.example.com", client)
    assert refused.value.retry_after == 12.0


async def test_a_bad_key_is_refused_for_good(provider: Enricher) -> None:
    async with on_http(provider.answer) as port, Enrichment.open(f"http://127.0.0.1:{port}/v1", token="old") as client:
        with pytest.raises(Permanent, match="check the token"):
            await find("initech.example.com", client)


async def test_a_company_that_nobody_knows_is_none(client: Enrichment) -> None:
    assert await find("unheard-of.example.com", client) is None


async def test_a_company_comes_with_what_is_known_of_it(client: Enrichment) -> None:
    company = await find("initech.example.com", client)
    assert company == Company(
        name="Initech", domain="initech.example.com", industry="software", employees=250, country="AU"
    )


def test_it_reads_and_its_answer_is_not_trusted() -> None:
    assert enrichment.find_company.name == "enrichment.find_company"
    assert enrichment.find_company.tool_class is ToolClass.READ
    assert not enrichment.find_company.trusted
