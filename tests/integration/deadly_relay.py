"""
A relay whose decoder kills the process at one payload, as a fault in a C library would: the file to run.

Arguments: the database's URL and a file that takes the ids of what is published, in order.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from outbox_relay.compression import inflate
from outbox_relay.relay import careful, wire
from outbox_relay.relay.options import RelayOptions
from outbox_relay.relay.producer import EventProducer, SystemClock
from outbox_relay.store import DatabaseOptions, open_store
from outbox_relay.testing import RecordingBroker, Watcher

DEADLY = b"deadly"


def deadly_inflate(stored: bytes, *, max_bytes: int) -> bytes:
    """As `inflate`, but for one payload."""
    payload = inflate(stored, max_bytes=max_bytes)
    if payload == DEADLY:
        os.kill(os.getpid(), signal.SIGKILL)
    return payload


class Telling(Watcher):
    """Prints the names of what is logged."""

    def log(self, event: str, **fields: object) -> None:
        """Tell it."""
        print(event, flush=True)


class Writing(RecordingBroker):
    """Writes down what it acks."""

    async def publish(self, topic, partition, records):
        """See MessageBroker."""
        outcome = await super().publish(topic, partition, records)
        with Path(sys.argv[2]).open("a") as log:
            log.writelines([f"{int(record.seq)}\n" for record in records])
        return outcome


async def main() -> None:
    """Relay until nothing is left."""
    wire.native = None
    wire.inflate = deadly_inflate
    careful.PAUSE_SECONDS = 0.5
    producer = EventProducer(
        open_store(DatabaseOptions(url=sys.argv[1])),
        Writing(SystemClock(), {"orders": 2}, publish_deadline_seconds=0.5),
        options=RelayOptions(lease_seconds=1.5, standby_seconds=0.2, stop_seconds=2.0),
        publish_deadline_seconds=0.5,
        observer=Telling(),
    )
    await producer.run(until_empty=True)


if __name__ == "__main__":
    asyncio.run(main())
