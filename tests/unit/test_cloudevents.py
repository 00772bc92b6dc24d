"""
Events as JSON: CloudEvents in structured mode, and the lines of a file.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from outbox_relay.brokers.cloudevents import structured
from outbox_relay.brokers.jsonl import line_of
from outbox_relay.relay.envelope import NO_HEADERS
from outbox_relay.relay.ports import HeaderBlock, Record
from outbox_relay.testing import record as make_record


def record(
    value: bytes | None, *, key: bytes | None = b"k", kind: str = "application/json"
) -> Record:
    own = (("ce_source", b"/shop"), ("traceparent", b"00-4b"), ("X-Tenant", "ä".encode()))
    made = make_record(key, value, seq=7, headers=own)
    shared = HeaderBlock((*made.shared.headers, ("content-type", kind.encode())))
    return made._replace(shared=shared)


def test_an_event_is_one_object_of_the_json_format() -> None:
    """
    cloudevents/spec, json-format.md: names of lower-case letters and digits, data as JSON.
    """
    event = json.loads(structured(record(b'{"order_id":\r\n 1}')))

    assert event == {
        "specversion": "1.0",
        "id": "018f4e5a-1b2c-7d3e-8f40-112233445566",
        "type": "order.placed",
        "source": "/shop",
        "time": "2023-11-14T22:13:20.000000Z",
        "datacontenttype": "application/json",
        "outboxseq": "7",
        "partitionkey": "k",
        "traceparent": "00-4b",
        "xtenant": "ä",
        "data": {"order_id": 1},
    }


@pytest.mark.parametrize(
    ("value", "kind", "member"),
    [
        (b'{"n": 10000000000000000000001.10}', "application/json", None),
        (b'"caf\xc3\xa9"', "application/cloudevents+json; charset=utf-8", ("data", "café")),
        (b"null", "application/json", ("data", None)),
        (b"{not json", "application/json", ("data_base64", "e25vdCBqc29u")),
        (b"NaN", "application/json", ("data_base64", "TmFO")),
        (b"", "application/json", ("data_base64", "")),
        (b"line 1\nline 2", "text/plain", ("data", "line 1\nline 2")),
        (b"\xff\x00", "application/octet-stream", ("data_base64", "/wA=")),
        (None, "application/json", ()),
    ],
)
def test_a_payload_is_what_it_was(value: bytes | None, kind: str, member: Any) -> None:
    """
    JSON as it stands, to the last digit; else text; else base64. A tombstone has none.
    """
    made = structured(record(value, kind=kind))
    event = json.loads(made)
    found = [
        (name, event[name]) for name in event if name.startswith("data") and "type" not in name
    ]

    assert b"\n" not in made
    if member is None:
        assert b'"data":{"n": 10000000000000000000001.10}' in made
    else:
        assert found == ([member] if member else [])


@pytest.mark.parametrize(
    ("key", "members"),
    [
        (b"k", {"key": "k"}),
        (b"", {"key": ""}),
        (None, {"key": None}),
        (b"\xff", {"key_base64": "/w=="}),
    ],
)
def test_a_line_has_the_record_as_it_is(key: bytes | None, members: dict[str, Any]) -> None:
    """
    Topic, key, time and headers by their own names, and the value; exactly one line.
    """
    made = line_of("orders", record(b'{"a":\n1}', key=key))
    line = json.loads(made)

    assert made.count(b"\n") == 1
    assert made.endswith(b"\n")
    assert {name: line.get(name) for name in members} == members
    assert line["topic"] == "orders"
    assert line["timestamp"] == 1_700_000_000_000
    assert line["value"] == {"a": 1}
    assert line["headers"]["X-Tenant"] == "ä"
    assert line["headers"]["outbox-seq"] == "7"


def test_a_line_of_a_tombstone_has_a_null_and_binary_is_base64() -> None:
    """
    Neither is an empty payload.
    """
    lines = [json.loads(line_of("t", record(value, kind="x/y"))) for value in (None, b"\xff", b"")]

    assert [line.get("value", "absent") for line in lines] == [None, "absent", ""]
    assert lines[1]["value_base64"] == "/w=="


def test_an_event_without_headers_is_still_json() -> None:
    """
    With wire.headers = none there is no attribute at all; the payload is there as it is.
    """
    bare = record(b'{"a":1}', key=None)._replace(shared=NO_HEADERS, own=NO_HEADERS)

    assert json.loads(structured(bare)) == {"data": '{"a":1}'}


def test_no_header_stands_in_for_the_payload() -> None:
    """
    A tombstone with a header called data stays one.
    """
    dead = record(None)._replace(own=HeaderBlock((("data", b"x"),)))

    assert "data" not in json.loads(structured(dead))


def test_no_header_stands_in_for_an_attribute() -> None:
    """
    An event with a header called id keeps its own, by which consumers know it again.
    """
    own = HeaderBlock((("id", b"x"), ("Type", b"y"), ("outbox-seq", b"0")))
    found = record(b"{}")._replace(own=own)

    event = json.loads(structured(found))

    assert (event["id"], event["type"]) == (found.event_id.decode(), "order.placed")
    assert event["outboxseq"] == "7"
