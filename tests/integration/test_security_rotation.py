"""
Certificates that run out and are replaced while events are written: the relay says why it waits, and goes on.
"""

from __future__ import annotations

import asyncio
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from outbox_relay import Outbox
from outbox_relay.brokers.kafka import KafkaBroker
from outbox_relay.brokers.options import KafkaOptions
from outbox_relay.migrate import migrate
from outbox_relay.relay.options import RelayOptions
from outbox_relay.relay.ports import MessageBroker
from outbox_relay.relay.producer import EventProducer
from outbox_relay.schema import Status, tables
from outbox_relay.store import DatabaseOptions, open_store
from outbox_relay.testing import FakeClock, RecordingBroker, Watcher
from tests.integration import tokens
from tests.services.certificates import Authority, Certificate
from tests.services.database import Database
from tests.services.secure import SecureKafka

PATIENCE_SECONDS = 60


class Load:
    """An application that writes all the time, and the relay of its events."""

    def __init__(
        self,
        database: Database,
        options: DatabaseOptions,
        broker: MessageBroker,
        topic: str,
        watcher: Watcher | None = None,
    ):
        self._engine = sa.create_engine(database.sync_url)
        self._topic = topic
        self._stopped = asyncio.Event()
        self.written = 0
        self.watcher = watcher or Watcher()
        self.producer = EventProducer(
            open_store(options),
            broker,
            observer=self.watcher,
            publish_deadline_seconds=3,
            options=RelayOptions(lease_seconds=6, backoff_max_seconds=1),
        )

    def _write(self) -> None:
        with self._engine.begin() as connection:
            for key in ("a", "b"):
                event = {"n": self.written}
                Outbox().add(connection, event, name="e", topic=self._topic, key=key)
                self.written += 1

    async def write(self) -> None:
        while not self._stopped.is_set():
            await asyncio.to_thread(self._write)
            await asyncio.sleep(0.02)

    def stop(self) -> None:
        self._stopped.set()

    def statuses(self) -> dict[int, int]:
        outbox = tables().outbox
        with self._engine.connect() as connection:
            counted = sa.select(outbox.c.status, sa.func.count()).group_by(outbox.c.status)
            return dict(map(tuple, connection.execute(counted)))

    async def until(self, reached: Callable[[], bool], what: str) -> None:
        """Wait for *reached*, and fail with what was logged if it does not come."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not await asyncio.to_thread(reached):
            assert time.monotonic() < deadline, f"{what}: {self.watcher.events[-5:]}"
            await asyncio.sleep(0.05)

    async def until_said(self, text: str, since: int = 0) -> None:
        """Wait until an event after the first *since* says *text*."""
        await self.until(
            lambda: any(text in str(fields) for _, fields in self.watcher.events[since:]),
            f"not said: {text}",
        )

    async def until_relayed(self, more_than: int) -> None:
        await self.until(
            lambda: self.statuses().get(Status.PRODUCED, 0) > more_than, "nothing is relayed"
        )

    async def until_it_goes_on(self) -> None:
        """Wait until more is relayed than by now."""
        statuses = await asyncio.to_thread(self.statuses)
        await self.until_relayed(statuses.get(Status.PRODUCED, 0))

    def close(self) -> None:
        self._engine.dispose()


@asynccontextmanager
async def loaded(
    database: Database,
    options: DatabaseOptions,
    broker: MessageBroker,
    topic: str,
    watcher: Watcher | None = None,
) -> AsyncIterator[Load]:
    """A load during the block; at its end everything that was written is relayed."""
    load = Load(database, options, broker, topic, watcher)
    running = asyncio.create_task(load.producer.run())
    writing = asyncio.create_task(load.write())
    try:
        await load.until_relayed(0)
        yield load
        load.stop()
        await writing
        await load.until(
            lambda: load.statuses() == {Status.PRODUCED: load.written}, "rows are left"
        )
    finally:
        load.stop()
        writing.cancel()
        load.producer.stop()
        await asyncio.wait_for(running, 30)
        load.close()


def in_order(values: list[Any]) -> bool:
    """Whether the first occurrence of each comes in the order of writing."""
    seen = list(dict.fromkeys(values))
    return seen == sorted(seen)


@pytest.fixture
def its_certificate(secure_mariadb):
    yield
    secure_mariadb.show(secure_mariadb.certificate)


async def test_a_database_whose_certificate_ran_out_and_is_replaced(
    secure_mariadb, its_certificate, tmp_path: Path
) -> None:
    """
    I2, I8. The server shows an old certificate: the relay waits and says so. Then one of a new authority,
    and the file with the authorities is rotated: it goes on, without a restart or a lost event.
    """
    database = secure_mariadb.create_database()
    file = tmp_path / "ca.pem"
    file.write_text(secure_mariadb.authority.certificate.cert.read_text())
    user = f"u{uuid.uuid4().hex[:12]}"
    secure_mariadb.create_user(user, "its-password")
    url = database.async_url.replace("ob:ob@", f"{user}:its-password@")
    options = DatabaseOptions(url=url, ssl=True, ssl_ca_file=str(file))
    await asyncio.to_thread(migrate, options)
    broker = RecordingBroker(FakeClock(), {"orders": 1})
    expired = secure_mariadb.authority.sign_expired("expired")
    new = Authority(tmp_path / "new")
    async with loaded(database, options, broker, "orders") as load:
        await asyncio.to_thread(secure_mariadb.show, expired)
        await asyncio.to_thread(secure_mariadb.drop_connections, user)
        await load.until_said("certificate has expired")
        await asyncio.to_thread(secure_mariadb.show, new.sign("mariadb"))
        await load.until_said("unable to get local issuer certificate")
        file.write_text(file.read_text() + new.certificate.cert.read_text())
        await load.until_relayed(len(broker.published))

    assert "its-password" not in str(load.watcher.events)
    assert in_order(broker.seqs())
    assert len(set(broker.seqs())) == load.written


async def restart(kafka: SecureKafka) -> None:
    """Nobody's connection outlives it."""
    await asyncio.to_thread(kafka.stop)
    await asyncio.to_thread(kafka.start)


