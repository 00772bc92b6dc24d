"""
A consumer in a process of its own, which notes when each order arrives.

It says "ready" when it reads, and then the times by number when all have come or none comes.
"""

from __future__ import annotations

import json
import sys
import time

from confluent_kafka import Consumer, TopicPartition

from benchmarks.child import say
from benchmarks.orders import number_and_customer

SILENT_SECONDS = 30.0


def main() -> None:
    """See the module."""
    argument = json.loads(sys.argv[1])
    consumer = Consumer(
        {
            "bootstrap.servers": argument["bootstrap"],
            "group.id": "arrivals",
            "enable.auto.commit": False,
            "socket.nagle.disable": True,
        }
    )
    consumer.assign([TopicPartition(argument["topic"], 0, 0)])
    consumer.poll(1.0)
    say(ready=True)
    arrived: dict[int, float] = {}
    last = time.monotonic()
    while len(arrived) < argument["events"] and time.monotonic() - last < SILENT_SECONDS:
        message = consumer.poll(1.0)
        if message is not None and message.error() is None:
            last = time.monotonic()
            arrived.setdefault(number_and_customer(message.value() or b"")[0], last)
    consumer.close()
    say(arrived=sorted(arrived.items()))


if __name__ == "__main__":
    main()
