"""LangGraph's checkpoints on our own store: fenced, group-committed, without writes that the next makes needless."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.base import id as ids
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Send
from pydantic_core import to_jsonable_python

from eventwright.runs import schema
from eventwright.runs.errors import EventwrightError
from eventwright.runs.failpoints import Failpoint, failpoint
from eventwright.runs.records import Lease
from eventwright.runs.store import Store
from eventwright.runs.transaction import Transaction

#: How long a finished task's writes wait for the checkpoint that would make them needless, in seconds.
PATIENCE = 0.05
#: Bookkeeping channels whose writes say nothing that the next checkpoint does not.
PLAIN_CHANNELS = frozenset({"__no_writes__", "__pregel_tasks"})
#: The channel of the tasks that were sent, and the prefixes of those that trigger a node and that join several.
TASKS, TRIGGER, JOIN = "__pregel_tasks", "branch:to:", "join:"
#: The channel in which a task says that it failed, and all that is kept of what such a task wrote.
ERROR = "__error__"
FAILURE = frozenset({ERROR, "__error_source_node__", "__interrupt__"})


class NotLeased(EventwrightError, PermissionError):
    """A graph wrote a checkpoint for a thread that this worker has not claimed."""

    def __init__(self, thread_id: str) -> None:
        self.thread_id = thread_id
        super().__init__(
            f"thread {thread_id!r} is not claimed by this worker; runs go on through the engine's advance()"
        )


@dataclass
class _Shared:
    """What every copy of a saver shares: LangGraph's compile() makes shallow copies."""

    leases: dict[str, Lease] = field(default_factory=dict)
    #: What stands beside every checkpoint of a leased thread, as it is when the checkpoint is written.
    beside: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    #: Leased threads that nothing was ever written to.
    fresh: set[str] = field(default_factory=set)
    #: By thread and namespace: the newest checkpoint that a leased thread has written, while nothing is written beside
    #: it. Whoever holds the lease need not ask the database for it.
    newest: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    #: Writes that are held back, by the checkpoint they belong to; each is told whether the next one came.
    held: dict[tuple[str, str, str], set[asyncio.Future[bool]]] = field(default_factory=dict)


