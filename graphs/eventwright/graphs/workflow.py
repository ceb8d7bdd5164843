"""Declarations: a workflow is a name, a version, an ordinary StateGraph, its triggers and a policy per node."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, cast

from langchain_core.runnables import Runnable
from langgraph.graph import StateGraph
from langgraph.pregel._utils import validate_timeout_supported
from pydantic import BaseModel, ValidationError

from eventwright.graphs.exceptions import Exceptions
from eventwright.graphs.fingerprint import Structure, fingerprint_of, structure_of
from eventwright.graphs.flow import BadFlow, Flow
from eventwright.graphs.forms import BadForm, Form
from eventwright.graphs.serial import SerialKey, called
from eventwright.guardrails.budgets import Budget
from eventwright.guardrails.policy import Policy
from eventwright.guardrails.redaction import Redaction
from eventwright.guardrails.text import clean_value
from eventwright.runs.errors import MOST_FAULTS, EventwrightError
from eventwright.runs.event import Event
from eventwright.tools.contract import Tool

PayloadModel = type[BaseModel]
#: Opens the clients of a workflow's tools, and closes them: a function under `@asynccontextmanager` that yields a list.
Lifespan = Callable[[], AbstractAsyncContextManager[Iterable[object]]]

NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
#: How the source of a schedule's events begins; its workflow and its name follow.
SCHEDULES = "/schedules/"


class BadWorkflow(EventwrightError, ValueError):
    """A workflow's declaration contradicts itself or its graph."""


class UnknownPayloadVersion(EventwrightError, ValueError):
    """An event carries a payload version that its trigger has no model for."""

    def __init__(self, event_type: str, version: str, known: Iterable[str]) -> None:
        self.event_type, self.version, self.known = event_type, version, tuple(known)
        super().__init__(
            f"payload version {version!r} of {event_type!r} is not known; known: {', '.join(self.known)}. "
            "Add a model to On(payload={...}) and replay the event"
        )


class InvalidPayload(EventwrightError, ValueError):
    """An event's payload does not fit the model of its version, or the model's own code failed at it."""

    def __init__(self, event_type: str, error: Exception) -> None:
        self.event_type = event_type
        if not isinstance(error, ValidationError):
            # Its words may say more of us than whoever sent the event should read.
            self.faults = [{"at": "", "problem": f"a validator of its model raised {type(error).__name__}"}]
            super().__init__(f"the payload of {event_type!r} is not valid: {self.faults[0]['problem']}")
            return
        #: One entry a fault, of many the first: `{"at": "customer.email", "problem": "Field required"}`.
        self.faults = [
            {"at": ".".join(map(str, item["loc"])), "problem": item["msg"].removeprefix("Value error, ")}
            for item in error.errors(include_url=False, include_input=False)[:MOST_FAULTS]
        ]
        first = self.faults[0]
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        where = f"{first['at']}: " if first["at"] else ""
        super().__init__(f"the payload of {event_type!r} is not valid: {where}{first['problem']}{more}")


class UnknownWorkflow(EventwrightError, LookupError):
    """No workflow of this name and version is loaded; `loaded` are the versions of it that are, `others` the names of
    those that are loaded instead."""

    def __init__(
        self, name: str, version: str | None = None, loaded: Iterable[str] = (), others: Iterable[str] = ()
    ) -> None:
        self.name, self.version, self.loaded, self.others = name, version, tuple(loaded), tuple(others)
        label = name if version is None else f"{name} version {version}"
        there = f"version {', '.join(self.loaded)}" if self.loaded else ", ".join(self.others)
        instead = f" (loaded: {there})" if there else ""
        super().__init__(f"no workflow {label} is loaded{instead}; EVENTWRIGHT_WORKFLOWS names the modules to load")


