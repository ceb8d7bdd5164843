"""A system outside that is away is asked by nobody, but for one who looks whether it is back. What must not happen
first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest

from eventwright.tools.breaker import Breaker, ProviderDown, Tolerance
from eventwright.tools.contract import NotDone, Permanent, ToolError, Unusable
from eventwright.tools.limits import Limits
from eventwright.tools.providers import Providers, says_away

HOST = "crm.example.com"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(HOST, Tolerance(failures=3, window=60, first=5, most=30), clock=clock)


def fails(breaker: Breaker, error: Exception | None = None, kind: type[Exception] = NotDone) -> Exception:
    """Make a call that fails; what it is told."""
    with pytest.raises(kind) as caught, breaker.call(says_away):
        raise error or NotDone("no connection")
    return caught.value


def answers(breaker: Breaker) -> None:
    with breaker.call(says_away):
        pass


def opened(breaker: Breaker, *, times: int = 3) -> ProviderDown:
    """Let it open; what the last call was told."""
    for _ in range(times - 1):
        fails(breaker)
    down = fails(breaker, kind=ProviderDown)
    assert isinstance(down, ProviderDown)
    return down


# What it refuses.


def test_after_some_failures_in_a_row_nobody_asks_any_more(breaker: Breaker) -> None:
    opened(breaker)
    asked = False
    with (
        pytest.raises(ProviderDown, match=r"crm\.example\.com is down: no connection") as caught,
        breaker.call(says_away),
    ):
        asked = True
    assert not asked
    assert (caught.value.providers, caught.value.retry_after) == ((HOST,), 5.0)
    assert isinstance(caught.value, NotDone)
    assert not isinstance(caught.value, Permanent)


def test_the_call_whose_failure_was_one_too_many_is_told_that_nobody_asks_any_more(breaker: Breaker) -> None:
    assert opened(breaker).retry_after == 5.0


def test_a_call_that_may_have_happened_is_not_told_that_it_has_not(breaker: Breaker) -> None:
    for _ in range(3):
        error = fails(breaker, ToolError("the connection broke off in the middle"), ToolError)
        assert not isinstance(error, NotDone)
    assert breaker.is_open


def test_a_look_in_vain_makes_the_next_one_later_up_to_a_bound(breaker: Breaker, clock: Clock) -> None:
    waits = [opened(breaker).retry_after]
    for _ in range(4):
        clock.now += waits[-1]
        waits.append(opened(breaker, times=1).retry_after)
    assert waits == [5.0, 10.0, 20.0, 30.0, 30.0]


def test_the_wait_that_the_system_asks_for_is_kept(breaker: Breaker, clock: Clock) -> None:
    fails(breaker)
    fails(breaker)
    fails(breaker, NotDone("busy", retry_after=120), ProviderDown)
    clock.now = 119
    with pytest.raises(ProviderDown):
        answers(breaker)
    clock.now = 120
    answers(breaker)


@pytest.mark.parametrize("nonsense", [1e300, 86_400.0])
def test_no_system_shuts_us_out_for_ever(breaker: Breaker, nonsense: float) -> None:
    fails(breaker)
    fails(breaker)
    down = fails(breaker, NotDone("busy", retry_after=nonsense), ProviderDown)
    assert isinstance(down, ProviderDown)
    assert down.retry_after == 3600.0


def test_when_it_was_down_for_somebody_else_one_failure_is_enough_and_an_answer_is_too(breaker: Breaker) -> None:
    breaker.suspect()
    answers(breaker)
    fails(breaker)
    breaker.suspect()
    breaker.suspect()
    opened(breaker, times=1)
    breaker.suspect()
    with pytest.raises(ProviderDown):
        answers(breaker)


# The race when it half-opens.


async def test_of_a_hundred_callers_exactly_one_looks_and_when_it_is_back_they_all_may(
    breaker: Breaker, clock: Clock
) -> None:
    opened(breaker)
    clock.now += 5
    asked, refused, back = 0, 0, asyncio.Event()

    async def call() -> None:
        nonlocal asked, refused
        try:
            with breaker.call(says_away):
                asked += 1
                await back.wait()
        except ProviderDown:
            refused += 1

    callers = [asyncio.create_task(call()) for _ in range(100)]
    while refused < 99:
        await asyncio.sleep(0)
    assert asked == 1
    back.set()
    await asyncio.gather(*callers)
    await asyncio.gather(*(call() for _ in range(100)))
    assert (asked, refused) == (101, 99)


async def test_of_a_hundred_who_wait_for_a_place_exactly_one_looks(clock: Clock) -> None:
    providers, limits = Providers(Tolerance(failures=1), clock=clock), Limits(at_once=50)
    asked, refused, back = 0, 0, asyncio.Event()

    async def call() -> None:
        nonlocal asked, refused
        try:
            async with providers.asked(HOST, limits=limits):
                asked += 1
                await back.wait()
        except ProviderDown:
            refused += 1

    with pytest.raises(ProviderDown):
        async with providers.asked(HOST, limits=limits):
            raise NotDone("no connection")
    clock.now += 5
    callers = [asyncio.create_task(call()) for _ in range(100)]
    while refused < 99:
        await asyncio.sleep(0)
    assert asked == 1
    back.set()
    await asyncio.gather(*callers)


async def test_who_looks_and_is_cancelled_leaves_it_to_the_next(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += 5

    async def hangs() -> None:
        with breaker.call(says_away):
            await asyncio.Event().wait()

    probe = asyncio.create_task(hangs())
    await asyncio.sleep(0)
    with pytest.raises(ProviderDown):
        answers(breaker)
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    answers(breaker)
    assert not breaker.is_open


def test_who_looks_and_never_comes_back_does_not_shut_the_others_out_for_ever(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += 5
    lost = breaker.call(says_away)
    lost.__enter__()
    clock.now += 59
    with pytest.raises(ProviderDown):
        answers(breaker)
    clock.now += 1
    answers(breaker)
    assert not breaker.is_open
    lost.__exit__(None, None, None)


def test_what_a_call_says_that_began_before_it_opened_is_no_news(breaker: Breaker, clock: Clock) -> None:
    begun: list[Callable[..., object]] = []
    for _ in range(3):
        call = breaker.call(says_away)
        call.__enter__()
        begun.append(call.__exit__)
    opened(breaker)
    begun[0](None, None, None)
    assert breaker.is_open, "an old answer does not close it"
    clock.now += 4
    for leave in begun[1:]:
        error = NotDone("too slow")
        with pytest.raises(ProviderDown) as caught:
            leave(NotDone, error, None)
        assert caught.value.retry_after == 1.0, "nor does an old failure make it longer"


# What it lets through.


@pytest.mark.parametrize(
    "error", [Permanent("no such account"), Unusable("no JSON"), ValueError("a bug"), KeyError("another")]
)
def test_what_says_nothing_about_the_system_never_opens_it(breaker: Breaker, error: Exception) -> None:
    for _ in range(10):
        assert fails(breaker, error, type(error)) is error
    assert not breaker.is_open


def test_an_answer_between_failures_makes_them_forgotten(breaker: Breaker) -> None:
    for _ in range(5):
        fails(breaker)
        fails(breaker)
        answers(breaker)
    assert not breaker.is_open


def test_failures_of_long_ago_are_forgotten(breaker: Breaker, clock: Clock) -> None:
    for _ in range(10):
        fails(breaker)
        clock.now += 31
    assert not breaker.is_open


def test_when_the_system_is_back_it_begins_with_a_short_wait_again(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += 5
    opened(breaker, times=1)
    clock.now += 10
    answers(breaker)
    assert opened(breaker).retry_after == 5.0


async def test_one_part_of_a_system_may_be_down_while_the_others_are_not(clock: Clock) -> None:
    providers = Providers(Tolerance(failures=1), clock=clock)
    with pytest.raises(ProviderDown, match=r"^large at models\.example\.com is down: ") as caught:
        async with providers.asked("models.example.com", part="large"):
            raise NotDone("busy")
    assert caught.value.providers == ("large at models.example.com",)
    async with providers.asked("models.example.com", part="small"):
        pass


def _status(code: int) -> httpx.HTTPStatusError:
    request = httpx.Request("GET", "https://crm.example.com")
    return httpx.HTTPStatusError("x", request=request, response=httpx.Response(code, request=request))


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (NotDone("x"), True),
        (ToolError("x"), True),
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (httpx.ConnectError("x"), True),
        (httpx.ReadTimeout("x"), True),
        (_status(429), True),
        (_status(503), True),
        (_status(404), False),
        (_status(401), False),
        (Permanent("x"), False),
        (Unusable("x"), False),
        (ValueError("x"), False),
    ],
)
def test_which_errors_say_that_a_system_is_away(error: Exception, away: bool) -> None:
    assert says_away(error) is away
