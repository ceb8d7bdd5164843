"""How much of a system is used at a time is bounded; who waits for a place gets one in turn, or leaves without a
trace."""

from __future__ import annotations

import asyncio

import pytest
from tests.virtual_time import in_virtual_time, now

from eventwright.tools.limits import Bucket, Limiter, Limits
from eventwright.tools.providers import Providers

HOST = "models.example.com"


@pytest.mark.parametrize("name", ["at_once", "requests_per_minute", "tokens_per_minute"])
def test_a_limit_that_lets_nothing_through_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=0 would let nothing through"):
        Limits(**{name: 0})


async def calls(limiter: Limiter, count: int, *, seconds: float = 0.0, tokens: int = 0) -> tuple[list[float], int]:
    """Make some calls at once; when each began, and how many were under way at most."""
    begun: list[float] = []
    under_way = most = 0

    async def call() -> None:
        nonlocal under_way, most
        async with limiter.place(tokens):
            begun.append(now())
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(seconds)
            under_way -= 1

    await asyncio.gather(*(call() for _ in range(count)))
    return begun, most


@in_virtual_time
async def test_no_more_calls_are_made_at_once() -> None:
    begun, most = await calls(Limiter(Limits(at_once=3)), 10, seconds=1)
    assert most == 3
    assert begun == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]


@in_virtual_time
async def test_no_more_calls_are_begun_in_a_minute_once_the_first_minutes_worth_is_used() -> None:
    begun, _ = await calls(Limiter(Limits(requests_per_minute=60)), 120)
    assert begun[:60] == [0.0] * 60
    assert begun[60:] == pytest.approx(list(range(1, 61)))


@in_virtual_time
async def test_no_more_tokens_are_used_in_a_minute() -> None:
    begun, _ = await calls(Limiter(Limits(tokens_per_minute=6000)), 4, tokens=3000)
    assert begun == pytest.approx([0, 0, 30, 60])


@in_virtual_time
async def test_a_call_that_wants_more_than_a_minute_holds_waits_for_a_whole_one_and_not_for_ever() -> None:
    begun, _ = await calls(Limiter(Limits(tokens_per_minute=100)), 2, tokens=1_000_000)
    assert begun == pytest.approx([0, 60])


@in_virtual_time
async def test_what_was_set_aside_and_not_used_is_there_for_the_next_at_once() -> None:
    limiter = Limiter(Limits(tokens_per_minute=1000))

    async def call() -> float:
        async with limiter.place(800) as place:
            began = now()
            await asyncio.sleep(1)
            place.took(100)
        return began

    assert await asyncio.gather(*(call() for _ in range(3))) == pytest.approx([0, 1, 2])


@in_virtual_time
async def test_what_was_used_beyond_is_made_up_for() -> None:
    limiter = Limiter(Limits(tokens_per_minute=1000))
    async with limiter.place(100) as place:
        place.took(2000)
    async with limiter.place(1000):
        assert now() == pytest.approx(120)


@in_virtual_time
async def test_a_call_that_says_nothing_has_taken_what_was_set_aside() -> None:
    limiter = Limiter(Limits(tokens_per_minute=1000))
    with pytest.raises(ConnectionError):
        async with limiter.place(1000):
            raise ConnectionError
    async with limiter.place(1000):
        assert now() == pytest.approx(60)


@in_virtual_time
async def test_whoever_wants_much_is_not_overtaken_for_ever_by_those_who_want_little() -> None:
    bucket, order = Bucket(100), list[str]()

    async def take(name: str, amount: float) -> None:
        await bucket.take(amount)
        order.append(name)

    await bucket.take(100)
    await asyncio.gather(take("much", 100), *(take("little", 1) for _ in range(5)))
    assert order == ["much", *["little"] * 5]


@pytest.mark.parametrize(
    "limits",
    [
        Limits(at_once=1),
        Limits(requests_per_minute=1),
        Limits(tokens_per_minute=100),
        Limits(at_once=9, requests_per_minute=1, tokens_per_minute=100),
        Limits(at_once=1, requests_per_minute=9, tokens_per_minute=100),
    ],
    ids=str,
)
@pytest.mark.parametrize("impatient", [1, 10])
def test_who_gives_up_waiting_gives_the_place_back(limits: Limits, impatient: int) -> None:
    @in_virtual_time
    async def story() -> None:
        limiter = Limiter(limits)

        async def holds() -> None:
            async with limiter.place(100):
                await asyncio.sleep(60)

        async def waits() -> None:
            async with limiter.place(100):
                raise AssertionError("there was no place")

        holder = asyncio.create_task(holds())
        await asyncio.sleep(1)
        waiting = [asyncio.create_task(waits()) for _ in range(impatient)]
        await asyncio.sleep(1)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        async with limiter.place(100):
            assert now() == pytest.approx(60), "as if nobody had waited"
        await holder

    story()


@in_virtual_time
async def test_who_gives_up_waiting_for_tokens_gives_its_request_back_as_well() -> None:
    limiter = Limiter(Limits(requests_per_minute=2, tokens_per_minute=100))

    async def takes(tokens: int) -> None:
        async with limiter.place(tokens):
            pass

    await takes(100)
    waiting = asyncio.create_task(takes(100))
    await asyncio.sleep(1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await takes(1)
    assert now() == pytest.approx(1)


@in_virtual_time
async def test_all_parts_of_a_system_share_its_limits_and_other_systems_do_not() -> None:
    providers, limits = Providers(), Limits(at_once=1)
    begun: list[tuple[str, float]] = []

    async def ask(host: str, part: str) -> None:
        async with providers.asked(host, part=part, limits=limits):
            begun.append((part, now()))
            await asyncio.sleep(1)

    await asyncio.gather(ask(HOST, "large"), ask(HOST, "small"), ask("crm.example.com", "crm"))
    assert begun == [("large", 0), ("crm", 0), ("small", 1)]
