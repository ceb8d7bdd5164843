"""CloudEvents over HTTP: the content type says how to read a request, and no event comes in without its own name."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from eventwright.app.wire.envelopes import BATCH, MOST, STRUCTURED, read_events, to_structured
from eventwright.app.wire.problems import Problem, Refused
from eventwright.app.wire.strict_json import LIMIT, BadJSON, TooLarge
from eventwright.runs.event import Event

ENVELOPE: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "ticket.created"}
HEADERS = {"Content-Type": "application/json"} | {f"ce-{name}": value for name, value in ENVELOPE.items()}


def structured(*, content_type: str = STRUCTURED, **attributes: Any) -> Event | Problem:
    delivery = read_events({"Content-Type": content_type}, json.dumps(ENVELOPE | attributes).encode())
    assert not delivery.batch
    (item,) = delivery.items
    return item


def binary(body: bytes = b"{}", **headers: str) -> Event | Problem:
    (item,) = read_events(HEADERS | {name.replace("_", "-"): value for name, value in headers.items()}, body).items
    return item


def event(item: Event | Problem) -> Event:
    assert isinstance(item, Event), item
    return item


def problem(item: Event | Problem) -> Problem:
    assert isinstance(item, Problem), item
    return item


def refusal(headers: dict[str, str], body: bytes = b"{}") -> Problem:
    with pytest.raises(Refused) as caught:
        read_events(headers, body)
    return caught.value.problem


@pytest.mark.parametrize("name", ["specversion", "id", "source", "type"])
def test_an_event_without_a_required_attribute_is_refused_and_none_is_invented(name: str):
    body = {key: value for key, value in ENVELOPE.items() if key != name}
    (item,) = read_events({"content-type": STRUCTURED}, json.dumps(body).encode()).items
    assert problem(item).extensions == {"errors": [{"attribute": name, "detail": "is missing"}]}
    (item,) = read_events({key: value for key, value in HEADERS.items() if key != f"ce-{name}"}, b"{}").items
    assert problem(item).extensions == {"errors": [{"attribute": name, "detail": "is missing"}]}


@pytest.mark.parametrize("name", ["id", "source", "type", "subject"])
@pytest.mark.parametrize("value", ["", "  ", 7, True, ["a"], {"a": 1}, "x" * 513, "a\nb", "a\x7fb", "a\u0085b"])
def test_an_attribute_that_could_not_name_anything_is_refused(name: str, value: Any):
    refused = problem(structured(**{name: value}))
    assert refused.status == 400
    assert [error["attribute"] for error in refused.extensions["errors"]] == [name]


def test_all_faults_of_an_event_are_told_at_once():
    refused = problem(structured(id="", specversion="0.3", time="noon"))
    assert {error["attribute"] for error in refused.extensions["errors"]} == {"id", "specversion", "time"}


@pytest.mark.parametrize("source", ["my shop", "/büro", "/a%zz", "<script>", 'a"b'])
def test_a_source_that_is_no_uri_reference_is_refused(source: str):
    assert "URI reference" in (problem(structured(source=source)).detail or "")


@pytest.mark.parametrize(
    "source", ["/shop", "https://example.com/crm?x=1#2", "urn:uuid:6e8bc430", "shop", "/b%C3%BCro"]
)
def test_a_source_that_is_a_uri_reference_is_kept_as_it_came(source: str):
    assert event(structured(source=source)).source == source


@pytest.mark.parametrize(
    "time",
    [
        "noon",
        "2026-01-31",
        "2026-01-31T09:30:00",
        "20260131T093000Z",
        "2026-W05-6",
        "2026-02-30T00:00:00Z",
        "",
        1769851800,
        "2026-01-31T24:30:00Z",
        "0001-01-01T00:00:00+14:00",
        "2026-01-31 09:30:00Z",
        "\u0662026-01-31T09:30:00Z",
    ],
)
def test_a_time_that_is_not_one_moment_is_refused(time: Any):
    assert [error["attribute"] for error in problem(structured(time=time)).extensions["errors"]] == ["time"]


@pytest.mark.parametrize("time", ["2026-01-31T09:30:00Z", "2026-01-31t15:00:00.000+05:30", "2026-01-31T09:30:00z"])
def test_a_time_is_read_in_utc(time: str):
    read = event(structured(time=time)).time
    assert read == datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
    assert read.utcoffset() == timedelta(0)


def test_the_payload_version_is_1_when_nobody_says():
    assert event(structured()).version == "1"
    assert event(structured(payloadversion="2026-01")).version == "2026-01"
    assert event(structured(payloadversion=2)).version == "2"
    assert event(binary(ce_payloadversion="3")).version == "3"


@pytest.mark.parametrize("version", ["", True, 1.5, [1]])
def test_a_payload_version_that_is_none_is_refused(version: Any):
    assert problem(structured(payloadversion=version)).status == 400


def test_other_attributes_are_kept_as_text():
    item = event(structured(tenantid="acme", retries=3, urgent=True, dataschema="/v1", tracestate="", gone=None))
    assert item.extensions == {
        "tenantid": "acme",
        "retries": "3",
        "urgent": "true",
        "dataschema": "/v1",
        "tracestate": "",
    }


@pytest.mark.parametrize("name", ["Tenant", "tenant_id", "tenant\n", "", "t" * 65])
def test_an_attribute_by_a_name_that_cloudevents_does_not_know_is_refused(name: str):
    assert "no name for an attribute" in (problem(structured(**{name: "a"})).detail or "")


@pytest.mark.parametrize("value", [["a"], {"a": 1}, 1.5, "a\x00b", "x" * 513])
def test_an_extension_that_is_not_short_text_is_refused(value: Any):
    assert problem(structured(tenantid=value)).status == 400


def test_data_may_be_any_json_or_absent():
    for data in ({"a": [1, None]}, [1], "text", 1.5, False, None):
        assert event(structured(data=data)).data == data
        assert event(binary(json.dumps(data).encode())).data == data
    assert event(structured()).data is None
    assert event(binary(b"")).data is None


def test_data_that_is_not_json_is_refused_with_the_way_out():
    assert "by reference" in (problem(structured(data_base64="AAEC")).detail or "")
    for kind in ("text/plain", "application/xml", 7):
        assert problem(structured(datacontenttype=kind, data="x")).status == 415
    assert event(structured(datacontenttype="Application/Vnd.Acme+JSON; charset=utf-8", data=1)).data == 1


def test_an_event_that_is_no_object_is_refused():
    (item,) = read_events({"content-type": STRUCTURED}, b"[]").items
    assert "JSON object" in (problem(item).detail or "")


def test_a_body_that_is_not_json_is_refused_as_a_whole():
    for content_type in (STRUCTURED, BATCH, "application/json"):
        with pytest.raises(BadJSON):
            read_events(HEADERS | {"Content-Type": content_type}, b"{")


def test_a_body_over_the_limit_is_refused_in_every_mode():
    for content_type in (STRUCTURED, BATCH, "application/json"):
        with pytest.raises(TooLarge):
            read_events(HEADERS | {"Content-Type": content_type}, b" " * (LIMIT + 1))


def test_a_header_never_overrides_a_structured_body():
    headers = {"content-type": STRUCTURED, "ce-type": "payment.approved", "ce-id": "2", "ce-specversion": "1.0"}
    (item,) = read_events(headers, json.dumps(ENVELOPE).encode()).items
    assert (event(item).id, event(item).type, event(item).extensions) == ("1", "ticket.created", {})


@pytest.mark.parametrize(
    "content_type",
    [STRUCTURED.upper(), f"{STRUCTURED}; charset=utf-8", f'{STRUCTURED};Charset="UTF-8"', f" {STRUCTURED} ; x=y"],
)
def test_the_content_type_is_read_in_any_case_and_with_parameters(content_type: str):
    assert event(structured(content_type=content_type)).id == "1"


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/xml",
        "application/cloudevents+avro",
        "application/cloudevents",
        "multipart/form-data",
        "application/cloudevents-batch+avro",
        f"{STRUCTURED}; charset=utf-16",
        f"{STRUCTURED}, {BATCH}",
        "\ud800",
        "application/cloudevents-stream+json",
    ],
)
def test_a_content_type_that_is_not_json_in_utf_8_is_refused(content_type: str):
    assert refusal(HEADERS | {"Content-Type": content_type}).status == 415


def test_plain_json_without_ce_headers_is_told_the_right_content_type():
    (item,) = read_events({"content-type": "application/json"}, json.dumps(ENVELOPE).encode()).items
    assert problem(item).status == 415
    assert STRUCTURED in (problem(item).detail or "")


def test_a_body_without_a_content_type_is_refused():
    (item,) = read_events({k: v for k, v in HEADERS.items() if k != "Content-Type"}, b"{}").items
    assert problem(item).status == 415


@pytest.mark.parametrize("name", ["CE-ID", "Ce-Id", "content-type"])
def test_a_header_that_stands_twice_is_refused(name: str):
    assert name.lower() in (refusal(HEADERS | {name: "1"}).detail or "")


def test_header_values_are_percent_decoded():
    assert event(binary(ce_subject="B%C3%BCro%20%E2%82%AC")).subject == "Büro €"


@pytest.mark.parametrize("value", ["%ff", "%ED%A0%80", "Büro"])
def test_a_header_value_that_is_not_utf_8_is_refused_and_nothing_is_replaced(value: str):
    assert "percent-encoded" in (problem(binary(ce_subject=value)).detail or "")


def test_a_header_cannot_smuggle_data_or_control_characters():
    assert problem(binary(ce_data="x")).status == 400
    assert problem(binary(ce_id="a%00b")).status == 400
    assert problem(binary(ce_my_name="a")).status == 400


def test_in_a_batch_every_item_answers_for_itself():
    good = json.dumps(ENVELOPE | {"data": 1})
    bad = [
        '{"id": ""}',
        "7",
        good.replace('"data": 1', '"data": NaN'),
        good.replace('"data": 1', '"data": "\\u0000"'),
        good.replace('"data": 1', '"data": 1, "data": 2'),
    ]
    delivery = read_events({"content-type": BATCH}, f"[{','.join([good, *bad, good])}]".encode())
    assert delivery.batch
    assert [isinstance(item, Event) for item in delivery.items] == [True, *[False] * 5, True]
    assert "$[3].data" in (problem(delivery.items[3]).detail or "")


def test_a_batch_is_an_array_of_at_most_a_thousand():
    assert "array" in (refusal({"content-type": BATCH}, b"{}").detail or "")
    full = ",".join(["{}"] * MOST)
    assert len(read_events({"content-type": BATCH}, f"[{full}]".encode()).items) == MOST
    assert refusal({"content-type": BATCH}, f"[{full},{{}}]".encode()).status == 413
    assert read_events({"content-type": BATCH}, b"[]").items == ()


cloudevents = st.builds(
    lambda data, **attributes: CloudEvent(
        {"specversion": "1.0", "source": "/shop"} | {k: v for k, v in attributes.items() if v is not None}, data
    ),
    data=st.dictionaries(st.text(st.characters(codec="utf-8", categories=["L", "Zs"])), st.integers(-1000, 1000)),
    id=st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=40),
    type=st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=40),
    subject=st.none() | st.text(st.characters(codec="utf-8", categories=["L"]), min_size=1, max_size=40),
    time=st.datetimes(
        timezones=st.just(timezone(timedelta(hours=2))),
        min_value=datetime(2000, 1, 1),  # noqa: DTZ001 - Hypothesis wants bounds without a zone
    ),
    datacontenttype=st.just("application/json"),
    tenantid=st.none() | st.text("abc", min_size=1),
)


@given(cloudevents)
def test_what_the_cloudevents_library_writes_is_read_the_same_in_both_modes(written: CloudEvent):
    for message in (to_structured_event(written), to_binary_event(written)):
        (item,) = read_events(message.headers, message.body).items
        read = event(item)
        assert (read.id, read.source, read.type) == (written.get_id(), written.get_source(), written.get_type())
        assert (read.subject, read.time, read.data) == (written.get_subject(), written.get_time(), written.get_data())
        tenant = written.get_extension("tenantid")
        assert read.extensions == ({} if tenant is None else {"tenantid": tenant})


@given(
    st.dictionaries(
        st.sampled_from(["content-type", "ce-id", "ce-source", "ce-type", "ce-specversion", "ce-time"]),
        st.text() | st.sampled_from([STRUCTURED, BATCH, "application/json", "1.0", "%ff"]),
    ),
    st.binary() | st.sampled_from([b"[{}]", b"{}", b'[{"id": 1, "time": []}]', b'{"specversion": "1.0", "": {}}']),
)
def test_reading_raises_nothing_but_refusals(headers: dict[str, str], body: bytes):
    try:
        items = read_events(headers, body).items
    except (BadJSON, Refused):
        return
    for item in items:
        assert isinstance(item, Problem) or item.digest


def test_what_we_send_comes_in_as_the_same_event():
    sent = Event(
        id="1",
        source="/shop",
        type="ticket.created",
        data=[{"a": "€"}],
        subject="t/1",
        version="2",
        time=datetime(2026, 1, 31, 9, 30, tzinfo=timezone(timedelta(hours=1))),
        extensions={"tenantid": "acme"},
    )
    (item,) = read_events(*to_structured(sent)).items
    read = event(item)
    assert (read.id, read.source, read.time, read.digest) == (sent.id, sent.source, sent.time, sent.digest)
    assert read.extensions == sent.extensions


def test_what_we_send_the_cloudevents_library_reads():
    sent = Event(id="1", source="/shop", type="ticket.created", data={"a": 1})
    headers, body = to_structured(sent)
    read = from_structured_event(HTTPMessage(headers, body))
    assert (read.get_id(), read.get_data(), read.get_time()) == ("1", {"a": 1}, sent.received_at)
    assert read.get_extension("payloadversion") == "1"


@pytest.mark.parametrize("data", [float("nan"), 2**60, "\x00", {"a": object()}, {"\ud800": 1}])
def test_what_no_door_would_read_is_not_sent(data: Any):
    with pytest.raises(ValueError, match=r"2\*\*53|cannot be stored|not JSON|NaN"):
        to_structured(Event(id="1", source="/shop", type="t", data=data))


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": ""},
        {"source": "a b"},
        {"extensions": {"Data": "x"}},
        {"extensions": {"data": "x"}},
        {"time": datetime(2026, 1, 31)},  # noqa: DTZ001 - the missing zone is the fault
    ],
)
def test_an_event_without_a_proper_envelope_is_not_sent(wrong: dict[str, Any]):
    with pytest.raises(ValueError, match="cannot be sent"):
        to_structured(Event(**{"id": "1", "source": "/shop", "type": "t", "data": None} | wrong))
