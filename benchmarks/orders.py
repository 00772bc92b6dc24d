"""
What every system under measurement publishes: orders as JSON of about 600 bytes.

Each order has its number and its customer in the text, so one check reads the topics of all systems.
Standard library only: programs in other virtual environments import it.
"""

from __future__ import annotations

import json
import random
import re
from functools import cache
from typing import Any, Final

PAYLOAD_BYTES: Final = 600
CUSTOMERS: Final = 5000
PARTITIONS: Final = 16
EVENT_NAME: Final = "order.placed"

_SHAPES = 2000
_NUMBER_AND_CUSTOMER = re.compile(rb'"order_id": ?(\d+), ?"customer": ?"([^"]+)"')


def customer(number: int) -> str:
    """Who ordered: the key. Spread evenly, in no order."""
    return f"customer-{number * 2_654_435_761 % 2**32 % CUSTOMERS}"


def order(number: int) -> dict[str, Any]:
    """The order of this number."""
    return {"order_id": number, "customer": customer(number), "lines": _lines(number % _SHAPES)}


def order_json(number: int) -> bytes:
    """The same as JSON."""
    return json.dumps(order(number)).encode()


def number_and_customer(value: bytes) -> tuple[int, bytes]:
    """What `order` put in, out of whatever envelope a system made around it."""
    found = _NUMBER_AND_CUSTOMER.search(value)
    if found is None:
        raise ValueError(f"no order of ours: {value[:200]!r}")
    return int(found[1]), found[2]


def make_lines() -> None:
    """Make the lines of all orders, so that no measurement waits for it. Once in a process."""
    for shape in range(_SHAPES):
        _lines(shape)


@cache
def _lines(shape: int) -> list[dict[str, Any]]:
    rng = random.Random(shape)
    lines: list[dict[str, Any]] = []
    while len(json.dumps(lines)) < PAYLOAD_BYTES - 90:
        lines.append(
            {"sku": f"{rng.getrandbits(40):010x}", "quantity": rng.randint(1, 9), "price": "19.90"}
        )
    return lines
