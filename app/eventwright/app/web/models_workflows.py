"""The workflows that are deployed, over the wire: their triggers, what their nodes may do, their graphs."""

from __future__ import annotations

from datetime import datetime

from pydantic import ConfigDict, Field

from eventwright.app.web import examples
from eventwright.app.web.models import Answer, example
from eventwright.graphs.schedules import Missed


class Trigger(Answer):
    """Which events start the workflow, or go on with its runs; without versions every payload is taken."""

    type: str
    source: str | None
    versions: list[str]
    key: str | None = Field(
        None, description="the field or function by which its runs go one after the other, or by which they are found"
    )
    flow: str | None = Field(None, description="when its runs begin, in words, where not at once")
    continues: bool = Field(False, description="whether its events go on with runs that wait for them, and start none")


class Schedule(Answer):
    """A trigger by the clock."""

    workflow: str
    name: str
    type: str = Field(description="of the events that it makes")
    source: str = Field(description="of the events that it makes; their ids are the ticks")
    cron: str
    words: str = Field(description="the cron line in English")
    zone: str
    missed: Missed = Field(description="what becomes of ticks that came due while no worker was there")
    last: datetime | None = Field(description="the newest tick that has fired")
    runs: list[str] = Field(description="the runs that it started")
    next: datetime | None = Field(description="the next tick")


class ScheduleList(Answer):
    """The schedules of the workflows that are deployed, the next first."""

    model_config = ConfigDict(json_schema_extra=example(examples.SCHEDULES))

    items: list[Schedule]


class ToolUse(Answer):
    """A tool that a node may call, and the rule by which a person must approve the call."""

    name: str
    tool_class: str = Field(alias="class")
    approval: str | None


class Node(Answer):
    """A node and what its policy allows."""

    name: str
    tools: list[ToolUse]
    min_confidence: float | None
    retries: int = Field(description="after a failure, at most; some errors may get fewer")
    timeout: float | None = Field(description="seconds")
    fallback: bool = Field(description="whether prepared content stands in for the model")
    lane: str = Field(description="whose workers run it")


class Workflow(Answer):
    """A workflow in one of its versions."""

    name: str
    version: str
    newest: bool = Field(description="whether new events start this version; the others go on with their runs")
    fingerprint: str = Field(description="of its graph; a run keeps that of the graph it runs in")
    description: str
    lane: str
    triggers: list[Trigger]
    nodes: list[Node]


class WorkflowList(Answer):
    """The workflows that are deployed, each in every version, in the order in which they are declared."""

    model_config = ConfigDict(json_schema_extra=example(examples.WORKFLOWS))

    items: list[Workflow]


class Edge(Answer):
    """A way from node to node."""

    source: str
    target: str
    conditional: bool
    label: str | None


class Graph(Answer):
    """A workflow's graph."""

    model_config = ConfigDict(json_schema_extra=example(examples.GRAPH))

    nodes: list[str]
    edges: list[Edge]
