"""The service about itself: what is deployed, whether it is ready, what it counts, how it describes itself."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from pydantic import BaseModel

from eventwright.app.composition import App
from eventwright.app.web import models
from eventwright.app.web.api import create_api
from eventwright.runs.states import RunState

Paused = Callable[..., Awaitable[tuple[str, str]]]
Opened = Callable[..., AbstractAsyncContextManager[App]]
METHODS = ("get", "post", "put", "patch", "delete")


async def test_a_workflow_that_is_not_deployed_is_a_404(client: httpx.AsyncClient):
    for path in ("/v1/workflows/nothing/graph", "/v1/workflows/refunds/graph?version=9", "/v1/workflows/%00/graph"):
        response = await client.get(path)
        assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")


async def test_a_graph_in_another_format_is_a_400(client: httpx.AsyncClient):
    assert (await client.get("/v1/workflows/refunds/graph?format=png")).status_code == 400


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/v1/runs/", "/v1"])
async def test_an_address_that_is_not_there_is_a_problem_that_names_the_index(client: httpx.AsyncClient, path: str):
    response = await client.get(path)
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
    assert "GET /" in response.json()["detail"]


async def test_a_method_that_an_address_does_not_know_is_a_405_that_names_those_it_knows(client: httpx.AsyncClient):
    response = await client.delete("/v1/workflows")
    assert (response.status_code, response.headers["content-type"]) == (405, "application/problem+json")
    assert response.headers["allow"] == "GET"


async def test_a_service_without_its_database_lives_and_is_not_ready(
    opened: Opened, client_of: Any, postgres_server: Any, migrated_postgres: str
):
    with postgres_server.database(migrated_postgres) as url:
        async with opened(database_url=url) as app, client_of(app) as client:
            assert (await client.get("/readyz")).status_code == 200
            name = urlsplit(url).path.strip("/")
            await asyncio.to_thread(postgres_server.execute, f"DROP DATABASE {name} WITH (FORCE)")
            assert (await client.get("/healthz")).status_code == 200
            response = await client.get("/readyz")
            assert (response.status_code, response.headers["content-type"]) == (503, "application/problem+json")
            assert name not in response.text
            await asyncio.to_thread(postgres_server.execute, f"CREATE DATABASE {name}")


async def test_what_is_deployed_can_be_read(client: httpx.AsyncClient):
    refunds, _ = (await client.get("/v1/workflows")).json()["items"]
    assert (refunds["name"], refunds["version"], refunds["description"]) == ("refunds", "1", "Pays money back")
    (trigger,) = refunds["triggers"]
    says = {"key": None, "flow": None, "continues": False}
    assert trigger == {"type": "refund.wanted", "source": None, "versions": ["1"]} | says
    (node,) = refunds["nodes"]
    assert node["lane"] == "default"
    assert node["tools"] == [{"name": "bank.pay", "class": "keyed", "approval": "amount above 50"}]


async def test_a_graph_is_mermaid_or_json(client: httpx.AsyncClient):
    drawn = await client.get("/v1/workflows/refunds/graph")
    assert drawn.headers["content-type"] == "text/plain; charset=utf-8"
    assert re.search(r"__start__.*-->.*refund", drawn.text)
    graph = (await client.get("/v1/workflows/refunds/graph?format=json")).json()
    assert graph["nodes"] == ["__start__", "refund", "__end__"]
    assert [(edge["source"], edge["target"]) for edge in graph["edges"]] == [
        ("__start__", "refund"),
        ("refund", "__end__"),
    ]


async def test_the_metrics_count_runs_and_those_who_wait(client: httpx.AsyncClient, paused: Paused):
    await paused(client, "1")
    await paused(client, "2")
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'eventwright_runs{state="pending_approval",workflow="refunds"} 2.0\n' in response.text
    assert 'eventwright_reviews_open{workflow="refunds"} 2.0\n' in response.text
    assert re.search(r"^eventwright_commits_total [1-9]", response.text, re.MULTILINE)


# -- the document ------------------------------------------------------------------------------------------------------


@pytest.fixture
def document(app: App) -> dict[str, Any]:
    return create_api(app).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield f"{method} {path}", item[method]


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        part = list(part.values())
    if isinstance(part, list):
        for inner in part:
            yield from references(inner)


def has_example(document: dict[str, Any], content: dict[str, Any]) -> bool:
    schema = content.get("schema", {})
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return "example" in content or "examples" in schema


def test_the_index_names_addresses_that_are_there(app: App, document: dict[str, Any]):
    assert {"/", "/healthz", "/readyz", "/metrics"} <= document["paths"].keys()


async def test_the_index_links_to_what_answers(client: httpx.AsyncClient):
    links = (await client.get("/")).json()["links"]
    for path in links.values():
        if "{" not in path:
            assert (await client.get(path)).status_code == 200, path


def test_every_reference_of_the_document_leads_somewhere(document: dict[str, Any]):
    names = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(references(document)) <= names


def test_every_operation_says_what_it_does_under_a_name_of_its_own(document: dict[str, Any]):
    found = dict(operations(document))
    assert len({operation["operationId"] for operation in found.values()}) == len(found)
    tags = {tag["name"] for tag in document["tags"]}
    for name, operation in found.items():
        assert operation["summary"], name
        assert operation["description"], name
        assert set(operation["tags"]) <= tags, name


def test_every_body_and_every_answer_has_an_example(document: dict[str, Any]):
    for name, operation in operations(document):
        contents = dict(operation.get("requestBody", {}).get("content", {}))
        for status, response in operation["responses"].items():
            contents |= {f"{status} {media}": content for media, content in response.get("content", {}).items()}
        assert contents, name
        for media, content in contents.items():
            assert has_example(document, content), f"{name}: {media}"


def test_every_error_is_documented_as_a_problem(document: dict[str, Any]):
    for name, operation in operations(document):
        for status, response in operation["responses"].items():
            if not status.startswith("2"):
                assert list(response["content"]) == ["application/problem+json"], f"{name}: {status}"
    assert "HTTPValidationError" not in json.dumps(document)


def test_every_member_of_a_closed_set_has_its_sentence(document: dict[str, Any]):
    description = document["components"]["schemas"]["RunState"]["description"]
    assert all(f"`{state}`: {state.meaning}" in description for state in RunState)


def test_every_example_is_what_its_model_takes():
    classes = [model for model in vars(models).values() if isinstance(model, type) and issubclass(model, BaseModel)]
    shown = [
        (model, example)
        for model in classes
        for example in (model.model_config.get("json_schema_extra") or {}).get("examples", [])  # type: ignore[union-attr]
    ]
    assert len(shown) > 10
    for model, example in shown:
        read = model.model_validate(example)
        if issubclass(model, models.Answer):
            assert read.model_dump(mode="json", by_alias=True) == example
