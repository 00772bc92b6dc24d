"""Which names of topics Kafka takes."""

from __future__ import annotations

import re

from outbox_relay.schema import MAX_TOPIC_CHARS

_NAME = re.compile(r"[a-zA-Z0-9._-]+")


def is_topic_name(name: str) -> bool:
    """
    Whether a topic can have this name: org.apache.kafka.common.internals.Topic.

    >>> [is_topic_name(name) for name in ("orders.v1", "", "..", "orders/v1")]
    [True, False, False, False]
    """
    fits = len(name) <= MAX_TOPIC_CHARS and _NAME.fullmatch(name) is not None
    return fits and name not in (".", "..")
