"""A run's newest checkpoint as one of another graph: nodes under their new names, the state mapped.

What the tasks of its unfinished superstep have written is not taken along: they run again, in the new graph. What they
did stands in the ledger, what people answered stands in the reviews, and both are given back to them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, cast

from langgraph._internal._constants import INTERRUPT, RESUME
from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.types import _interrupt_id

from eventwright.graphs.fingerprint import Structure
from eventwright.graphs.fitting import is_field, stand_of
from eventwright.graphs.head import LABELS
from eventwright.graphs.mapping import State, StateMapping
from eventwright.graphs.workflow import Workflow
from eventwright.runs.checkpoints import with_renamed_nodes

#: A checkpoint with everything around it, as LangGraph reads it.
Saved = CheckpointTuple

_AS_IT_IS = StateMapping()


def step_of(saved: CheckpointTuple) -> int:
    """The number of the superstep that is not finished."""
    return saved.metadata.get("step", -1) + 1


def state_of(saved: CheckpointTuple) -> State:
    """The fields of the state that a checkpoint holds."""
    return {name: value for name, value in saved.checkpoint["channel_values"].items() if is_field(name)}


def moved(
    saved: CheckpointTuple,
    workflow: Workflow,
    began: Structure | None,
    names: Mapping[str, str],
    mapping: StateMapping | None,
) -> CheckpointTuple:
    """The checkpoint as the workflow's graph takes it up.

    Args:
        began: the graph that it is of; None if that is not known.
        names: of nodes, old to new.

    Raises:
        BadMapping: the mapping does not fit the state, or the graph.
    """
    mapping, state = mapping or _AS_IT_IS, state_of(saved)
    known = began["fields"].keys() if began is not None else state.keys()
    new = mapping.applied(state, workflow, known)
    metadata: dict[str, Any] = dict(saved.metadata)
    if metadata.get(LABELS) is not None:
        metadata[LABELS] = mapping.labels(metadata[LABELS], new)
    checkpoint = _with_state(with_renamed_nodes(saved.checkpoint, names), state, new)
    return saved._replace(checkpoint=checkpoint, metadata=cast(CheckpointMetadata, metadata), pending_writes=[])


def _with_state(checkpoint: Checkpoint, before: State, after: State) -> Checkpoint:
    """The checkpoint with another state. Its fields' versions only tell LangGraph that they have been written."""
    changed = copy.copy(checkpoint)
    gone = before.keys() - after.keys()
    versions = checkpoint["channel_versions"]
    newest: Any = max(versions.values(), default=1)
    changed["channel_values"] = {
        **{name: value for name, value in checkpoint["channel_values"].items() if name not in gone},
        **after,
    }
    changed["channel_versions"] = {
        **dict.fromkeys(after, newest),
        **{name: version for name, version in versions.items() if name not in gone},
    }
    updated = checkpoint.get("updated_channels")
    if updated is not None:
        changed["updated_channels"] = [name for name in updated if name not in gone]
    return changed


def unfinished_questions(saved: CheckpointTuple, structure: Structure) -> set[str]:
    """LangGraph's ids of what authors ask, and have been answered, in the superstep that is not finished.

    Those that stand are saved with their ids. Of those that were answered the answers are saved, and their ids follow
    from where they were asked.
    """
    writes, standing = saved.pending_writes or (), stand_of(saved, structure).standing
    asked = {item.id for _, channel, items in writes if channel == INTERRUPT for item in _many(items)}
    for task_id, channel, answers in writes:
        if channel == RESUME:
            count = len(answers) if isinstance(answers, list) else 1
            asked |= {_interrupt_id(f"{node}:{task_id}", number) for node in standing for number in range(count)}
    return asked


def _many(items: Any) -> Iterator[Any]:
    yield from items if isinstance(items, list | tuple) else (items,)


def renamed(structure: Structure, names: Mapping[str, str]) -> Structure:
    """A graph's structure as if its nodes had always had other names."""

    def name(node: str) -> str:
        return names.get(node, node)

    def node(told: Mapping[str, Any]) -> dict[str, Any]:
        changed = dict(told)
        for part in ("to", "commands"):
            if part in told:
                changed[part] = sorted(map(name, told[part]))
        if "routers" in told:
            changed["routers"] = {
                router: ends and {_answer(answer, ends, names): name(target) for answer, target in ends.items()}
                for router, ends in told["routers"].items()
            }
        return changed

    return {
        **structure,
        "nodes": {name(known): node(told) for known, told in structure["nodes"].items()},
        "joins": sorted([list(map(name, starts)), name(end)] for starts, end in structure["joins"]),
    }


def _answer(answer: str, ends: Mapping[str, str], names: Mapping[str, str]) -> str:
    """A router that answers with the names of nodes answers with the new ones."""
    return names.get(answer, answer) if ends[answer] == answer else answer