@dataclass(frozen=True)
class On:
    """Which events start the workflow.

    Args:
        type: the event's type, exactly.
        payload: a pydantic model per payload version; without any, every payload is taken as it is.
        input: makes the graph's input from the validated payload and the event; by default the payload as JSON.
        source: only events of this source.
        only_if: only events of which this is true; it gets the event without hidden characters, before its payload is
            looked at. What it raises refuses the event.
        trusted: who sends these events is ourselves; by default what an event carries is untrusted, and may choose no
            destination and no amount without a rule or a person.
        requester: who asked for what the event starts, as far as it says so, beside the one who sent it.
        key: runs of the workflow with the same key go one after the other, in the order in which their events came in:
            a field of the payload, or a function of the event that returns the key, None for no order.
        form: a page on which people fill the payload in, at `/forms/WORKFLOW/TYPE`.
        flow: when the runs begin, and which of them make others needless.
        lane: the queue that its runs begin in, for those that are more urgent than others; by default the workflow's.
    """

    type: str
    payload: Mapping[str, PayloadModel] = field(default_factory=dict)
    input: Callable[[Any, Event], dict[str, Any]] | None = None
    source: str | None = None
    trusted: bool = False
    requester: Callable[[Event], str | None] | None = None
    key: SerialKey | None = None
    form: Form | None = field(default=None, kw_only=True)
    only_if: Callable[[Event], bool] | None = field(default=None, kw_only=True)
    flow: Flow | None = field(default=None, kw_only=True)
    lane: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        self._check_key(self.key)
        if self.lane is not None and not NAME.fullmatch(self.lane):
            raise BadWorkflow(f"a lane's name is lower case letters, digits, - and _: {self.lane!r} is not")
        try:
            if self.form is not None:
                self.form.inputs(self.payload)
            if self.flow is not None:
                self._check_key(self.flow.key_with(self.key))
        except (BadForm, BadFlow) as error:
            of = "form" if isinstance(error, BadForm) else "flow"
            raise BadWorkflow(f"{type(self).__name__}({self.type!r}, {of}=...): {error}") from error

    def _check_key(self, key: SerialKey | None) -> None:
        field = key.partition(".")[0] if isinstance(key, str) else None
        for version, model in self.payload.items() if field is not None else ():
            if field not in model.model_fields and model.model_config.get("extra") != "allow":
                raise BadWorkflow(
                    f"{type(self).__name__}({self.type!r}, key={key!r}): the payload of version {version!r} has "
                    f"no field {field!r}; its fields are: {', '.join(model.model_fields)}"
                )

    def bound(self, workflow: str) -> On:
        """This trigger as one of the workflow of that name."""
        return self

    def matches(self, event: Event) -> bool:
        """Whether this trigger is meant for the event at all.

        Raises:
            BadKey: its `only_if` failed; the event is refused, and kept.
        """
        if event.type != self.type or self.source not in (None, event.source):
            return False
        return self.only_if is None or bool(called(self.only_if, event))

    def parse(self, event: Event) -> Any:
        """The payload without hidden characters, validated by the model of its version.

        Raises:
            UnknownPayloadVersion, InvalidPayload: the event is refused, and kept.
        """
        data = clean_value(event.data)
        if not self.payload:
            return data
        try:
            model = self.payload[event.version]
        except KeyError:
            raise UnknownPayloadVersion(event.type, event.version, self.payload) from None
        try:
            return model.model_validate(data)
        except Exception as error:
            # Also what pydantic lets through: an IndexError of a validator at a payload that its author never saw.
            raise InvalidPayload(event.type, error) from error

    def graph_input(self, event: Event) -> dict[str, Any]:
        """What the graph starts with: nothing in it is hidden. The event itself stays as it came."""
        payload = self.parse(event)
        if self.input is not None:
            visible = dataclasses.replace(event, data=clean_value(event.data), subject=clean_value(event.subject))
            return self.input(payload, visible)
        if isinstance(payload, BaseModel):
            return payload.model_dump(mode="json")
        return payload if isinstance(payload, dict) else {"payload": payload}