def numbers_on(kafka: SecureKafka, topic: str) -> list[int]:
    """What `Load` counted, as it came."""
    sent = [record.value for record in kafka.consume_all(topic)]
    return [int(value.split(b":")[1].strip(b" }")) for value in sent if value is not None]


async def test_certificates_of_broker_and_relay_that_ran_out_and_are_replaced(
    secure_kafka, topic_name, sqlite_database, tmp_path: Path
) -> None:
    """
    I2, I8. The same for Kafka: it is an outage, which costs no event an attempt, and no event dies of it.
    The relay that runs says what is wrong with which certificate.
    """
    secure_kafka.create_topic(topic_name)
    options = DatabaseOptions(url=sqlite_database.async_url)
    await asyncio.to_thread(migrate, options)
    file, cert, key = (tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem"))
    file.write_text(secure_kafka.authority.certificate.cert.read_text())

    def have(own: Certificate) -> None:
        shutil.copy(own.cert, cert)
        shutil.copy(own.key, key)

    have(secure_kafka.authority.sign("rotation-client"))
    login = KafkaOptions(
        bootstrap_servers=secure_kafka.server("SSL"),
        security_protocol="SSL",
        ssl_ca_file=str(file),
        ssl_cert_file=str(cert),
        ssl_key_file=str(key),
        publish_deadline_seconds=3,
        request_timeout_seconds=2,
    )
    watcher = Watcher()
    broker = KafkaBroker(login, observer=watcher)
    new = Authority(tmp_path / "new")
    shown = secure_kafka.authority.sign("kafka-again")
    try:
        async with loaded(sqlite_database, options, broker, topic_name, watcher) as load:
            for certificate, said in (
                (secure_kafka.authority.sign_expired("kafka-expired"), "certificate has expired"),
                (new.sign("kafka"), "unable to get local issuer certificate"),
            ):
                secure_kafka.show(certificate)
                await restart(secure_kafka)
                await load.until_said(said)
                assert load.statuses().get(Status.PENDING)
            file.write_text(file.read_text() + new.certificate.cert.read_text())
            await load.until_it_goes_on()

            have(secure_kafka.authority.sign_expired("client-expired"))
            await restart(secure_kafka)
            await load.until_said("kafka.ssl_cert_file", since=len(watcher.events))
            have(secure_kafka.authority.sign("client-again"))
            await load.until_it_goes_on()
            written = load.written
    finally:
        secure_kafka.show(shown)
        await restart(secure_kafka)
    numbers = numbers_on(secure_kafka, topic_name)

    assert len(set(numbers)) == load.written >= written
    assert in_order(numbers)


async def test_a_token_provider_that_fails_for_a_while(
    secure_kafka, topic_name, sqlite_database, monkeypatch
) -> None:
    """
    I2, I8. No token, or one that the broker refuses, is an outage too: the relay says so, and goes on with
    the first good one.
    """
    secure_kafka.create_topic(topic_name)
    options = DatabaseOptions(url=sqlite_database.async_url)
    await asyncio.to_thread(migrate, options)
    login = KafkaOptions(
        bootstrap_servers=secure_kafka.server("SASL_PLAINTEXT"),
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="OAUTHBEARER",
        oauth_token_provider="tests.integration.tokens:fetch_current",
        publish_deadline_seconds=3,
        request_timeout_seconds=2,
    )
    watcher = Watcher()
    broker = KafkaBroker(login, observer=watcher)
    async with loaded(sqlite_database, options, broker, topic_name, watcher) as load:
        for provider, said in (
            (tokens.explode, "raised RuntimeError"),
            (tokens.wrong, "refuses the token of kafka.oauth_token_provider"),
        ):
            monkeypatch.setattr(tokens, "current", provider)
            await restart(secure_kafka)
            await load.until_said(said)
            monkeypatch.setattr(tokens, "current", tokens.fetch)
            await load.until_it_goes_on()
    numbers = numbers_on(secure_kafka, topic_name)

    assert len(set(numbers)) == load.written
    assert in_order(numbers)