class CheckpointSaver(BaseCheckpointSaver[int]):
    """A checkpointer for LangGraph, asynchronous only.

    Args:
        store: where checkpoints go.
        lease_of: who may write a thread; by default the leases given to `lease`. Return None to write unfenced.
    """

    def __init__(self, store: Store, *, lease_of: Callable[[str], Lease | None] | None = None) -> None:
        # None is LangGraph's strict list: a row that names anything else is not called, whatever the environment says.
        super().__init__(serde=JsonPlusSerializer(allowed_msgpack_modules=None))
        self._store = store
        self._shared = _Shared()
        self._lease_of = lease_of or self._leased

    def _leased(self, thread_id: str) -> Lease:
        try:
            return self._shared.leases[thread_id]
        except KeyError:
            raise NotLeased(thread_id) from None

    def lease(
        self, thread_id: str, lease: Lease, *, fresh: bool = False, beside: Mapping[str, Any] | None = None
    ) -> None:
        """Let the graph write this thread, under this lease.

        Args:
            fresh: it has no checkpoint that were worth a look.
            beside: JSON that goes into the metadata of every checkpoint of the thread itself; nodes cannot reach it.
        """
        self._shared.leases[thread_id] = lease
        self._shared.beside[thread_id] = beside or {}
        if fresh:
            self._shared.fresh.add(thread_id)

    def release(self, thread_id: str) -> None:
        """The segment is over; late writes of this thread are refused."""
        self._shared.leases.pop(thread_id, None)
        self._shared.beside.pop(thread_id, None)
        self._shared.newest.pop(thread_id, None)
        self._shared.fresh.discard(thread_id)

    # -- writing -----------------------------------------------------------------------------------------------------

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        thread_id, ns = _place(config)
        self._shared.fresh.discard(thread_id)
        parent = config["configurable"].get("checkpoint_id")
        kind, body = self.serde.dumps_typed(checkpoint)
        beside = {} if ns else to_jsonable_python(self._shared.beside.get(thread_id, {}))
        transaction = self._store.transaction(self._lease_of(thread_id))
        row = {
            "thread_id": thread_id,
            "ns": ns,
            "id": checkpoint["id"],
            "parent": parent,
            "type": kind,
            "body": body,
            "metadata": {**get_checkpoint_metadata(config, metadata), **beside},
        }
        transaction.put_checkpoint(row)
        # This checkpoint holds what those writes say: whoever still holds one back need not write it.
        for write in self._shared.held.pop((thread_id, ns, parent), ()) if parent else ():
            _tell(write, True)
        failpoint(Failpoint.CHECKPOINT_WRITING)
        await self._store.committer.post(transaction.unit)
        failpoint(Failpoint.CHECKPOINT_WRITTEN)
        if thread_id in self._shared.leases:
            self._shared.newest.setdefault(thread_id, {})[ns] = row
        return _config(thread_id, ns, checkpoint["id"])

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        thread_id, ns = _place(config)
        transaction = self._store.transaction(self._lease_of(thread_id))
        checkpoint_id = config["configurable"]["checkpoint_id"]
        if any(channel == ERROR for channel, _ in writes):
            # A failed task has done nothing. With the writes it made before (its router raised, say) LangGraph would
            # take it for finished on resume, and end the run in silence; with the answers it took in, which are sent
            # again, it would take the last one for the answer to its next question.
            writes = [write for write in writes if write[0] in FAILURE]
        plain = all(channel in PLAIN_CHANNELS or not channel.startswith("__") for channel, _ in writes)
        if plain and await self._needless_soon((thread_id, ns, checkpoint_id)):
            return
        self._shared.newest.get(thread_id, {}).pop(ns, None)
        special = all(channel in WRITES_IDX_MAP for channel, _ in writes)
        for index, (channel, value) in enumerate(writes):
            kind, body = self.serde.dumps_typed(value)
            transaction.put_checkpoint_write(
                {
                    "thread_id": thread_id,
                    "ns": ns,
                    "checkpoint_id": checkpoint_id,
                    "task_id": task_id,
                    "idx": WRITES_IDX_MAP.get(channel, index),
                    "channel": channel,
                    "type": kind,
                    "body": body,
                    "path": task_path,
                },
                replace_earlier=special,
            )
        failpoint(Failpoint.TASK_WRITING)
        await self._store.committer.post(transaction.unit)
        failpoint(Failpoint.TASK_WRITTEN)

    async def _needless_soon(self, checkpoint: tuple[str, str, str]) -> bool:
        """Wait a moment for the checkpoint after this one; True if it came: what belongs to this one is needless."""
        loop = asyncio.get_running_loop()
        write: asyncio.Future[bool] = loop.create_future()
        held = self._shared.held.setdefault(checkpoint, set())
        held.add(write)
        patience = loop.call_later(PATIENCE, _tell, write, False)
        try:
            return await write
        finally:
            patience.cancel()
            held.discard(write)
            if not held and self._shared.held.get(checkpoint) is held:
                del self._shared.held[checkpoint]

    async def adelete_thread(self, thread_id: str) -> None:
        async with self._store.write() as transaction:
            transaction.delete_thread(thread_id)

    def replace_newest(self, saved: CheckpointTuple, checkpoint: Checkpoint, transaction: Transaction) -> None:
        """Write another checkpoint in the place of a thread's newest, with the metadata in `saved`. It keeps its id, so
        that its tasks keep theirs. What they have written so far is forgotten: they run again."""
        kind, body = self.serde.dumps_typed(checkpoint)
        thread_id, ns = _place(saved.config)
        transaction.put_checkpoint(
            {
                "thread_id": thread_id,
                "ns": ns,
                "id": get_checkpoint_id(saved.config),
                "parent": get_checkpoint_id(saved.parent_config) if saved.parent_config else None,
                "type": kind,
                "body": body,
                "metadata": dict(saved.metadata),
            }
        )

    # -- reading -----------------------------------------------------------------------------------------------------

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        found = await self._find(config)
        return self._tuple(found) if found is not None else None

    async def _find(self, config: RunnableConfig) -> _Found | None:
        thread_id, ns = _place(config)
        if thread_id in self._shared.fresh:
            return None
        wanted = {"thread_id": thread_id, "ns": ns, "id": get_checkpoint_id(config)}
        known = self._shared.newest.get(thread_id, {}).get(ns)
        if known is not None and wanted["id"] in (None, known["id"]):
            return known, ()

        def read(connection: sa.Connection) -> _Found | None:
            row = connection.execute(_ONE if wanted["id"] else _NEWEST, wanted).mappings().one_or_none()
            return (row, _writes_of(connection, row)) if row is not None else None

        found = await self._store.read(read)
        if found is not None and thread_id in self._shared.leases:
            _number_on_from(found[0]["id"])
        return found

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        table = schema.checkpoints
        query = sa.select(table).order_by(table.c.id.desc())
        if config is not None:
            query = query.where(table.c.thread_id == config["configurable"]["thread_id"])
            ns = config["configurable"].get("checkpoint_ns")
            if ns is not None:
                query = query.where(table.c.ns == ns)
            if checkpoint_id := get_checkpoint_id(config):
                query = query.where(table.c.id == checkpoint_id)
        if before is not None and (before_id := get_checkpoint_id(before)):
            query = query.where(table.c.id < before_id)
        asked = (filter or {}).items()

        def read(connection: sa.Connection) -> list[_Found]:
            rows = connection.execute(query).mappings()
            fitting = (row for row in rows if all(row["metadata"].get(key) == value for key, value in asked))
            return [(row, _writes_of(connection, row)) for row in islice(fitting, limit)]

        for found in await self._store.read(read):
            yield self._tuple(found)

    def _tuple(self, found: _Found) -> CheckpointTuple:
        row, writes = found
        return CheckpointTuple(
            config=_config(row["thread_id"], row["ns"], row["id"]),
            checkpoint=self.serde.loads_typed((row["type"], row["body"])),
            metadata=row["metadata"],
            parent_config=_config(row["thread_id"], row["ns"], row["parent"]) if row["parent"] else None,
            pending_writes=[
                (write["task_id"], write["channel"], self.serde.loads_typed((write["type"], write["body"])))
                for write in writes
            ],
        )

    # -- LangGraph's synchronous calls are not served: everything here is asynchronous --------------------------------

    def get_next_version(self, current: int | None, channel: None) -> int:
        return 1 if current is None else current + 1


