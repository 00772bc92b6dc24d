"""
The events of the rivals' benchmark: the same bytes and keys for each relay.
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.drain import KEYS, payload
from tests.services.kafka import Record

NUMBER = b'{"number": '
"""Every payload begins with it, so that a check need not parse the whole."""


@functools.cache
def _bodies() -> list[bytes]:
    return [payload(number)[1:] for number in range(2000)]


def value(number: int) -> bytes:
    """JSON of about 600 bytes that tells its number."""
    return b"%b%d, %b" % (NUMBER, number, _bodies()[number % 2000])


def keys(count: int) -> list[str]:
    """A key for each event, in random order."""
    rng = random.Random(1)
    return [f"customer-{rng.randrange(KEYS)}" for _ in range(count)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a consumer found on the topic, against what was written."""

    lost: int
    duplicated: int
    inverted: int
    wrong_key: int
    first_ms: int
    last_ms: int


def account(records: Iterable[Record], written: list[str]) -> Account:
    """Compare; an event is inverted when one of its key that was written later came before it."""
    seen: set[int] = set()
    latest: dict[bytes | None, int] = {}
    duplicated = inverted = wrong_key = 0
    times: list[int] = []
    for record in records:
        number = _number(record.value)
        times.append(record.timestamp)
        if number in seen:
            duplicated += 1
            continue
        seen.add(number)
        wrong_key += record.key != written[number].encode()
        inverted += number < latest.get(record.key, -1)
        latest[record.key] = max(number, latest.get(record.key, -1))
    return Account(
        lost=len(written) - len(seen),
        duplicated=duplicated,
        inverted=inverted,
        wrong_key=wrong_key,
        first_ms=min(times, default=0),
        last_ms=max(times, default=0),
    )


def _number(value: bytes | None) -> int:
    assert value is not None
    return int(json.loads(value)["number"])
