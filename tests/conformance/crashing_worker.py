"""A worker that is made to be killed: `python crashing_worker.py URL`, started by test_checkpoint_crashes.

LangGraph is imported once; then every line on standard input forks a worker, whose process id is answered. A worker
takes up whatever is due until it is killed; it ends by itself only if something is wrong.
"""

from __future__ import annotations

import asyncio
import operator
import os
import random
import signal
import sys
from typing import Annotated, Any, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from eventwright.runs.checkpoints import CheckpointSaver
from eventwright.runs.errors import LeaseLost, StoreUnavailable
from eventwright.runs.heartbeats import heartbeats
from eventwright.runs.records import DecisionType, Review, ReviewKind, ReviewState
from eventwright.runs.states import Outcome, RunState
from eventwright.runs.store import Store

LEASE_SECONDS = 1.0


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


def step(name: str) -> Any:
    async def node(state: State) -> State:
        await asyncio.sleep(random.uniform(0, 0.05))
        return {"log": [name]}

    return node


async def ask(state: State) -> State:
    first = interrupt("first?")
    second = interrupt("second?")
    return {"log": [f"ask {first} {second}"]}


def graph() -> StateGraph[Any]:
    """Two steps beside each other, then two questions in one node, then an end."""
    builder = StateGraph(State)
    builder.add_node("begin", step("begin"))
    for side in ("left", "right"):
        builder.add_node(side, step(side))
        builder.add_edge("begin", side)
    builder.add_node("ask", ask)
    builder.add_node("end", step("end"))
    builder.add_edge(START, "begin")
    builder.add_edge(["left", "right"], "ask")
    builder.add_edge("ask", "end")
    return builder


#: What a run's log holds at its end, the two sides in either order.
EXACT = sorted(["begin", "left", "right", "ask yes yes", "end"])


async def advance(store: Store, saver: CheckpointSaver, compiled: Any, run_id: str, worker: str) -> None:
    async with store.write() as tx:
        claim = tx.claim(run_id, worker=worker, seconds=LEASE_SECONDS)
    if claim.lease is None:
        return
    saver.lease(run_id, claim.lease)
    config = {"configurable": {"thread_id": run_id}}
    reviews = (await store.history(run_id)).reviews
    answers = {r.interrupt_id: "yes" for r in reviews if r.state is ReviewState.DECIDED}
    state = await compiled.aget_state(config)
    answered = {i.id: answers[i.id] for i in state.interrupts if i.id in answers}
    if state.created_at is None or answered or not state.interrupts:
        given: Any = {"log": []} if state.created_at is None else Command(resume=answered) if answered else None
        await compiled.ainvoke(given, config, durability="sync")
        state = await compiled.aget_state(config)
    async with store.write(claim.lease) as tx:
        # A run that has crossed a boundary is suspect no more.
        tx.wake_next_suspect()
        if not state.tasks:
            tx.move(run_id, RunState.COMPLETED, actor=worker, outcome=Outcome.APPROVED, crashes=0)
            return
        for asked in state.interrupts:
            if asked.id not in {review.interrupt_id for review in reviews}:
                tx.open_review(_review(run_id, asked.id, str(asked.value)))
        tx.move(run_id, RunState.PENDING_APPROVAL, actor=worker, crashes=0)
        tx.wake_if_decided_meanwhile(run_id, seen=[r.id for r in reviews if r.decision], lane="default")


def _review(run_id: str, interrupt_id: str, words: str) -> Review:
    return Review(
        id=f"{run_id[-20:]}-{interrupt_id}",
        run_id=run_id,
        workflow="crash",
        node="ask",
        kind=ReviewKind.QUESTION,
        question=words,
        allowed=(DecisionType.RESPOND,),
        digest="0" * 64,
        interrupt_id=interrupt_id,
    )


async def work(url: str) -> None:
    worker = f"worker-{os.getpid()}"
    held: set[str] = set()
    async with Store.open(url) as store, heartbeats(url, worker, held, every=0.3, lease_seconds=LEASE_SECONDS):
        saver = CheckpointSaver(store)
        compiled = graph().compile(checkpointer=saver)
        while True:
            held.update(run_id for run_id, _ in await store.due_runs(limit=12))
            tried = [advance(store, saver, compiled, run_id, worker) for run_id in held]
            for answer in await asyncio.gather(*tried, return_exceptions=True):
                if answer is not None and not isinstance(answer, LeaseLost | StoreUnavailable):
                    raise answer
            held.clear()
            await asyncio.sleep(0.01)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os.close(0)
            asyncio.run(work(sys.argv[1]))
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
