"""
From an event to its row: what the class says, what the call says, and what is refused.
"""

from __future__ import annotations

import enum
import zlib
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import pydantic
import pytest

from outbox_relay import (
    DomainEvent,
    ECSTEvent,
    Event,
    EventTooLarge,
    InvalidKey,
    InvalidName,
    InvalidTopic,
    MissingKey,
    NotificationEvent,
    NotSerializable,
    Outbox,
    WriteError,
    ZlibCompressor,
)
from outbox_relay.schema import Codec


class OrderPlaced(NotificationEvent, name="order.placed", topic="orders", key="order_id"):
    order_id: int | None
    total: Decimal = Decimal("1.50")


class Unkeyed(ECSTEvent, topic="states", key=None):
    text: str = ""


class Undecided(NotificationEvent, topic="states"):
    text: str = ""


@dataclass
class Point:
    x: float
    y: float = 0.0


class Model(pydantic.BaseModel):
    x: int


SAID: dict[str, Any] = {"name": "said", "topic": "said", "key": "k"}


def row(event: Any, *, outbox: Outbox | None = None, **said: Any) -> dict[str, Any]:
    """The row that `insert` binds for *event*."""
    compiled = (outbox or Outbox(compressor=None)).insert(event, **said).compile()
    return dict(compiled.params)


def test_the_class_says_name_topic_and_key() -> None:
    """
    An event needs nothing from the call; its fields are its payload, its id is not.
    """
    event = OrderPlaced(order_id=7)

    assert row(event) == {
        "event_id": event.event_id,
        "event_name": "order.placed",
        "topic": "orders",
        "key": b"7",
        "headers": None,
        "content_type": "application/json",
        "payload": b'{"order_id":7,"total":"1.50"}',
        "codec": Codec.RAW,
    }


def test_the_call_overrides_the_class() -> None:
    """
    Each of name, topic, key and content type may be said for one call.
    """
    said = row(OrderPlaced(order_id=7), name="n", topic="t", key=None, content_type="a/b")

    assert (said["event_name"], said["topic"], said["key"], said["content_type"]) == (
        "n",
        "t",
        None,
        "a/b",
    )


def test_an_unflushed_id_is_not_a_missing_key_by_accident() -> None:
    """
    A named key that is None is refused with the event's name, unless the call says key=None.
    """
    event = OrderPlaced(order_id=None)
    with pytest.raises(MissingKey, match=rf"order\.placed.*{event.event_id}.*flush"):
        row(event)

    assert row(event, key=None)["key"] is None


def test_whether_there_is_a_key_must_be_said() -> None:
    """
    Nobody said: refused. Said on the class or in the call: fine.
    """
    with pytest.raises(MissingKey, match="key=None"):
        row(Undecided())

    assert row(Unkeyed())["key"] is None
    assert row(Undecided(), key="k")["key"] == b"k"


class Number(enum.IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    ("key", "stored"),
    [
        (b"\x00\xff", b"\x00\xff"),
        ("żółć", "żółć".encode()),
        (-42, b"-42"),
        (10**30, b"1" + b"0" * 30),
        (Number.ONE, b"1"),
        (UUID("01234567-89AB-CDEF-0123-456789ABCDEF"), b"01234567-89ab-cdef-0123-456789abcdef"),
        ("k" * 1024, b"k" * 1024),
        ("", b""),
    ],
)
def test_keys_are_encoded_as_documented(key: Any, stored: bytes) -> None:
    """
    Every writer, in any language, must find the same bytes.
    """
    assert row(Undecided(), key=key)["key"] == stored


@pytest.mark.parametrize(
    "key", [True, 1.5, Decimal(1), ("a",), object(), "k" * 1025, b"k" * 1025, "\ud800"]
)
def test_other_keys_are_refused(key: Any) -> None:
    """
    What has no agreed encoding, or does not fit, is no key.
    """
    with pytest.raises(InvalidKey, match="Undecided"):
        row(Undecided(), key=key)


def test_an_int_too_long_to_write_out_is_refused() -> None:
    """
    Python itself refuses to, with an error that names no event.
    """
    with pytest.raises(InvalidKey, match="Undecided"):
        row(Undecided(), key=10**5_000)


@pytest.mark.parametrize("topic", ["", ".", "..", "a b", "a/b", "ä", "a\n", "x" * 250])
def test_topics_that_kafka_refuses(topic: str) -> None:
    """
    Found here, not by the relay hours later.
    """
    with pytest.raises(InvalidTopic, match="Undecided"):
        row(Undecided(), key=None, topic=topic)


def test_the_longest_topic_fits() -> None:
    """
    249 characters of Kafka's alphabet.
    """
    assert row(Undecided(), key=None, topic="aZ9._-" + "x" * 243)["topic"].endswith("x")


class Homeless(NotificationEvent, key=None):
    pass


def test_a_topic_must_be_said_somewhere() -> None:
    """
    Neither class nor call: refused.
    """
    with pytest.raises(InvalidTopic, match=r"Homeless.*topic="):
        row(Homeless())


@pytest.mark.parametrize("name", ["", "  ", "n" * 256, "\ud800", 7])
def test_names_that_do_not_fit(name: Any) -> None:
    """
    Consumers dispatch on the name: it is there, and it fits the column.
    """
    with pytest.raises(InvalidName):
        row(Undecided(), key=None, name=name)


