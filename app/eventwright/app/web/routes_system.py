"""The service about itself: what is deployed, whether it lives, what it counts, where everything is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from eventwright.app.web.models import Edge, Graph, Health, Index, Node, ToolUse, Trigger, Workflow, WorkflowList
from eventwright.app.web.paging import Eventwright, Id, Name, problems
from eventwright.app.wire.problems import ProblemType
from eventwright.graphs import workflow as declared
from eventwright.guardrails.policy import Policy
from eventwright.runs.errors import StoreUnavailable

router = APIRouter()

METRICS = "text/plain; version=0.0.4; charset=utf-8"
#: Seconds that the database has to answer a probe.
PROBE_SECONDS = 3.0
_GRAPH_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/plain": {"schema": {"type": "string"}, "example": "graph TD;\n    __start__ --> classify;\n"},
        },
        "model": Graph,
    }
}
_METRICS_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/plain": {"schema": {"type": "string"}, "example": 'eventwright_runs{workflow="support"} 3\n'},
        }
    }
}


@router.get("/v1/workflows", tags=["workflows"])
async def list_workflows(app: Eventwright) -> WorkflowList:
    """The workflows that events start here, with their triggers and what each node may do."""
    return WorkflowList(items=[describe_workflow(workflow) for workflow in app.workflows])


@router.get(
    "/v1/workflows/{name}/graph",
    tags=["workflows"],
    response_class=Response,
    responses=_GRAPH_ANSWER | problems(ProblemType.NOT_FOUND),
)
async def show_graph(
    name: Id, app: Eventwright, version: Name = None, format: Literal["mermaid", "json"] = "mermaid"
) -> Response:
    """The workflow's graph, as Mermaid text or as JSON."""
    workflow = app.workflows.get(name, version)
    drawing = app.engine.runner.graph(workflow).get_graph()
    if format == "mermaid":
        return PlainTextResponse(drawing.draw_mermaid())
    edges = [
        Edge(source=edge.source, target=edge.target, conditional=edge.conditional, label=_label(edge.data))
        for edge in drawing.edges
    ]
    return JSONResponse(Graph(nodes=list(drawing.nodes), edges=edges).model_dump())


@router.get("/healthz", tags=["service"], openapi_extra={"security": []})
async def is_alive() -> Health:
    """The process lives. It needs no key."""
    return Health()


@router.get("/readyz", tags=["service"], responses=problems(ProblemType.UNAVAILABLE))
async def is_ready(app: Eventwright) -> Health:
    """The database answers, so events can be taken in."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await app.store.ping()
    except TimeoutError as error:
        raise StoreUnavailable(f"the database did not answer within {PROBE_SECONDS:g} s") from error
    return Health()


@router.get("/metrics", tags=["service"], response_class=PlainTextResponse, responses=_METRICS_ANSWER)
async def metrics(app: Eventwright) -> Response:
    """What the service counts, in Prometheus' text format."""
    runs = {f'workflow="{workflow}",state="{state}"': n for (workflow, state), n in (await app.store.counts()).items()}
    reviews = {f'workflow="{workflow}"': n for workflow, n in (await app.store.open_reviews()).items()}
    committer = app.store.committer
    lines = [
        *_metric("eventwright_runs", "gauge", "Runs by workflow and state.", runs),
        *_metric("eventwright_reviews_open", "gauge", "Reviews that wait for a person.", reviews),
        *_metric(
            "eventwright_commits_total", "counter", "Batches that this process committed.", {"": committer.commits}
        ),
        *_metric("eventwright_writes_total", "counter", "Transactions in those batches.", {"": committer.units}),
    ]
    return Response("\n".join(lines) + "\n", headers={"content-type": METRICS})


@router.get("/", tags=["service"])
async def index(request: Request) -> Index:
    """Where everything is. There is no page to click: /openapi.json can be opened in any OpenAPI viewer."""
    links = {
        "events": "/v1/events",
        "webhooks": "/v1/webhooks/{source}",
        "runs": "/v1/runs",
        "reviews": "/v1/reviews?state=open",
        "workflows": "/v1/workflows",
        "openapi": "/openapi.json",
        "health": "/healthz",
        "readiness": "/readyz",
        "metrics": "/metrics",
    }
    return Index(name=request.app.title, version=request.app.version, links=links)


def _metric(name: str, kind: str, help_text: str, values: Mapping[str, int]) -> Iterable[str]:
    yield f"# HELP {name} {help_text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in sorted(values.items()):
        yield f"{name}{{{labels}}} {value}" if labels else f"{name} {value}"


def describe_workflow(workflow: declared.Workflow) -> Workflow:
    """What is deployed, as the API tells it."""
    return Workflow(
        name=workflow.name,
        version=workflow.version,
        description=workflow.description,
        lane=workflow.lane,
        triggers=[
            Trigger(type=trigger.type, source=trigger.source, versions=list(trigger.payload))
            for trigger in workflow.triggers
        ],
        nodes=[_node(name, workflow.policy(name)) for name in workflow.graph.nodes],
    )


def _node(name: str, policy: Policy) -> Node:
    rules = {tool: policy.rule_for(tool) for tool in policy.tools}
    tools = [
        ToolUse.model_validate({"name": tool.name, "class": str(tool.tool_class), "approval": rule and rule.name})
        for tool, rule in rules.items()
    ]
    return Node(
        name=name,
        tools=tools,
        min_confidence=policy.min_confidence,
        retries=policy.most_retries,
        timeout=policy.timeout,
        fallback=policy.fallback is not None,
    )


def _label(data: Any) -> str | None:
    return None if data is None else str(data)
