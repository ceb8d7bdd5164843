"""The service about itself: what is deployed, whether it lives, what it counts, where everything is."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from eventwright.app.web.document import operation_id
from eventwright.app.web.metrics_server import METRICS
from eventwright.app.web.models import Health, Index
from eventwright.app.web.models_workflows import (
    Edge,
    Graph,
    Node,
    Schedule,
    ScheduleList,
    ToolUse,
    Trigger,
    Workflow,
    WorkflowList,
)
from eventwright.app.web.paging import Eventwright, Id, Name, problems
from eventwright.app.wire.problems import ProblemType
from eventwright.graphs import workflow as declared
from eventwright.graphs.schedules import Missed, schedules_of
from eventwright.graphs.serial import key_words
from eventwright.graphs.waiting import Continues
from eventwright.guardrails.policy import Policy
from eventwright.runs.errors import StoreUnavailable
from eventwright.runs.schedules import last_firings

router = APIRouter(generate_unique_id_function=operation_id)

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
            "text/plain": {
                "schema": {"type": "string"},
                "example": 'eventwright_runs{state="completed",workflow="support"} 3.0\n',
            },
        }
    }
}


@router.get("/v1/workflows", tags=["workflows"])
async def list_workflows(app: Eventwright) -> WorkflowList:
    """The workflows in every version that is deployed, with their triggers and what each node may do."""
    found = app.workflows
    items = [describe_workflow(workflow, newest=found.is_newest(workflow)) for workflow in found.versions()]
    return WorkflowList(items=items)


@router.get("/v1/schedules", tags=["workflows"])
async def list_schedules(app: Eventwright) -> ScheduleList:
    """The schedules of the workflows that new events start: when each fired last, and when it will."""
    now = await app.store.now()
    found = [(workflow.name, every) for workflow in app.workflows for every in schedules_of(workflow)]
    last = await last_firings(app.store, [str(every.source) for _, every in found])
    items = []
    for name, every in found:
        source, cron = str(every.source), every.when()
        event = await app.store.accepted_event(source, last[source]) if source in last else None
        items.append(
            Schedule(
                workflow=name,
                name=every.name,
                type=every.type,
                source=source,
                cron=every.cron,
                words=cron.words(),
                zone=every.zone,
                missed=Missed(every.missed),
                last=event.event.time if event else None,
                runs=list(event.run_ids) if event else [],
                next=cron.next_after(now),
            )
        )
    return ScheduleList(items=sorted(items, key=lambda item: (item.next is None, item.next or now, item.source)))


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
    """What the service counts, in Prometheus' text format: what this process did, and what the database holds (of a few
    seconds ago). It needs the key where the API does."""
    return Response(await app.exposition.all(), headers={"content-type": METRICS})


@router.get("/", tags=["service"])
async def index(request: Request, app: Eventwright) -> Index:
    """Where everything is. /openapi.json can be opened in any OpenAPI viewer."""
    links = {"inbox": "/inbox"} if app.settings.inbox else {}
    links |= {
        "events": "/v1/events",
        "webhooks": "/v1/webhooks/{source}",
        "runs": "/v1/runs",
        "reviews": "/v1/reviews?state=open",
        "workflows": "/v1/workflows",
        "schedules": "/v1/schedules",
        "openapi": "/openapi.json",
        "health": "/healthz",
        "readiness": "/readyz",
        "metrics": "/metrics",
    }
    return Index(name=request.app.title, version=request.app.version, links=links)


def describe_workflow(workflow: declared.Workflow, *, newest: bool) -> Workflow:
    """What is deployed, as the API tells it."""
    return Workflow(
        name=workflow.name,
        version=workflow.version,
        newest=newest,
        fingerprint=workflow.fingerprint,
        description=workflow.description,
        lane=workflow.lane,
        triggers=[
            Trigger(
                type=trigger.type,
                source=trigger.source,
                versions=list(trigger.payload),
                key=None if trigger.key is None else key_words(trigger.key),
                flow=None if trigger.flow is None else trigger.flow.words(trigger.key),
                continues=isinstance(trigger, Continues),
            )
            for trigger in workflow.triggers
        ],
        nodes=[_node(name, workflow.policy(name), workflow.lane) for name in workflow.graph.nodes],
    )


def _node(name: str, policy: Policy, lane: str) -> Node:
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
        lane=policy.lane or lane,
    )


def _label(data: Any) -> str | None:
    return None if data is None else str(data)
