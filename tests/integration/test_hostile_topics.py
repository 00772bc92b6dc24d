"""
Rows written by SQL, with names of topics that Kafka does not take, and rows of good topics beside them.
"""

from __future__ import annotations

import asyncio
import time

import pytest
import sqlalchemy as sa

from outbox_relay.brokers.kafka import KafkaBroker
from outbox_relay.brokers.options import KafkaOptions
from outbox_relay.brokers.topics import is_topic_name
from outbox_relay.errors import TopicUnavailable
from outbox_relay.migrate import migrate
from outbox_relay.relay.producer import EventProducer
from outbox_relay.schema import Status, tables
from outbox_relay.store import DatabaseOptions, open_store

NAMES = [
    "",
    ".",
    "..",
    "a/b",
    "ö",
    "a b",
    "\n",
    "'; DROP TABLE outbox; --",
    "x" * 250,
    "x" * 40_000,
]


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_that_no_topic_can_have_is_not_even_asked_for(name: str) -> None:
    """
    aiokafka asks for every topic that it was ever told of; one that is too long ends all its requests.
    """
    broker = KafkaBroker(KafkaOptions(bootstrap_servers="127.0.0.1:1"))
    with pytest.raises(TopicUnavailable) as raised:
        await broker.partitions(name)
    await broker.close(timeout_seconds=1)

    assert "is no name in Kafka: correct the event" in str(raised.value)
    assert len(str(raised.value)) < 200


def test_names_that_kafka_takes() -> None:
    """
    Letters, digits, dots, underscores and hyphens, up to 249 of them.
    """
    assert is_topic_name("a.B_c-9")
    assert is_topic_name("...")
    assert is_topic_name("x" * 249)


async def test_topics_that_cannot_be_hold_up_only_themselves(
    kafka, topic_name: str, sqlite_database
) -> None:
    """
    I7. SQLite bounds no text, so all of them can be there: good rows are relayed, theirs wait.
    """
    kafka.create_topic(topic_name)
    options = DatabaseOptions(url=sqlite_database.async_url)
    await asyncio.to_thread(migrate, options)
    engine = sa.create_engine(sqlite_database.sync_url)
    outbox = tables().outbox

    def insert(topic: str) -> None:
        with engine.begin() as connection:
            connection.execute(outbox.insert().values(event_name="e", topic=topic, payload=b"{}"))

    def statuses() -> dict[str, int]:
        with engine.connect() as connection:
            return dict(map(tuple, connection.execute(sa.select(outbox.c.topic, outbox.c.status))))

    for name in NAMES:
        insert(name)
    insert(topic_name)
    broker = KafkaBroker(KafkaOptions(bootstrap_servers=kafka.bootstrap_servers))
    producer = EventProducer(open_store(options), broker)
    running = asyncio.create_task(producer.run())
    deadline = time.monotonic() + 30
    while statuses()[topic_name] != Status.PRODUCED and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    producer.stop()
    await asyncio.wait_for(running, 30)
    found = statuses()
    engine.dispose()

    assert found == dict.fromkeys(NAMES, Status.PENDING) | {topic_name: Status.PRODUCED}
