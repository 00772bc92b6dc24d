"""
What the relay needs of a tracer, and the W3C trace context as far as it must understand it.

A row that was written inside a sampled trace has a ``traceparent`` among its headers (W3C Trace Context,
3.2: ``00-<trace id>-<parent id>-<flags>``). With tracing on, its record carries the context of the
relay's own span instead: each participant changes the parent id (3.4), and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Protocol

from outbox_relay.relay.ports import HeaderBlock, Record, Row

TRACEPARENT: Final = "traceparent"

_IDS = rb"-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
# Version 00 ends there; a later one may go on behind another dash (4).
_FORM = re.compile(rb"00" + _IDS + rb"|(?!00|ff)[0-9a-f]{2}" + _IDS + rb"(-.*)?")


class Tracing(Protocol):
    """Spans of the relay. Called for each batch; must not raise or wait."""

    def begin(
        self, topic: str, partition: int, rows: Sequence[Row], records: Sequence[Record]
    ) -> list[Record]:
        """The records, each sampled one with the context of a span of its own, which begins now."""

    def acked(self, rows: Sequence[Row]) -> None:
        """The broker has them: their spans end."""

    def troubled(self, rows: Sequence[Row], detail: str) -> None:
        """Their batch ended unknown; the spans go on."""

    def ended(self, rows: Sequence[Row], detail: str) -> None:
        """What still runs of their spans ends as an error: given up, or let go for now."""


def traceparent_of(record: Record) -> bytes | None:
    """The ``traceparent`` of a record, if it is well formed; others are ignored (W3C, 3.2.2)."""
    headers = record.own.headers
    for name, value in headers if type(headers) is tuple else ():
        if name == TRACEPARENT:
            return value if _FORM.fullmatch(value) else None
    return None


def is_sampled(traceparent: bytes) -> bool:
    """
    The last bit of the flags (W3C, 3.2.2.5.1).

    >>> is_sampled(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    True
    """
    return bool(int(traceparent[53:55], 16) & 1)


def with_traceparent(record: Record, traceparent: bytes) -> Record:
    """The record with another parent. As long as before, so that its size still holds."""
    headers = tuple(
        (name, traceparent if name == TRACEPARENT else value) for name, value in record.own.headers
    )
    return record._replace(own=HeaderBlock(headers))