@dataclass(frozen=True, eq=False)
class Workflow:
    """An ordinary LangGraph graph, with what it needs to be left alone with.

    Args:
        name: lower case, stands in URLs.
        version: a run keeps the version it began with.
        graph: the StateGraph, not compiled; it is never changed and never compiled itself.
        triggers: which events start it.
        policies: what each node may do, by node name; a node without one may call no tool.
        description: one line for people.
        lane: the queue its runs go to; a node may name another one in its policy.
        recursion_limit: how many supersteps one segment may take.
        budgets: how much the calls of all its nodes together may use.
        redaction: what is taken out of texts before a model reads them, before they are journalled, before they leave.
        must_approve: tools of which `eventwright check` proves that no call is made without an approval.
        lifespan: opens the clients of its tools in every process that runs it, and closes them when that ends.
        exceptions: what it does when something is not as it should be, in a sentence for each kind.

    Raises:
        BadWorkflow: a policy for a node that is not there, a timeout on a synchronous node, ...
    """

    name: str
    version: str = field(kw_only=True)
    graph: StateGraph[Any, Any, Any, Any] = field(kw_only=True)
    triggers: Sequence[On] = field(kw_only=True)
    policies: Mapping[str, Policy] = field(default_factory=dict, kw_only=True)
    description: str = field(default="", kw_only=True)
    lane: str = field(default="default", kw_only=True)
    recursion_limit: int = field(default=100, kw_only=True)
    budgets: Sequence[Budget] = field(default=(), kw_only=True)
    redaction: Redaction = field(default_factory=Redaction, kw_only=True)
    must_approve: Sequence[Tool] = field(default=(), kw_only=True)
    lifespan: Lifespan | None = field(default=None, kw_only=True)
    exceptions: Exceptions | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name) or not NAME.fullmatch(self.lane):
            raise BadWorkflow(
                f"a name is lower case letters, digits, - and _: {self.name!r} in lane {self.lane!r} is not"
            )
        if not isinstance(self.graph, StateGraph):
            raise BadWorkflow(f"workflow {self.name!r} takes the StateGraph itself, not {type(self.graph).__name__}")
        strangers = [tool for tool in self.must_approve if not isinstance(tool, Tool)]
        if strangers:
            raise BadWorkflow(f"must_approve takes tools made by @tool, not {strangers[0]!r}")
        if self.lifespan is not None and (inspect.isasyncgenfunction(self.lifespan) or not callable(self.lifespan)):
            raise BadWorkflow(
                f"lifespan takes an async generator function under @asynccontextmanager, not {self.lifespan!r}"
            )
        self._bind_triggers()
        for node, policy in self.policies.items():
            if node not in self.graph.nodes:
                known = ", ".join(sorted(self.graph.nodes))
                raise BadWorkflow(f"workflow {self.name!r} has a policy for {node!r}; its nodes are: {known}")
            if policy.lane is not None and not NAME.fullmatch(policy.lane):
                raise BadWorkflow(
                    f"a lane's name is lower case letters, digits, - and _: {policy.lane!r} of node {node!r} is not"
                )
            if policy.timeout is not None:
                self._check_timeout(node)

    def _bind_triggers(self) -> None:
        bound = [trigger.bound(self.name) for trigger in self.triggers]
        schedules = [trigger.source for trigger in bound if (trigger.source or "").startswith(SCHEDULES)]
        twice = next((source for source in schedules if schedules.count(source) > 1), None)
        if twice is not None:
            raise BadWorkflow(f"workflow {self.name!r} has two schedules with the source {twice!r}; give one a name=")
        object.__setattr__(self, "triggers", bound)

    def _check_timeout(self, node: str) -> None:
        try:
            validate_timeout_supported(cast(Runnable[Any, Any], self.graph.nodes[node].runnable), name=node)
        except ValueError as error:
            raise BadWorkflow(
                f"node {node!r} is synchronous and cannot have a timeout: Python cannot stop a thread, so the node "
                "would go on writing after it. Make it `async def`, or leave the timeout out"
            ) from error

    def __repr__(self) -> str:
        return f"<Workflow {self.name} version {self.version}>"

    def policy(self, node: str) -> Policy:
        """The node's policy; without one it may do nothing."""
        return self.policies.get(node, _NOTHING)

    @functools.cached_property
    def lanes(self) -> tuple[str, ...]:
        """The lanes that its runs come through: its own first, then those of its nodes and of its triggers."""
        named = [*(self.policy(node).lane for node in self.graph.nodes), *(one.lane for one in self.triggers)]
        return tuple(dict.fromkeys((self.lane, *filter(None, named))))

    def lane_of(self, node: str) -> str | None:
        """The lane whose workers run the node. None for any: if no node names one, or the node is one of LangGraph's
        own, which handles the errors of another."""
        if all(self.policy(other).lane in (None, self.lane) for other in self.graph.nodes):
            return None
        return self.policy(node).lane or (None if node.startswith("__") else self.lane)

    @functools.cached_property
    def structure(self) -> Structure:
        """What its graph is, as JSON that another one can be compared with; not to be changed."""
        return structure_of(self.graph)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the graph's structure: a run keeps that of the graph it runs in."""
        return fingerprint_of(self.structure)

    def trusted_tools(self) -> frozenset[str]:
        """The names of its tools that return records of our own; none that another tool bears too."""
        tools = [tool for policy in self.policies.values() for tool in policy.tools]
        return frozenset(tool.name for tool in tools if tool.trusted) - {one.name for one in tools if not one.trusted}

    def trigger(self, event: Event) -> On | None:
        """The first trigger that is meant for this event."""
        return next((trigger for trigger in self.triggers if trigger.matches(event)), None)

    def with_policy(self, node: str, **changes: Any) -> Workflow:
        """A copy in which this node's policy has other fields."""
        policy = dataclasses.replace(self.policy(node), **changes)
        return dataclasses.replace(self, policies={**self.policies, node: policy})

    def map_policies(self, change: Callable[[Policy], Policy]) -> Workflow:
        """A copy in which every policy went through `change`: shorter waits for a demonstration, say."""
        return dataclasses.replace(self, policies={node: change(policy) for node, policy in self.policies.items()})


