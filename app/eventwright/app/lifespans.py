"""The clients that workflows bring along: `Workflow(lifespan=...)`, opened once in each process that runs them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import AsyncExitStack

from eventwright.graphs.workflow import Lifespan, Workflow
from eventwright.runs.errors import EventwrightError


class LifespanFailed(EventwrightError, RuntimeError):
    """The clients of a workflow could not be opened, or are not what tools could ask for."""

    def __init__(self, workflow: Workflow, problem: str) -> None:
        self.workflow = workflow
        super().__init__(f"the lifespan of workflow {workflow.name!r} version {workflow.version!r}: {problem}")


async def open_lifespans(
    workflows: Iterable[Workflow], lanes: Collection[str], stack: AsyncExitStack
) -> tuple[object, ...]:
    """The clients of the workflows whose runs come through these lanes; `stack` closes them, the last opened first.

    A lifespan that several workflows share is opened once.

    Raises:
        LifespanFailed: one cannot be opened, yields no list, or two clients are of one class, by which tools ask.
    """
    opened: dict[Lifespan, Workflow] = {}
    owners: dict[type, Workflow] = {}
    clients: list[object] = []
    for workflow in workflows:
        lifespan = workflow.lifespan
        if lifespan is None or lifespan in opened or not set(workflow.lanes) & set(lanes):
            continue
        opened[lifespan] = workflow
        for client in await _entered(workflow, lifespan, stack):
            owner = owners.setdefault(type(client), workflow)
            if type(client) in map(type, clients):
                raise LifespanFailed(workflow, _twice(type(client), owner, workflow))
            clients.append(client)
    return tuple(clients)


async def _entered(workflow: Workflow, lifespan: Lifespan, stack: AsyncExitStack) -> list[object]:
    try:
        yielded = await stack.enter_async_context(lifespan())
    except Exception as error:
        raise LifespanFailed(workflow, f"it failed with {type(error).__name__}: {error}") from error
    if isinstance(yielded, str | bytes) or not isinstance(yielded, Iterable):
        raise LifespanFailed(workflow, f"it yields {type(yielded).__name__}; let it yield a list of clients")
    return list(yielded)


def _twice(kind: type, owner: Workflow, workflow: Workflow) -> str:
    also = "this one" if owner is workflow else f"that of {owner.name!r} version {owner.version!r}"
    return (
        f"it yields a {kind.__name__}, and so does {also}; tools ask for a client by its class. Share one lifespan, or "
        f"give each client a class of its own: class Helpdesk({kind.__name__}): ..."
    )
