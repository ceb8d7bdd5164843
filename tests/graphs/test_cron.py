"""When cron lines come due: refused ones first, then the days on which clocks are changed, then all the others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventwright.graphs.cron import BadCron, Cron

BERLIN = "Europe/Berlin"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def between(cron: Cron, after: str, until: str) -> list[str]:
    found = cron.ticks(after=utc(after), until=utc(until), most=1000)
    return [f"{tick:%d %H:%M}" for tick in found]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "five fields"),
        ("@daily", "five fields"),
        ("0 0 9 * * MON", "five fields"),
        ("61 * * * *", "bad minute"),
        ("0 9 * * FRI-MON", "bad day-of-week"),
        ("*/0 * * * *", "bad minute"),
        ("0 0 30 2 *", "bad day-of-month"),
        ("0 0 */20 * 1L", "no day fits it in the next fifty years"),
    ],
)
def test_a_line_that_never_comes_due_or_is_none_is_refused_with_what_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(BadCron, match=problem) as refused:
        Cron(text)
    assert refused.value.text == text


@pytest.mark.parametrize("zone", ["", "Berlin", "../etc/passwd", "Europe", "/etc/localtime", "a\0b"])
def test_a_zone_that_is_not_there_is_refused(zone: str) -> None:
    with pytest.raises(BadCron, match="no such time zone"):
        Cron("0 9 * * *", zone)


class TestWhenClocksAreSetForward:
    """In Berlin, on 29 March 2026, 02:00 is followed by 03:00, which is 01:00 UTC."""

    def test_a_time_that_is_skipped_comes_once_when_the_clock_has_been_set(self) -> None:
        assert between(Cron("30 2 * * *", BERLIN), "2026-03-27T12:00", "2026-03-30T12:00") == [
            "28 01:30",
            "29 01:00",
            "30 00:30",
        ]

    def test_several_times_that_are_skipped_come_once_together(self) -> None:
        assert between(Cron("0,30 2,3 * * *", BERLIN), "2026-03-28T12:00", "2026-03-29T12:00") == [
            "29 01:00",
            "29 01:30",
        ]

    def test_what_goes_by_the_time_that_passes_leaves_nothing_out(self) -> None:
        assert between(Cron("*/30 * * * *", BERLIN), "2026-03-29T00:00", "2026-03-29T02:00") == [
            "29 00:30",
            "29 01:00",
            "29 01:30",
            "29 02:00",
        ]


class TestWhenClocksAreSetBack:
    """In Berlin, on 25 October 2026, the hour from 02:00 comes twice: at 00:00 and at 01:00 UTC."""

    def test_a_time_that_comes_twice_counts_the_first_time(self) -> None:
        assert between(Cron("30 2 * * *", BERLIN), "2026-10-24T12:00", "2026-10-26T12:00") == ["25 00:30", "26 01:30"]

    def test_whoever_looks_in_the_second_hour_finds_the_tick_of_the_first_and_no_other(self) -> None:
        cron = Cron("30 2 * * *", BERLIN)
        assert between(cron, "2026-10-24T12:00", "2026-10-25T01:10") == ["25 00:30"]
        assert cron.next_after(utc("2026-10-25T01:10")) == utc("2026-10-26T01:30")

    def test_what_goes_by_the_time_that_passes_comes_in_both_hours(self) -> None:
        assert between(Cron("0 * * * *", BERLIN), "2026-10-24T23:30", "2026-10-25T02:30") == [
            "25 00:00",
            "25 01:00",
            "25 02:00",
        ]


def test_a_line_is_meant_in_its_zone() -> None:
    assert Cron("0 9 * * MON-FRI", BERLIN).next_after(utc("2026-07-03T07:00")) == utc("2026-07-06T07:00")
    assert Cron("0 9 * * MON-FRI", "UTC").next_after(utc("2026-07-03T07:00")) == utc("2026-07-03T09:00")


def test_of_many_ticks_the_newest_are_given_oldest_first() -> None:
    found = Cron("* * * * *").ticks(after=utc("2020-01-01"), until=utc("2026-01-01T00:00:30"), most=2)
    assert found == [utc("2025-12-31T23:59"), utc("2026-01-01T00:00")]


def test_a_line_is_told_in_english() -> None:
    assert Cron("0 9 * * MON-FRI", BERLIN).words() == "At 09:00 on Monday through Friday"


LINES = ["30 2 * * *", "0,30 1,2,3 * * *", "*/20 * * * *", "15 */2 * * *", "0 0 * * *", "59 23 L * *", "0 12 * * MON#1"]
ZONES = ["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Kathmandu"]


@settings(max_examples=150)
@given(
    st.sampled_from(LINES),
    st.sampled_from(ZONES),
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001 - given there
    st.timedeltas(timedelta(0), timedelta(days=40)),
    st.integers(1, 5),
)
def test_looking_back_finds_what_going_forward_does(
    line: str, zone: str, after: datetime, span: timedelta, most: int
) -> None:
    """From any moment on, across any change of clocks: the same ticks, rising, and each at a time that exists."""
    cron, forward, tick = Cron(line, zone), [], after
    while (tick := cron.next_after(tick) or datetime.max.replace(tzinfo=UTC)) <= after + span:
        forward.append(tick)
    assert cron.ticks(after=after, until=after + span, most=most) == forward[-most:]
    assert forward == sorted(set(forward))
    assert all(tick.astimezone(ZoneInfo(zone)).astimezone(UTC) == tick for tick in forward)
