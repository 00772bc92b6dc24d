"""
Which records of a batch that did not end well the broker has confirmed all the same.

Where a batch is not one step for the broker, some of it may be stored when the rest is refused or
unknown. What is confirmed is not published a second time with the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from outbox_relay.relay.ports import Record

KEEP_SECONDS = 30.0
"""After this the same rows may be there again on purpose, such as those that somebody requeued."""

MOST = 50_000

_Name = tuple[bytes, bytes, tuple[tuple[str, bytes], ...]]


def _name(record: Record) -> _Name:
    # Row ids begin anew on another server, and a requeued row has a header more.
    return record.event_id, record.seq, record.own.headers


class Stored:
    """Of one topic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._names: dict[_Name, float] = {}

    def without(self, records: Sequence[Record]) -> Sequence[Record]:
        """Those of *records* that are not known to be stored."""
        if not self._names:
            return records
        oldest = self._clock() - KEEP_SECONDS
        return [r for r in records if self._names.get(_name(r), float("-inf")) < oldest]

    def add(self, records: Iterable[Record]) -> None:
        """The broker confirmed *records*, and perhaps not the rest of their batch."""
        now = self._clock()
        if len(self._names) > MOST:
            self._names.clear()
        self._names.update((_name(record), now) for record in records)

    def settle(self, records: Iterable[Record]) -> None:
        """The batch of *records* is acked: nobody asks for them again."""
        if self._names:
            for record in records:
                self._names.pop(_name(record), None)


def runs(records: Sequence[Record]) -> list[list[Record]]:
    """
    *records* in order, cut before each one whose key is in the same run already.

    Where one record may be refused and the next one stored, a run is sent at once and waited for:
    a record so never overtakes an earlier one of its key. An event id may be there once, too.
    """
    found: list[list[Record]] = []
    seen: set[bytes] = set()
    names: set[bytes] = set()
    for record in records:
        if not found or record.key in seen or record.event_id in names:
            found.append([])
            seen, names = set(), set()
        found[-1].append(record)
        names.add(record.event_id)
        if record.key is not None:
            seen.add(record.key)
    return found