_Found = tuple[Mapping[Any, Any], Sequence[sa.RowMapping]]

_checkpoints, _pending = schema.checkpoints, schema.checkpoint_writes
_THREAD = sa.select(_checkpoints).where(
    _checkpoints.c.thread_id == sa.bindparam("thread_id"), _checkpoints.c.ns == sa.bindparam("ns")
)
_NEWEST = _THREAD.order_by(_checkpoints.c.id.desc()).limit(1)
_ONE = _THREAD.where(_checkpoints.c.id == sa.bindparam("id"))
_WRITES = (
    sa.select(_pending)
    .where(
        _pending.c.thread_id == sa.bindparam("thread_id"),
        _pending.c.ns == sa.bindparam("ns"),
        _pending.c.checkpoint_id == sa.bindparam("id"),
    )
    .order_by(_pending.c.path, _pending.c.task_id, _pending.c.idx)
)


def _number_on_from(checkpoint_id: str) -> None:
    """Let LangGraph's next ids sort behind this one. They hold the time by the clock of whoever makes them, and the
    last one is taken for the newest: after a worker whose clock is ahead, what others did would be forgotten."""
    bits = UUID(checkpoint_id).int
    written = bits >> 80 << 12 | bits >> 64 & 0xFFF  # the 60 bits of the time in a UUID of version 6
    ids._last_v6_timestamp = max(ids._last_v6_timestamp or 0, written)  # type: ignore[assignment]  # it begins as None


