"""
A consuming service in a process of its own, for tests that kill it; and three that are wrong.

    python -m tests.integration.consuming_service BROKERS TOPIC DATABASE_URL [WRONG] [CRASH_AT]

Each handled record is a row in ``effects``. Prints "handled N" per call of the handler.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from outbox_relay.consumer import ConsumedRecord, EventConsumer, Inbox, KafkaSource
from outbox_relay.consumer import kafka as kafka_source

METADATA = sa.MetaData()
EFFECTS = sa.Table(
    "effects",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
)
inbox = Inbox("billing")


class OffsetFirst(kafka_source._Worker):
    """Wrong: commits the offset, then handles."""

    async def _handle(self, message: Any) -> bool:
        self.done_offset = message.offset + 1
        await self._session._commit()
        return await super()._handle(message)


class DeadLetterLater(KafkaSource):
    """Wrong: lets the offset move on, and publishes the dead letter some time afterwards."""

    async def dead_letter(self, delivery: Any, headers: list[tuple[str, bytes]]) -> None:
        async def later() -> None:
            await asyncio.sleep(3600)

        self.later = asyncio.ensure_future(later())


def source(brokers: str, topic: str, kind: type[KafkaSource] = KafkaSource) -> KafkaSource:
    """The topic, in a group of its own; a killed member's place is taken over at once."""
    return kind(
        topic,
        bootstrap_servers=brokers,
        group=f"{topic}-billing",
        dead_letter_topic=f"{topic}-dead",
        commit_seconds=0.2,
        fetch={"group_instance_id": "billing-1", "fetch_max_wait_ms": 50},
    )


async def serve(brokers: str, topic: str, url: str, wrong: str = "", crash_at: str = "") -> None:
    """Consume until SIGTERM."""
    engine = create_async_engine(url)
    sessions = async_sessionmaker(engine)

    async def handle(record: ConsumedRecord) -> None:
        number = record.payload["number"]
        print(f"handled {number}", flush=True)
        async with sessions.begin() as session:
            if not await first_time(session, record):
                return
            if crash_at == str(number):
                os._exit(9)
            await session.execute(sa.insert(EFFECTS).values(number=number))

    async def first_time(session: AsyncSession, record: ConsumedRecord) -> bool:
        if wrong == "other_transaction":
            async with sessions.begin() as another:
                return await inbox.first_time(another, record)
        return await inbox.first_time(session, record)

    if wrong == "offset_first":
        kafka_source._Worker = OffsetFirst  # type: ignore[misc]
    await EventConsumer(source(brokers, topic), handle, stop_seconds=5).run()
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
