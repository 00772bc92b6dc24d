"""Dead letters as operators see them: what they are, and what can be done with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which dead letters: those that fit each of what is given. Nothing given: all."""

    ids: tuple[int, ...] = ()
    topics: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    keys: tuple[bytes, ...] = ()
    first_id: int | None = None
    last_id: int | None = None
    since: datetime | None = None
    """Given up then or later. Times are UTC, without a zone."""
    until: datetime | None = None
    """Given up before."""
    known_at: datetime | None = None
    """Not given up later than that: whoever chose saw only what was dead by then."""

    def described(self) -> dict[str, object]:
        """What is given, for a log line: of keys only how many, since they are the application's data."""
        given: dict[str, object] = {
            "ids": list(self.ids),
            "from_id": self.first_id,
            "to_id": self.last_id,
            "topics": list(self.topics),
            "reasons": list(self.reasons),
            "chosen_keys": len(self.keys) or None,
            "since": self.since and f"{self.since.isoformat()}Z",
            "until": self.until and f"{self.until.isoformat()}Z",
        }
        return {name: value for name, value in given.items() if value is not None and value != []}


@dataclass(frozen=True, slots=True)
class Found:
    """A dead letter, in short."""

    id: int
    topic: str
    event_id: UUID
    reason: str
    dead_at: datetime | None = None


def latest_of(found: Iterable[Found], before: datetime | None = None) -> datetime | None:
    """When the last of *found* was given up, or *before* if that is later; None if nothing says so."""
    instants = [letter.dead_at for letter in found if letter.dead_at is not None]
    return max([*instants, *([] if before is None else [before])], default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A dead letter, without its payload."""

    id: int
    event_id: UUID
    event_name: str
    topic: str
    key: bytes | None
    headers: str | None
    content_type: str
    codec: int
    payload_bytes: int
    attempts: int
    created_at: datetime
    dead_at: datetime | None
    last_error: str

    @property
    def reason(self) -> str:
        """The first word of the error."""
        return reason_of(self.last_error)


def reason_of(error: str) -> str:
    """
    Why a row was given up, in a word.

    >>> reason_of("too_large: more than 1048576 bytes")
    'too_large'
    """
    return error.partition(":")[0]


class DeadLetters(Protocol):
    """
    The dead letters of one outbox.

    Every method raises StoreUnavailable if the database does not answer, SchemaMismatch without
    tables. Needs no lease: only rows that are dead are touched, and a relay touches pending ones.
    """

    async def find(
        self, selection: Selection, *, after_id: int = 0, limit: int = 1000
    ) -> list[Found]:
        """The next *limit* of *selection* above *after_id*, oldest first."""

    async def read(self, ids: Sequence[int]) -> list[DeadLetter]:
        """Those of *ids* that are dead letters still, oldest first."""

    async def payload(self, row_id: int) -> bytes:
        """The stored payload of a dead letter; nothing if it is none any more."""

    async def requeue(self, ids: Sequence[int]) -> int:
        """Let the relay publish *ids* once more. How many of them were dead letters still."""

    async def discard(self, ids: Sequence[int]) -> list[int]:
        """Delete *ids*. Those of them that were dead letters still: somebody else may be faster."""

    async def close(self) -> None:
        """Let go of the connections."""
