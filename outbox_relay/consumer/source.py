"""
What an `EventConsumer` needs of a broker, and what it tells it.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, Protocol

from outbox_relay.consumer.record import Delivery
from outbox_relay.schema import MAX_ERROR_CHARS

PREFIX: Final = "dead-letter-"


class Outcome(StrEnum):
    """What became of a delivery. Each of them lets the next one come."""

    HANDLED = "handled"
    SKIPPED = "skipped"
    DEAD_LETTER = "dead_letter"


class Reason(StrEnum):
    """Why a record became a dead letter."""

    UNREADABLE = "unreadable"
    UNKNOWN_EVENT = "unknown_event"
    HANDLER_FAILED = "handler_failed"


class Process(Protocol):
    """What is done with each delivery."""

    async def __call__(self, message: object, ending: asyncio.Event) -> Outcome | None:
        """
        Handle the client's *message*, with its repetitions.

        None if *ending* was set before it came to an end: it is to be delivered again. Raises nothing
        but CancelledError.
        """

    def holding(self) -> AbstractContextManager[None]:
        """Inside it a record counts as held that the client itself cannot hand out."""


class Source(Protocol):
    """A broker that delivers."""

    @property
    def can_dead_letter(self) -> bool:
        """Whether `dead_letter` has somewhere to go."""

    async def run(self, process: Process, stopping: asyncio.Event, stop_seconds: float) -> None:
        """
        Hand each delivery to *process*, in the broker's order, until *stopping* is set.

        A delivery is settled with the broker only after *process* has given its outcome. Outlasts
        outages of the broker. What is in work when *stopping* is set may end within *stop_seconds*.
        """

    async def dead_letter(self, delivery: Delivery, headers: list[tuple[str, bytes]]) -> None:
        """
        Publish *delivery* again with *headers*, where dead letters go. Returns once the broker has
        acked it; raises otherwise.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A record that was given up, and why."""

    delivery: Delivery
    reason: Reason
    error: str
    attempts: int
    at: datetime

    def headers(self) -> list[tuple[str, bytes]]:
        """The record's own headers, and where, when and why it was given up."""
        delivery = self.delivery
        said = {
            "reason": self.reason.value,
            "error": self.error[:MAX_ERROR_CHARS],
            "attempts": str(self.attempts),
            "topic": delivery.topic,
            "partition": delivery.partition,
            "offset": delivery.offset,
            "at": self.at.astimezone(UTC).isoformat(),
        }
        own = [header for header in delivery.headers if not header[0].startswith(PREFIX)]
        return own + [
            (PREFIX + name, str(value).encode(errors="backslashreplace"))
            for name, value in said.items()
            if value is not None
        ]
