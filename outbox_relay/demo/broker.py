"""
The embedded broker: librdkafka's mock cluster, in a process of its own so that it can be frozen.

``python -m outbox_relay.demo.broker TOPIC`` is one to try things with: it prints its address.

It speaks Kafka's protocol and has no disk. It keeps about 5 MiB of a partition and then drops the
oldest without a word: the demo stays far below that.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Final

from outbox_relay.demo.processes import Child

_START_SECONDS: Final = 10.0


class EmbeddedBroker(Child):
    """A broker with one topic of four partitions."""

    def __init__(self, topic: str, *, log: Path) -> None:
        super().__init__("broker", "-m", __name__, topic, log=log)
        self.bootstrap_servers = ""

    async def start(self) -> None:
        """Start it and learn its address."""
        await super().start()
        self.bootstrap_servers = (await self.read_line()).strip()
        if not self.bootstrap_servers:
            raise RuntimeError(f"the embedded broker did not start; see {self.log}")


def serve(topic: str) -> None:
    """Be the broker until killed: make *topic*, print the address, wait."""
    from confluent_kafka import Producer  # noqa: PLC0415 - only the broker's process needs it

    client = Producer({"test.mock.num.brokers": 1, "log_level": 4})
    # Asking for a topic makes the mock cluster create it.
    client.list_topics(topic, timeout=_START_SECONDS)
    brokers = client.list_topics(timeout=_START_SECONDS).brokers.values()
    sys.stdout.write(",".join(f"{broker.host}:{broker.port}" for broker in brokers) + "\n")
    sys.stdout.flush()
    while True:
        signal.pause()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("name one topic: python -m outbox_relay.demo.broker TOPIC")
    serve(sys.argv[1])