_NOTHING = Policy()


class Workflows:
    """The workflows of this process, by name and version; both together are unique.

    Raises:
        BadWorkflow: two workflows share name and version.
    """

    def __init__(self, workflows: Iterable[Workflow] = ()) -> None:
        self._versions: dict[str, dict[str, Workflow]] = {}
        self._own: dict[str, dict[str, Workflow]] = {}
        for workflow in workflows:
            versions = self._versions.setdefault(workflow.name, {})
            if versions.setdefault(workflow.version, workflow) is not workflow:
                raise BadWorkflow(f"workflow {workflow.name!r} version {workflow.version!r} is declared twice")

    def __iter__(self) -> Any:
        """The workflows that new events start: of each name the version declared last."""
        return iter([list(versions.values())[-1] for versions in self._versions.values()])

    def with_own(self, own: Iterable[Workflow]) -> Workflows:
        """A copy that also runs these workflows of Eventwright's own, which no event from outside starts.

        Raises:
            BadWorkflow: a workflow has the name of one of them.
        """
        own = list(own)
        taken = sorted({workflow.name for workflow in own} & self._versions.keys())
        if taken:
            raise BadWorkflow(f"{taken[0]!r} is the name of a workflow of Eventwright's own; choose another one")
        copy = Workflows(self.versions())
        copy._own = {workflow.name: {workflow.version: workflow} for workflow in own}
        return copy

    def versions(self) -> Iterator[Workflow]:
        """Every workflow in every version, but those of Eventwright's own."""
        return (workflow for versions in self._versions.values() for workflow in versions.values())

    def is_newest(self, workflow: Workflow) -> bool:
        """Whether new events start this version: of each name the one declared last."""
        return self.get(workflow.name) is workflow

    def get(self, name: str, version: str | None = None) -> Workflow:
        """The workflow; without a version the one that new events start. Raises UnknownWorkflow."""
        versions = self._versions.get(name) or self._own.get(name, {})
        if version is None and versions:
            return list(versions.values())[-1]
        if version is None or version not in versions:
            raise UnknownWorkflow(name, version, versions, self._versions)
        return versions[version]
