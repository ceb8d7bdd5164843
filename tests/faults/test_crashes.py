"""A process is killed, or frozen, at every boundary there is. Then the auditor looks whether the promises are kept."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.faults.theatre import ROOT, Result, Theatre, crossed, told
from tests.faults.trials import Fault

from eventwright.runs.failpoints import Failpoint

#: Before a commit it is as in the middle of it, when nothing of it is there yet (`commit.applied`): the long run is
#: killed here too.
AS_IN_THE_MIDDLE = {
    Failpoint.COMMIT_BEGINNING,
    Failpoint.INTAKE_STORING,
    Failpoint.ENGINE_CLAIMING,
    Failpoint.ENGINE_SETTLING,
    Failpoint.DESK_DECIDING,
    Failpoint.CHECKPOINT_WRITING,
    Failpoint.TASK_WRITING,
    Failpoint.GATE_ASKING,
    Failpoint.GATE_USING_UP,
    Failpoint.BUDGET_PLANNED,
    Failpoint.LEDGER_INTENDING,
    Failpoint.LEDGER_FAILING,
    Failpoint.LEDGER_PUTTING_OFF,
    Failpoint.HEART_BEATING,
}
#: What only the scene without people and without Redis crosses.
HURRIED = (Failpoint.DESK_EXPIRING, Failpoint.DESK_EXPIRED, Failpoint.SWEEP_TICKED, Failpoint.SWEEP_TAKEN)
#: Frozen in a thread beside the loop, a process may be in a transaction, and keep SQLite's one lock from everybody.
BESIDE_THE_LOOP = (Failpoint.COMMIT_APPLIED, "worker", "heart")


@pytest.fixture
def on_sqlite(tmp_path: Path, migrated_sqlite: Path, valkey_url: str) -> Theatre:
    return Theatre(tmp_path, f"sqlite:///{migrated_sqlite}", valkey_url)


@pytest.fixture
def on_postgres(tmp_path: Path, request: pytest.FixtureRequest, valkey_url: str) -> Iterator[Theatre]:
    server, template = request.getfixturevalue("postgres_server"), request.getfixturevalue("migrated_postgres")
    with ExitStack() as stack:
        theatre = Theatre(tmp_path, server.url("trial_{slot}"), valkey_url)
        for slot in range(theatre.at_once):
            server.execute(f"CREATE DATABASE trial_{slot} TEMPLATE {template}")
            stack.callback(server.execute, f"DROP DATABASE trial_{slot} WITH (FORCE)")
        yield theatre


@pytest.fixture(params=["on_sqlite", "on_postgres"])
def theatre(request: pytest.FixtureRequest) -> Theatre:
    theatre: Theatre = request.getfixturevalue(request.param)
    return theatre


def nothing_is_lost_or_doubled(results: Sequence[Result], *, met: float = 0.9) -> None:
    print(told(results))  # noqa: T201 - the figures of the page about reliability
    assert {result.trial: result.violations for result in results if result.violations} == {}
    # What is crossed depends a little on what happens at the same time.
    assert sum(result.met for result in results) >= met * len(results)


@pytest.mark.timeout(900)
async def test_wherever_a_process_is_killed_nothing_is_lost_and_nothing_happens_twice(on_sqlite: Theatre) -> None:
    every = [crossing for crossing in await on_sqlite.crossings("errand") if crossing[0] not in AS_IN_THE_MIDDLE]
    last = dict(every)
    # Each boundary when it is crossed first and last; the long run is killed at every crossing.
    crossings = [(point, nth) for point, nth in every if nth in (1, last[point])]
    results = await on_sqlite.hold(
        [
            *(("errand", [Fault(*crossing)]) for crossing in crossings),
            *(("hurry", [Fault(point, 1)]) for point in HURRIED),
            # What only a provider that is down has anybody cross, and that as often.
            *(("outage", [Fault(Failpoint.LEDGER_PUT_OFF, nth)]) for nth in (1, 2)),
        ]
    )
    # The last crossing of a clean run is one too many now and then: then the process comes to its end.
    nothing_is_lost_or_doubled(results, met=0.7)
    assert set(Failpoint) - set(crossed(results)) == set(), "a boundary that nobody crossed"


def test_every_failpoint_stands_in_the_code() -> None:
    rooms = ("runs", "tools", "guardrails", "graphs", "queue", "app")
    code = "".join(path.read_text() for room in rooms for path in (ROOT / room).rglob("*.py"))
    assert set(re.findall(r"failpoint\(Failpoint\.(\w+)\)", code)) == {point.name for point in Failpoint}


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("scene", ["errand", "hurry", "outage", "support"])
class TestInTheLongRun:
    async def test_every_boundary_may_be_the_last_one(self, theatre: Theatre, scene: str) -> None:
        crossings = await theatre.crossings(scene)
        nothing_is_lost_or_doubled(await theatre.hold((scene, [Fault(*crossing)]) for crossing in crossings))

    async def test_two_processes_may_die_one_after_the_other(self, theatre: Theatre, scene: str) -> None:
        seed = random.randrange(2**32)
        print("seed", seed)  # noqa: T201 - to play it again
        chance, crossings = random.Random(seed), await theatre.crossings(scene)
        pairs = [[Fault(*chance.choice(crossings)) for _ in range(2)] for _ in range(200)]
        # The second one finds less left to do, and may come to the end before its turn to die.
        nothing_is_lost_or_doubled(await theatre.hold((scene, pair) for pair in pairs), met=0.3)

    async def test_whoever_is_frozen_at_a_boundary_wakes_up_to_nothing(self, theatre: Theatre, scene: str) -> None:
        crossings = [one for one in await theatre.crossings(scene) if not one[0].startswith(BESIDE_THE_LOOP)]
        nothing_is_lost_or_doubled(await theatre.hold((scene, [Fault(*crossing, "stop")]) for crossing in crossings))
