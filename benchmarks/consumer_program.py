"""
A consumer that notes when each order arrives, by the clock that all processes of a machine share.
"""

from __future__ import annotations

import json
import sys
import time

from confluent_kafka import Consumer, TopicPartition

from benchmarks.child import say
from benchmarks.orders import number_and_customer

GIVE_UP_SECONDS = 30.0
"""Without any record."""


def main() -> None:
    """Read until all are there; when each first came."""
    argument = json.loads(sys.argv[1])
    consumer = Consumer(
        {
            "bootstrap.servers": argument["bootstrap"],
            "group.id": "bench-latency",
            "enable.auto.commit": False,
            "socket.nagle.disable": True,
        }
    )
    topic = argument["topic"]
    consumer.assign([TopicPartition(topic, p, 0) for p in range(argument["partitions"])])
    consumer.poll(1.0)
    say(ready=True)
    arrived: dict[int, float] = {}
    heard_at = time.monotonic()
    while len(arrived) < argument["count"] and time.monotonic() - heard_at < GIVE_UP_SECONDS:
        message = consumer.poll(1.0)
        if message is None or message.error():
            continue
        heard_at = time.monotonic()
        number, _ = number_and_customer(message.value() or b"")
        arrived.setdefault(number, heard_at)
    consumer.close()
    say(arrived=sorted(arrived.items()))


if __name__ == "__main__":
    main()
