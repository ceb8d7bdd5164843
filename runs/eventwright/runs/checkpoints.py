"""LangGraph's checkpoints on our own store: fenced, group-committed, and without writes that the next checkpoint makes needless."""

from __future__ import annotations


from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

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
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from eventwright.runs import schema
from eventwright.runs.committer import Unit
from eventwright.runs.errors import EventwrightError
from eventwright.runs.records import Lease
from eventwright.runs.store import Store

#: How long a finished task's writes wait for the checkpoint that would make them needless, in seconds.
PATIENCE = 0.01
#: Bookkeeping channels whose writes say nothing that the next checkpoint does not.
PLAIN_CHANNELS = frozenset({"__no_writes__", "__pregel_tasks"})


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
    #: Writes that still wait in line, by the checkpoint they belong to.
    held: dict[tuple[str, str, str], list[Unit]] = field(default_factory=dict)


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

    def lease(self, thread_id: str, lease: Lease) -> None:
        """Let the graph write this thread, under this lease."""
        self._shared.leases[thread_id] = lease

    def release(self, thread_id: str) -> None:
        """The segment is over; late writes of this thread are refused."""
        self._shared.leases.pop(thread_id, None)

    # -- writing -----------------------------------------------------------------------------------------------------

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        thread_id, ns = _place(config)
        parent = config["configurable"].get("checkpoint_id")
        kind, body = self.serde.dumps_typed(checkpoint)
        transaction = self._store.transaction(self._lease_of(thread_id))
        transaction.put_checkpoint(
            {
                "thread_id": thread_id,
                "ns": ns,
                "id": checkpoint["id"],
                "parent": parent,
                "type": kind,
                "body": body,
                "metadata": get_checkpoint_metadata(config, metadata),
            }
        )
        # This checkpoint holds what those writes say: whoever is still in line need not be written.
        for unit in self._shared.held.pop((thread_id, ns, parent), ()) if parent else ():
            self._store.committer.withdraw(unit)
        await self._store.committer.post(transaction.unit)
        return _config(thread_id, ns, checkpoint["id"])

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        thread_id, ns = _place(config)
        checkpoint_id = config["configurable"]["checkpoint_id"]
        special = all(channel in WRITES_IDX_MAP for channel, _ in writes)
        transaction = self._store.transaction(self._lease_of(thread_id))
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
        if any(channel.startswith("__") and channel not in PLAIN_CHANNELS for channel, _ in writes):
            await self._store.committer.post(transaction.unit)
            return
        key = (thread_id, ns, checkpoint_id)
        waiting = self._shared.held.setdefault(key, [])
        waiting.append(transaction.unit)
        try:
            await self._store.committer.post(transaction.unit, patience=PATIENCE)
        finally:
            if self._shared.held.get(key) is waiting:
                waiting.remove(transaction.unit)
                if not waiting:
                    del self._shared.held[key]

    async def adelete_thread(self, thread_id: str) -> None:
        async with self._store.write() as transaction:
            transaction.delete_thread(thread_id)

    # -- reading -----------------------------------------------------------------------------------------------------

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        thread_id, ns = _place(config)
        table = schema.checkpoints
        query = sa.select(table).where(table.c.thread_id == thread_id, table.c.ns == ns)
        checkpoint_id = get_checkpoint_id(config)
        if checkpoint_id:
            query = query.where(table.c.id == checkpoint_id)
        rows = await self._store.rows_of(query.order_by(table.c.id.desc()).limit(1))
        return await self._tuple(rows[0]) if rows else None

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
            thread_id = config["configurable"]["thread_id"]
            query = query.where(table.c.thread_id == thread_id)
            ns = config["configurable"].get("checkpoint_ns")
            if ns is not None:
                query = query.where(table.c.ns == ns)
            if checkpoint_id := get_checkpoint_id(config):
                query = query.where(table.c.id == checkpoint_id)
        if before is not None and (before_id := get_checkpoint_id(before)):
            query = query.where(table.c.id < before_id)
        left = limit
        for row in await self._store.rows_of(query):
            if filter and any(row["metadata"].get(key) != value for key, value in filter.items()):
                continue
            if left is not None:
                if left == 0:
                    return
                left -= 1
            yield await self._tuple(row)

    async def _tuple(self, row: sa.RowMapping) -> CheckpointTuple:
        table = schema.checkpoint_writes
        query = (
            sa.select(table)
            .where(table.c.thread_id == row["thread_id"], table.c.ns == row["ns"], table.c.checkpoint_id == row["id"])
            .order_by(table.c.path, table.c.task_id, table.c.idx)
        )
        writes = await self._store.rows_of(query)
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

    # -- LangGraph's synchronous calls are not served: everything here is asynchronous ----------------------------------

    def get_next_version(self, current: int | None, channel: None) -> int:
        return 1 if current is None else current + 1


def _place(config: RunnableConfig) -> tuple[str, str]:
    configurable = config["configurable"]
    return str(configurable["thread_id"]), str(configurable.get("checkpoint_ns", ""))


def _config(thread_id: str, ns: str, checkpoint_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ns, "checkpoint_id": checkpoint_id}}