@pytest.mark.parametrize(
    ("payload", "stored", "content_type"),
    [
        ({"a": [1, None, "ü"]}, '{"a":[1,null,"ü"]}'.encode(), "application/json"),
        ([1, 2], b"[1,2]", "application/json"),
        (Point(1.5), b'{"x":1.5,"y":0.0}', "application/json"),
        (Model(x=1), b'{"x":1}', "application/json"),
        ({"d": Decimal("1.10")}, b'{"d":"1.10"}', "application/json"),
        ({"name": "NaN Infinity"}, b'{"name":"NaN Infinity"}', "application/json"),
        ("ü", "ü".encode(), "text/plain; charset=utf-8"),
        ("", b"", "text/plain; charset=utf-8"),
        (b"\x00\xff", b"\x00\xff", "application/octet-stream"),
    ],
)
def test_payloads(payload: Any, stored: bytes, content_type: str) -> None:
    """
    Models, dataclasses, dicts and lists become JSON; text and bytes stay as they are.
    """
    said = row(payload, **SAID)

    assert (said["payload"], said["content_type"], said["codec"]) == (stored, content_type, 0)


def test_none_is_a_tombstone() -> None:
    """
    No value at all, under a key.
    """
    said = row(None, **SAID)

    assert (said["payload"], said["codec"], said["key"]) == (b"", Codec.TOMBSTONE, b"k")


def test_a_tombstone_needs_a_key() -> None:
    """
    It deletes a key; without one it deletes nothing.
    """
    with pytest.raises(MissingKey, match="tombstone"):
        row(None, name="n", topic="t", key=None)


class Unserializable(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    thing: object


class Exploding(NotificationEvent, topic="t", key=None):
    x: int = 1

    @pydantic.field_serializer("x")
    def explode(self, x: int) -> int:
        raise KeyError(x)


def circular() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "payload",
    [
        {"x": float("nan")},
        [float("inf")],
        Point(float("-inf")),
        {"x": object()},
        {"x": b"\xff"},
        Unserializable(thing=object()),
        Exploding(),
        circular(),
        "\ud800",
        7,
        1.5,
        {1, 2},
        OrderPlaced,
        [OrderPlaced(order_id=1)],
    ],
)
def test_what_cannot_become_bytes(payload: Any) -> None:
    """
    Refused at the call, with the event's name.
    """
    with pytest.raises(NotSerializable, match="event 'said'"):
        row(payload, **SAID)


def test_other_payloads_need_a_name() -> None:
    """
    A dict has no class that could say it.
    """
    with pytest.raises(InvalidName, match=r'name="\.\.\."'):
        row({"a": 1}, topic="t", key=None)


class Checked(DomainEvent):
    x: int = 1


def test_a_domain_event_stays_in_its_process() -> None:
    """
    Outboxing one is a mistake in the design; the error says what to make of it.
    """
    with pytest.raises(WriteError, match=r"Checked.*NotificationEvent"):
        row(Checked(), topic="t", key=None)


@pytest.mark.parametrize("kind", [Event, NotificationEvent, ECSTEvent])
def test_an_event_without_a_class_of_its_own_is_refused(kind: type[Event]) -> None:
    """
    It holds none of what it was called with: its payload would be empty, and nobody would notice.
    """
    event = kind(event_name="MeetingRoomClosed", payload={"message": "foo"})  # type: ignore[call-arg]
    with pytest.raises(WriteError, match=rf"{kind.__name__} itself has no fields.*pass a dict"):
        row(event, name="meeting_room.closed", topic="t", key=None)


def test_an_event_of_no_kind_keeps_its_id() -> None:
    """
    A plain Event may be outboxed with everything said in the call.
    """

    class Plain(Event):
        x: int = 1

    event = Plain()

    assert row(event, **SAID)["event_id"] == event.event_id


def test_large_payloads_are_compressed_where_it_helps() -> None:
    """
    Above the threshold and only if smaller; the row's codec says which.
    """
    outbox = Outbox(compress_above_bytes=100)
    at_threshold = row("a" * 100, outbox=outbox, **SAID)
    above = row("a" * 101, outbox=outbox, **SAID)
    dense = zlib.compress(bytes(i * j % 251 for i in range(60) for j in range(60)))
    incompressible = row(dense, outbox=outbox, **SAID)

    assert (at_threshold["codec"], at_threshold["payload"]) == (Codec.RAW, b"a" * 100)
    assert above["codec"] == Codec.ZLIB
    assert ZlibCompressor().decompress(above["payload"]) == b"a" * 101
    assert (incompressible["codec"], incompressible["payload"]) == (Codec.RAW, dense)


def test_the_size_counts_uncompressed_payload_key_and_headers() -> None:
    """
    What Kafka will see counts, not what the table stores.
    """
    outbox = Outbox(max_event_bytes=1_000, headers={"n": "x" * 92})
    row("a" * 800, outbox=outbox, name="n", topic="t", key="k" * 100)
    with pytest.raises(EventTooLarge, match=r"1,001 bytes.*1,000"):
        row("a" * 801, outbox=outbox, name="n", topic="t", key="k" * 100)


def test_what_the_column_does_not_hold_is_refused() -> None:
    """
    Whatever max_event_bytes says, a payload above 16 MiB would be an error of the database.
    """
    outbox = Outbox(compressor=None, max_event_bytes=10**9, max_statement_bytes=10**9)
    with pytest.raises(EventTooLarge, match="table holds"):
        row(bytes(16 * 1024 * 1024), outbox=outbox, **SAID)