def _tell(write: asyncio.Future[bool], needless: bool) -> None:
    if not write.done():
        write.set_result(needless)


def _writes_of(connection: sa.Connection, row: sa.RowMapping) -> Sequence[sa.RowMapping]:
    """The pending writes of a checkpoint."""
    return connection.execute(_WRITES, {name: row[name] for name in ("thread_id", "ns", "id")}).mappings().all()


def awaited_nodes(saved: CheckpointTuple, channels: Collection[str]) -> frozenset[str]:
    """The nodes that the checkpoint and its finished tasks are about to run, and those of joins that the graph, by its
    channels, has not."""
    values, writes = saved.checkpoint["channel_values"], saved.pending_writes or ()
    sends = [*(values.get(TASKS) or ()), *(value for _, channel, value in writes if channel == TASKS)]
    awaited = {send.node for send in sends}
    for channel in (*values, *(channel for _, channel, _ in writes)):
        if channel.startswith(TRIGGER):
            awaited.add(channel.removeprefix(TRIGGER))
        elif channel.startswith(JOIN) and channel not in channels:
            awaited.update(_joined(channel))
    return frozenset(awaited)


def _joined(channel: str) -> list[str]:
    """The nodes of a join's channel, those that come together first and the one they wait for last."""
    starts, _, end = channel.removeprefix(JOIN).rpartition(":")
    return [*starts.split("+"), end]


def with_renamed_nodes(checkpoint: Checkpoint, names: Mapping[str, str]) -> Checkpoint:
    """The checkpoint with nodes' names changed wherever LangGraph keys by them."""

    def keys(mapping: Mapping[str, Any]) -> dict[str, Any]:
        return {_renamed_channel(name, names): value for name, value in mapping.items()}

    copy = checkpoint.copy()
    values = copy["channel_values"]
    copy["channel_values"] = keys({name: _renamed_value(name, value, names) for name, value in values.items()})
    copy["channel_versions"] = keys(copy["channel_versions"])
    copy["versions_seen"] = {names.get(node, node): keys(seen) for node, seen in copy["versions_seen"].items()}
    updated = copy.get("updated_channels")
    if updated is not None:
        copy["updated_channels"] = [_renamed_channel(name, names) for name in updated]
    return copy


def _renamed_channel(name: str, names: Mapping[str, str]) -> str:
    if name.startswith(TRIGGER):
        node = name.removeprefix(TRIGGER)
        return TRIGGER + names.get(node, node)
    if name.startswith(JOIN):
        *starts, end = (names.get(node, node) for node in _joined(name))
        return f"{JOIN}{'+'.join(starts)}:{end}"
    return name


def _renamed_value(channel: str, held: Any, names: Mapping[str, str]) -> Any:
    """What a channel holds: the tasks that were sent, the nodes that came to a join."""
    if channel == TASKS:
        return [Send(names.get(send.node, send.node), send.arg, timeout=send.timeout) for send in held]
    if channel.startswith(JOIN):
        # A deferred join holds the nodes that came, and whether the graph is done otherwise.
        came, *rest = held if isinstance(held, tuple | list) else (held,)
        renamed = {names.get(node, node) for node in came}
        return (renamed, *rest) if rest else renamed
    return held


def _place(config: RunnableConfig) -> tuple[str, str]:
    configurable = config["configurable"]
    return str(configurable["thread_id"]), str(configurable.get("checkpoint_ns", ""))


def _config(thread_id: str, ns: str, checkpoint_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ns, "checkpoint_id": checkpoint_id}}
