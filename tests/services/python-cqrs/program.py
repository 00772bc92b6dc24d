"""
python-cqrs at work, in its own virtual environment: makes its table, writes, relays.

Its argument, JSON, names the steps; its last line of output is the answer. Knows 0.0.15, 1.0.0, 4.9 and 5.3.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
import sys
import uuid
from importlib.metadata import version

import cqrs
from cqrs.adapters.kafka import kafka_producer_factory
from cqrs.compressors.zlib import ZlibCompressor
from cqrs.message_brokers.kafka import KafkaMessageBroker
from cqrs.outbox.sqlalchemy import Base, SqlAlchemyOutboxedEventRepository
from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

RELEASE = version("python-cqrs")
IS_SEED = RELEASE.startswith("0.0.")
"""Its relay knows the topics; events and rows name none."""
IS_OLD = RELEASE.startswith(("0.", "1."))
"""Its repository makes the sessions; the class of an event says its type."""
LARGEST_BATCH = 10_000


def event(told):
    """An event, with its identity and time where they are told."""
    given = {"event_name": told["name"], "payload": told["payload"]}
    if "id" in told:
        given["event_id"] = uuid.UUID(told["id"])
    if "at" in told:
        given["event_timestamp"] = datetime.datetime.fromisoformat(told["at"])
    if not IS_SEED:
        given["topic"] = told["topic"]
    if IS_OLD:
        kind = cqrs.ECSTEvent if told.get("kind") == "ecst" else cqrs.NotificationEvent
        return kind(**given)
    return kind_of(told)(**given)


def kind_of(told):
    """Its event classes are generic, and registered by name."""
    if told.get("kind") == "pydantic":
        return cqrs.PydanticNotificationEvent[dict]
    return cqrs.NotificationEvent[dict]


def register(names):
    """Since 2.0 an event must be known by name, to whoever writes and to whoever relays."""
    if IS_OLD:
        return
    for name, kind in names.items():
        cqrs.OutboxedEventMap.register(name, kind_of({"kind": kind}))


def compressor(told):
    """As an application chooses."""
    return ZlibCompressor() if told.get("zlib") else None


async def create(engine):
    """Its table, by its own metadata."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)


async def write(sessions, told):
    """Events of one transaction, committed or rolled back."""
    end = "rollback" if told.get("rollback") else "commit"
    if IS_OLD:
        repository = SqlAlchemyOutboxedEventRepository(sessions, compressor(told))
        async with repository as session:
            for one in told["events"]:
                repository.add(session, event(one))
                await session.flush()
            await getattr(repository, end)(session)
        return
    async with sessions() as session:
        repository = SqlAlchemyOutboxedEventRepository(session, compressor(told))
        for one in told["events"]:
            repository.add(event(one))
            await session.flush()
        await getattr(repository, end)()


class Refusing:
    """A broker that is away."""

    async def send_message(self, message):
        raise ConnectionError("no broker")


def broker(told):
    """Its Kafka, or none."""
    if not told.get("bootstrap"):
        return Refusing(), None
    topics = {"topics": [told["topic"]]} if IS_SEED else {}
    kafka = kafka_producer_factory(dsn=told["bootstrap"], **topics)
    return KafkaMessageBroker(kafka), kafka


async def relay(sessions, told):
    """As many batches as told, as its documents show; with a pause after each, if told."""
    to, kafka = broker(told)
    batches, size = told.get("batches", 1), told.get("size", LARGEST_BATCH)
    if IS_OLD:
        repository = SqlAlchemyOutboxedEventRepository(sessions, compressor(told))
        producer = cqrs.EventProducer(to, repository)
        for _ in range(batches):
            await producer.produce_batch(size)
    else:
        async with sessions() as session:
            repository = SqlAlchemyOutboxedEventRepository(session, compressor(told))
            producer = cqrs.EventProducer(to, repository)
            for _ in range(batches):
                for one in await repository.get_many(size):
                    await producer.send_message(one)
                await repository.commit()
                await asyncio.sleep(told.get("pause", 0))
    if kafka is not None:
        await kafka._producer.stop()  # it has no public way to close


async def main(told):
    """The steps that are told, one after another."""
    logging.disable(logging.CRITICAL)
    register(told.get("register", {}))
    engine = create_async_engine(told["url"])
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    for step in told["steps"]:
        match step["do"]:
            case "create":
                await create(engine)
            case "sql":
                async with engine.begin() as connection:
                    await connection.execute(text(step["sql"]))
            case "write":
                await write(sessions, told | step)
            case "relay":
                await relay(sessions, told | step)
    await engine.dispose()
    print(json.dumps({"release": RELEASE}))


asyncio.run(main(json.loads(sys.argv[1])))
