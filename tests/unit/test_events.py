"""
Event classes: what they say of themselves, and the identity of each occurrence.
"""

from __future__ import annotations

import copy
import pickle
import threading
import time

import pydantic
import pytest

from outbox_relay import UNSET, ECSTEvent, NotificationEvent, uuid7
from outbox_relay.events import OutboxedEvent


class Base(NotificationEvent, topic="orders", key="order_id"):
    order_id: int


class Placed(Base, name="order.placed"):
    total: int = 0


class Archived(Placed, topic="archive", key=None):
    pass


class Bare(ECSTEvent):
    x: int = 1


def test_class_arguments_are_inherited_one_by_one() -> None:
    """
    A subclass changes what it names and keeps the rest; the name is each class's own.
    """
    said = [(c.event_name, c.event_topic, c.event_key) for c in (Base, Placed, Archived, Bare)]

    assert said == [
        ("Base", "orders", "order_id"),
        ("order.placed", "orders", "order_id"),
        ("Archived", "archive", None),
        ("Bare", None, UNSET),
    ]


def test_a_key_must_be_a_field() -> None:
    """
    A misspelt key is found when the class is made.
    """
    with pytest.raises(TypeError, match=r"'order' is not a field.*order_id"):

        class Wrong(Base, key="order"):
            pass


def test_events_are_facts() -> None:
    """
    Immutable, and equal if they say the same.
    """
    event = Bare()
    with pytest.raises(pydantic.ValidationError):
        event.x = 2  # type: ignore[misc]

    assert event == event.model_copy()


def test_the_id_stays_with_the_occurrence() -> None:
    """
    Copies, pickles and repeated reads have the same id; two occurrences have two. The payload
    has none.
    """
    event = Bare()
    copies = [event, copy.deepcopy(event), event.model_copy(), pickle.loads(pickle.dumps(event))]

    assert {e.event_id for e in copies} == {event.event_id}
    assert Bare().event_id != event.event_id
    assert event.model_dump() == {"x": 1}


def test_ids_are_uuid_v7_and_ascend() -> None:
    """
    RFC 9562: version 7, variant 2, the first 48 bits are the Unix time in milliseconds.
    """
    before = time.time_ns() // 1_000_000
    ids = [uuid7() for _ in range(10_000)]
    after = time.time_ns() // 1_000_000

    assert ids == sorted(set(ids))
    assert {(i.version, i.variant) for i in ids} == {(7, "specified in RFC 4122")}
    assert before <= ids[0].int >> 80 <= ids[-1].int >> 80 <= after


def test_ids_are_unique_across_threads() -> None:
    """
    Many threads share one clock.
    """
    ids: list[object] = []
    threads = [
        threading.Thread(target=lambda: ids.extend([uuid7() for _ in range(2_000)]))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(ids)) == 16_000


def test_an_outboxed_event_is_its_row() -> None:
    """
    One value for each column that the writer fills in.
    """
    event = OutboxedEvent(
        event_id=uuid7(),
        event_name="n",
        topic="t",
        key=None,
        headers=None,
        content_type="text/plain",
        payload=b"",
        codec=0,
    )

    assert list(event.values()) == [
        "event_id",
        "event_name",
        "topic",
        "key",
        "headers",
        "content_type",
        "payload",
        "codec",
    ]
