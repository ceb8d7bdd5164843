"""Files of events: one, a batch, or a line each, however long the file; every item answers for itself."""

from __future__ import annotations

import io
import json
import random
from typing import Any

import pytest

from eventwright.app.commands.event_files import read_file
from eventwright.app.wire.strict_json import LIMIT, BadJSON, TooLarge
from eventwright.runs.event import Event


def event(name: object, **data: object) -> bytes:
    return json.dumps({"specversion": "1.0", "id": str(name), "source": "/test", "type": "t", "data": data}).encode()


def names(raw: bytes) -> list[str]:
    """The ids of the events, and `refused` for each that is none."""
    return [item.id if isinstance(item, Event) else "refused" for item in read_file(io.BytesIO(raw))]


@pytest.mark.parametrize("garbage", [b"", b"\x00\xff", b"{", b"[1,", b"<xml/>", b"\xef\xbb\xbf{}"])
def test_a_file_that_is_no_json_is_told_where_it_stops_being_json(garbage: bytes) -> None:
    with pytest.raises(BadJSON, match=r"\(at "):
        names(garbage)


def test_a_faulty_line_is_refused_by_itself() -> None:
    raw = b"\n".join([event(1), b"garbage", b'{"id": "x"}', b"", b"[]", event(2)])
    assert names(raw) == ["1", "refused", "refused", "2"]


def test_a_line_longer_than_a_request_may_be_is_refused_and_the_next_one_is_read() -> None:
    assert names(b"\n".join([event(1), event(2, text="x" * (LIMIT + 10)), event(3), event(4)])) == [
        "1",
        "refused",
        "3",
        "4",
    ]


@pytest.mark.parametrize("length", [LIMIT - 1, LIMIT, LIMIT + 1, 3 * LIMIT + 17])
def test_one_event_larger_than_a_request_may_be_is_refused_whole(length: int) -> None:
    raw = event(1, text="x" * length)
    with pytest.raises(TooLarge) as told:
        names(raw)
    assert told.value.size == len(raw)


def test_a_pretty_event_a_compact_one_and_a_batch_are_told_apart() -> None:
    pretty = json.dumps(json.loads(event(1)), indent=2).encode()
    assert names(pretty) == ["1"]
    assert names(event(1) + b"\n") == ["1"]
    assert names(b" [" + event(1) + b",\n" + event(2) + b"]") == ["1", "2"]


def test_a_file_of_lines_may_be_of_any_length() -> None:
    chance = random.Random(7)
    raw = b"\n".join(event(number, text="x" * chance.randrange(3000)) for number in range(3000))
    assert len(raw) > 2 * LIMIT
    assert names(raw) == [str(number) for number in range(3000)]


def test_each_event_of_a_file_says_what_became_of_it(shell: Any, json_lines: Any) -> None:
    order = {"type": "order.returned", "data": {"customer": "Ann", "amount": "8"}}
    said = shell(
        "send",
        "-",
        "--json",
        given=json_lines(
            order | {"id": "1"},
            order | {"id": "1"},
            order | {"id": "1", "data": {"customer": "Bob", "amount": "9"}},
            order | {"id": "2", "data": {}},
            {"id": "3", "type": "nobody.cares"},
            {"type": "has.no.id"},
        ),
    )
    assert said.code == 1
    stored, again, other, invalid, unwanted, faulty = said.json["events"]
    assert not stored["duplicate"]
    assert again["duplicate"]
    assert again["runs"] == stored["runs"]
    assert other["error"]["status"] == 409
    assert invalid["error"]["status"] == 422
    assert unwanted["runs"] == []
    assert "id" in faulty["error"]["detail"]

    refused = shell("events", "--state", "refused", "--json").json["items"]
    assert [item["id"] for item in refused] == ["2"]
    assert "customer" in shell("replay-event", refused[0]["uid"][-8:]).err


def test_an_event_can_be_written_on_the_command_line(shell: Any) -> None:
    first = shell.send("order.returned", {"customer": "Ann", "amount": "8"}, "--id", "mine", "--json").json
    again = shell.send("order.returned", {"customer": "Ann", "amount": "8"}, "--id", "mine")
    assert again.code == 0
    assert "duplicate" in again.out
    assert f"eventwright run {first['events'][0]['runs'][0]['id'][-8:]}" in again.out
