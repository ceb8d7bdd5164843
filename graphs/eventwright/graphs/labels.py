"""Labels in a graph: which channels a node reads and writes, and so which of them hold untrusted data.

A channel is written by what a node returns, and by what it changes in the values that it was given. What is sent to a
task, or told in an error, passes by the channels of the graph; LangGraph's names for those two ways bear a label too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from langgraph.types import Command, Send
from pydantic_core import to_json

from eventwright.guardrails.policy import Policy
from eventwright.guardrails.segment import Segment
from eventwright.runs.checkpoints import ERROR, TASKS

#: The only channel of a graph whose state is one value without names.
ROOT = "__root__"


@dataclass(frozen=True)
class Flow:
    """What a node can read and write.

    Attributes:
        reads: the channels that its input is made of.
        channels: all channels of the graph.
        may_taint: whether its policy lets it read anything untrusted by itself.
    """

    reads: frozenset[str]
    channels: frozenset[str]
    may_taint: bool

    @classmethod
    def of(cls, graph: Any, spec: Any, policy: Policy) -> Flow:
        """That of a node of this graph."""
        reads = frozenset(graph.schemas.get(spec.input_schema, graph.channels))
        tools = any(not (tool.trusted or tool.advises) for tool in policy.tools)
        return cls(reads | {ERROR} if spec.is_error_handler else reads, frozenset(graph.channels), tools)

    @classmethod
    def of_handler(cls, graph: Any) -> Flow:
        """That of the handler of errors of all nodes of this graph."""
        channels = frozenset(graph.channels)
        return cls(channels | {ERROR}, channels, may_taint=False)

    def kept(self, given: Any, segment: Segment) -> dict[str, bytes | None]:
        """How the values look that a node is given and could change, as far as they hold nothing untrusted yet."""
        if not (self.may_taint or segment.labels):
            return {}
        parts = given if isinstance(given, Mapping) else getattr(given, "__dict__", {ROOT: given})
        return {
            name: _image(value)
            for name, value in parts.items()
            if name not in segment.labels and not isinstance(value, str | int | float | None)
        }

    def changed(self, given: Any, kept: Mapping[str, bytes | None]) -> frozenset[str]:
        """What was written without being returned: if a value looks different now, or cannot be looked at, that may be
        anything, since other channels may hold the same object."""
        parts = given if isinstance(given, Mapping) else getattr(given, "__dict__", {ROOT: given})
        same = all(image is not None and _image(parts.get(name)) == image for name, image in kept.items())
        return frozenset() if same else self.channels

    def written(self, result: Any) -> frozenset[str]:
        """The channels that a node's result writes; all of them, where that is not plain to see."""
        return written(result, self.channels)


def written(result: Any, channels: frozenset[str]) -> frozenset[str]:
    """The channels of a graph that an input or a result writes; all of them, where that is not plain to see."""
    names: set[str] = set()
    for part in result if isinstance(result, list | tuple) else [result]:
        update = part
        if isinstance(part, Command):
            update = part.update
            if any(isinstance(way, Send) for way in _ways(part.goto)):
                names.add(TASKS)
        if update is not None and (not isinstance(update, dict) or ROOT in channels):
            names |= channels
        elif update is not None:
            names |= channels & update.keys()
    return frozenset(names)


def _ways(goto: Any) -> Iterator[Any]:
    yield from goto if isinstance(goto, list | tuple) else [goto]


def _image(value: Any) -> bytes | None:
    """The value as JSON; None if it is something else."""
    try:
        return to_json(value, inf_nan_mode="constants", bytes_mode="base64")
    except ValueError:
        return None
