"""
What an inbox does with events that are published again on purpose, on each database.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from outbox_relay import uuid7
from outbox_relay.consumer import ConsumedRecord, Delivery, Envelope, Inbox
from outbox_relay.operations import EventFilter
from outbox_relay.operations.replay_state import ReplayOrder

ORIGINALS = [uuid7() for _ in range(3)]


@pytest.fixture(params=("mariadb", "mysql", "postgresql", "sqlite"))
def engine(request: pytest.FixtureRequest) -> Iterator[sa.Engine]:
    made = sa.create_engine(request.getfixturevalue(f"{request.param}_database").sync_url)
    yield made
    made.dispose()


def record(number: int, order: ReplayOrder | None = None) -> ConsumedRecord:
    """The event of a key, the first time, or as *order* publishes it again."""
    original = ORIGINALS[number]
    return ConsumedRecord(
        delivery=Delivery(topic="orders", key=b"k"),
        envelope=Envelope.CLOUDEVENTS_BINARY,
        event_id=order.event_id(original) if order else original,
        sequence=number + 1,
        replay_of=str(original) if order else None,
    )


def handled(engine: sa.Engine, inbox: Inbox, *records: ConsumedRecord) -> list[int]:
    """The numbers of those that are handled."""
    found = []
    for one in records:
        with engine.begin() as connection:
            if inbox.first_time(connection, one):
                found.append((one.sequence or 0) - 1)
    return found


@pytest.mark.parametrize("reject_stale", [False, True])
def test_a_replay_reaches_who_has_not_handled_it(engine: sa.Engine, reject_stale: bool) -> None:
    """
    With their old ids: what was handled is dropped, what was lost is handled.
    """
    inbox = Inbox("billing", reject_stale=reject_stale)
    inbox.create(engine)
    again = ReplayOrder(which=EventFilter())

    assert handled(engine, inbox, record(0), record(1)) == [0, 1]
    assert handled(engine, inbox, *[record(n, again) for n in range(3)]) == [2]


def test_as_new_all_are_handled_once_more(engine: sa.Engine) -> None:
    """
    Once: what a replay that went on repeats has the same new id. Another replay is handled again.
    """
    inbox = Inbox("billing")
    inbox.create(engine)
    new, another = [ReplayOrder(which=EventFilter(), as_new=True) for _ in range(2)]

    assert handled(engine, inbox, *map(record, range(3))) == [0, 1, 2]
    assert handled(engine, inbox, *[record(n, new) for n in (0, 1, 1, 2)]) == [0, 1, 2]
    assert handled(engine, inbox, *[record(n, another) for n in range(3)]) == [0, 1, 2]


def test_as_new_the_latest_state_is_handled_once_more(engine: sa.Engine) -> None:
    """
    With reject_stale older states stay out, so that a replay beside live traffic cannot bring one back.
    """
    inbox = Inbox("billing", reject_stale=True)
    inbox.create(engine)
    new = ReplayOrder(which=EventFilter(), as_new=True)

    assert handled(engine, inbox, record(0), record(1)) == [0, 1]
    assert handled(engine, inbox, record(0, new), record(1, new), record(1, new)) == [1]
    assert handled(engine, inbox, record(2)) == [2]
    another: Any = ReplayOrder(which=EventFilter(), as_new=True)
    assert handled(engine, inbox, *[record(n, another) for n in range(3)]) == [2]


def test_an_id_of_another_form(engine: sa.Engine) -> None:
    """
    replay-of may hold what no UUID is; it is the same event all the same.
    """
    inbox = Inbox("billing", reject_stale=True)
    inbox.create(engine)
    first = ConsumedRecord(
        delivery=Delivery(topic="orders", key=b"k"),
        envelope=Envelope.CLOUDEVENTS_BINARY,
        event_id=uuid.uuid4(),
        sequence=1,
        replay_of="order 7",
    )

    assert handled(engine, inbox, first) == [0]
    assert handled(engine, inbox, first) == []
