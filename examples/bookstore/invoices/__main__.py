"""
The service's process: `python -m examples.bookstore.invoices`, until SIGTERM.

Settings: INVOICES_DATABASE_URL, INVOICES_BOOTSTRAP_SERVERS; INVOICES_SESSION_SECONDS (10), after which
a consumer that was killed loses its partitions.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import async_sessionmaker

from examples.bookstore.events import TOPIC
from examples.bookstore.invoices.service import CONSUMER, Base, Invoices
from examples.bookstore.models import create_engine
from outbox_relay.consumer import EventConsumer, KafkaSource

DEAD_LETTERS: Final = f"{TOPIC}.dead-letters"
_NEEDED: Final = ("INVOICES_DATABASE_URL", "INVOICES_BOOTSTRAP_SERVERS")


async def consume(database_url: str, bootstrap_servers: str, *, session_seconds: float) -> None:
    """Make the tables that are missing, and consume until SIGTERM."""
    engine = create_engine(database_url)
    invoices = Invoices(async_sessionmaker(engine))
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await invoices.inbox.create(engine)
    milliseconds = int(session_seconds * 1000)
    source = KafkaSource(
        TOPIC,
        bootstrap_servers=bootstrap_servers,
        group=CONSUMER,
        dead_letter_topic=DEAD_LETTERS,
        fetch={"session_timeout_ms": milliseconds, "heartbeat_interval_ms": milliseconds // 4},
    )
    try:
        # The store's other events are none of this service's business: they are skipped.
        await EventConsumer(source, {"book.sold": invoices.book_sold}).run()
    finally:
        await engine.dispose()


def main() -> int:
    """0 after SIGTERM, 2 if a setting is missing."""
    missing = [name for name in _NEEDED if not os.environ.get(name)]
    if missing:
        sys.stderr.write(f"{', '.join(missing)} is not set; see examples/bookstore/README.md\n")
        return 2
    # Standard output is for the invoices.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    database_url, bootstrap_servers = (os.environ[name] for name in _NEEDED)
    session_seconds = float(os.environ.get("INVOICES_SESSION_SECONDS", "10"))
    asyncio.run(consume(database_url, bootstrap_servers, session_seconds=session_seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
