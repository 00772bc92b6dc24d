"""
What a Kafka client has to notice by itself: a log-in that ended, and brokers that are elsewhere.
"""

from __future__ import annotations

import asyncio

from outbox_relay.brokers.kafka import KafkaBroker
from outbox_relay.brokers.options import KafkaOptions
from outbox_relay.relay.outcomes import Acked
from outbox_relay.testing import Watcher
from tests.integration.test_kafka import records, until_acked
from tests.integration.test_security_kafka import PLAIN
from tests.services.kafka import Kafka
from tests.services.process import free_port
from tests.services.secure import SecureKafka

SESSION_SECONDS = 1.5


async def test_a_log_in_that_ends_begins_anew():
    """
    aiokafka does not log in again on an open connection (KIP-368): the broker closes it, and the next one
    logs in. Nothing is given up.
    """
    with SecureKafka(
        config={"connections.max.reauth.ms": f"{SESSION_SECONDS * 1000:.0f}"}
    ) as kafka:
        await asyncio.to_thread(kafka.create_topic, "orders")
        watcher = Watcher()
        made = KafkaBroker(
            KafkaOptions(
                bootstrap_servers=kafka.server("SASL_PLAINTEXT"),
                security_protocol="SASL_PLAINTEXT",
                publish_deadline_seconds=5,
                request_timeout_seconds=4,
                **PLAIN,
            ),
            observer=watcher,
        )
        await made.partitions("orders")
        first = await made.publish("orders", 0, records(b"first"))
        # As long as the broker lets the log-in live; its clock is no fake.
        await asyncio.sleep(SESSION_SECONDS * 1.5)
        then = await until_acked(made, "orders")
        await made.close(timeout_seconds=1)

        assert (first, then) == (Acked(), Acked())
        assert "broker_unavailable" not in watcher.names()
        assert next(iter(kafka.consume_all("orders"))).value == b"first"


async def test_brokers_that_all_moved_are_found_by_the_bootstrap_servers():
    """
    aiokafka asks only the brokers that it knows: a client that gets no metadata is given up, and the next
    one starts from `kafka.bootstrap_servers`.
    """
    with Kafka() as kafka:
        await asyncio.to_thread(kafka.create_topic, "orders")
        before, later = kafka.bootstrap_servers, free_port()
        made = KafkaBroker(
            KafkaOptions(
                bootstrap_servers=f"{before},127.0.0.1:{later}",
                publish_deadline_seconds=3,
                request_timeout_seconds=2,
            )
        )
        await made.partitions("orders")
        first = await made.publish("orders", 0, records(b"first"))
        await asyncio.to_thread(move, kafka, later)
        while not await made.probe():
            await asyncio.sleep(0.1)
        then = await until_acked(made, "orders")
        await made.close(timeout_seconds=1)

        assert kafka.bootstrap_servers != before
        assert (first, then) == (Acked(), Acked())


def move(kafka: Kafka, port: int) -> None:
    """The broker's data at another port."""
    kafka.stop()
    properties = kafka.folder / "server.properties"
    properties.write_text(properties.read_text().replace(f":{kafka.port}", f":{port}"))
    kafka.port = port
    kafka.start()
