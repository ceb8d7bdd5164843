"""A worker that plays the suite and tells what it reached out for: Python itself reports it, before it happens.

    python -m tests.attacks.lonely_process FOLDER

It writes one line of JSON on standard output: what it connected to, which names it looked up, which programs it
started, and which cases went wrong.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"
REACHED: dict[str, set[str]] = {"connects": set(), "resolves": set(), "starts": set()}
#: What Python calls a connection, a look-up of a name, and the start of another program.
KINDS = {
    "socket.connect": "connects",
    "socket.sendto": "connects",
    "socket.getaddrinfo": "resolves",
    "socket.gethostbyname": "resolves",
    "subprocess.Popen": "starts",
    "os.system": "starts",
    "os.exec": "starts",
    "os.posix_spawn": "starts",
}


def listen(event: str, arguments: tuple[Any, ...]) -> None:
    kind = KINDS.get(event)
    if kind is None:
        return
    what = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments[0]
    REACHED[kind].add(str(what[0] if isinstance(what, tuple) else what))


async def main(folder: Path) -> None:
    from tests.attacks.arms import ATTENDED, honest, run_arm
    from tests.attacks.table import one_vector_each
    from tests.attacks.words import Goal

    by_goal = {case.attack.goal: case for case in one_vector_each()}
    # One of everything, and all addresses that an attacker may name.
    urls = [case for case in one_vector_each() if case.attack.goal is Goal.URL]
    cases = list({case.reference: case for case in [*by_goal.values(), *urls]}.values())
    attacked = await run_arm(cases, folder / "attacked")
    served = await run_arm(honest(cases), folder / "honest", ATTENDED)
    wrong = [str(one) for one in attacked if one.achieved or not one.delivered]
    wrong += [str(one) for one in served if not one.achieved]
    told = {kind: sorted(what) for kind, what in REACHED.items()} | {"wrong": wrong}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    sys.addaudithook(listen)
    asyncio.run(main(Path(sys.argv[1])))
