"""Calls that race for what is left of a budget, in one process and in several: together they use it up exactly."""

from __future__ import annotations

import asyncio
import subprocess
import sys

from tests.conformance.budget_book import count, of, release, reserve, settle, used
from tests.conformance.world import begin

from eventwright.runs.errors import BudgetExceeded
from eventwright.runs.records import Run
from eventwright.runs.store import Store


class TestRaces:
    async def test_of_two_processes_use_a_budget_up_exactly(self, store: Store, other: Store) -> None:
        """Two hundred calls of 0.7 for a budget of 70: a hundred are made."""
        runs = [await begin(store) for _ in range(200)]

        async def call(process: Store, run: Run) -> None:
            await reserve(process, run, run.id, of("refunds", "0.7", 70), of("calls", 1, 1000))

        answers = await asyncio.gather(
            *(call((store, other)[number % 2], run) for number, run in enumerate(runs)), return_exceptions=True
        )

        assert count(answers, BudgetExceeded) == 100
        assert count(answers, Exception) == 100
        assert await used(store) == {"refunds": 70, "calls": 100}

    async def test_of_one_call_repeated_by_two_processes_reserve_once(self, store: Store, other: Store) -> None:
        run = await begin(store)
        answers = await asyncio.gather(
            *(reserve(process, run, "call", of("refunds", 60)) for process in (store, other) * 20)
        )
        assert answers == [None] * 40
        assert await used(store) == {"refunds": 60}

    async def test_for_budgets_in_any_order_do_not_deadlock(self, store: Store, other: Store) -> None:
        runs = [await begin(store) for _ in range(60)]
        names = ["a", "b", "c", "d"]

        async def call(process: Store, number: int, run: Run) -> None:
            turned = names[number % 4 :] + names[: number % 4]
            reservations = [of(name, 1, 1000, scope=f"{name}{number // 15}") for name in turned]
            await reserve(process, run, run.id, *(reservations if number % 3 else reversed(reservations)))
            await (settle if number % 2 else release)(process, run, run.id)

        await asyncio.gather(*(call((store, other)[number % 2], number, run) for number, run in enumerate(runs)))
        assert sum((await used(store)).values()) == 30 * len(names)

    def test_of_two_operating_system_processes_never_use_more_than_there_is(self, database_url: str) -> None:
        command = [sys.executable, "-c", RACE, database_url]
        processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for _ in range(2)
        ]
        # Both wait for the word, so that they race.
        assert [process.stdout and process.stdout.readline() for process in processes] == [b"ready\n"] * 2
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()
        answers = [process.communicate() for process in processes]

        assert [process.returncode for process in processes] == [0, 0], answers
        assert sum(int(out) for out, _ in answers) == 150


RACE = """
import asyncio, sys
from decimal import Decimal
from eventwright.runs.errors import BudgetExceeded
from eventwright.runs.event import Event, digest_of, new_id
from eventwright.runs.records import EventState, Reservation, Run
from eventwright.runs.states import RunState
from eventwright.runs.store import Store

async def race():
    async with Store.open(sys.argv[1]) as store:
        event = Event(id=new_id("e"), source="/race", type="race", data={})
        now = await store.now()
        run = Run(id=new_id("run"), workflow="race", version="1", state=RunState.RECEIVED, lane="default", event=event,
                  created_at=now, updated_at=now)
        async with store.write() as tx:
            tx.add_event(event, EventState.ACCEPTED)
            tx.add_run(run)
        print("ready", flush=True)
        sys.stdin.readline()
        made = 0
        async def call(number):
            nonlocal made
            if number % 10 == 0:
                await asyncio.sleep(0.01 * (number // 10))
            one = Reservation(scope=digest_of("s"), budget=digest_of("s"), label="s", amount=Decimal("0.1"),
                              most=Decimal(15))
            try:
                async with store.write() as tx:
                    tx.reserve(run.id, f"{run.id}{number}", [one])
                made += 1
            except BudgetExceeded:
                pass
        await asyncio.gather(*map(call, range(100)))
        print(made)

asyncio.run(race())
"""
