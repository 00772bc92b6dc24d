"""
An audit of a table and of topics in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from outbox_relay.audit import workfile
from outbox_relay.audit.plan import Plan
from outbox_relay.audit.ports import Batch, Part, RecordsRemoved, Span, State, TableRow
from outbox_relay.audit.report import Report
from outbox_relay.audit.run import audit
from outbox_relay.relay.partitioning import KeyPartitions
from outbox_relay.schema import Status

PARTITIONS = 2
SECOND = 1_000_000
DAY = 86_400 * SECOND
START = 1_700_000_000 * SECOND


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk() -> Iterator[None]:
    """Hundreds of work files, none of which has to outlive a power cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workfile, "SETTINGS", ("PRAGMA synchronous = OFF", *quick_settings()))
        yield


def quick_settings() -> list[str]:
    """Those of the work file, but for that one."""
    return [setting for setting in workfile.SETTINGS if "synchronous" not in setting]


def event_of(number: int) -> bytes:
    return UUID(int=number, version=4).bytes


@dataclass
class Message:
    """A record of the relay."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    timestamp_type: int = 0


@dataclass
class MemoryTable:
    """The table as an audit asks for it; `now_rows` is what a second look finds."""

    rows: list[TableRow]
    now_rows: list[TableRow] | None = None

    async def check(self) -> None: ...

    async def last_id(self) -> int:
        return max((row.id for row in self.rows), default=0)

    async def now(self) -> int:
        return START + DAY

    async def id_before(self, instant: int) -> int:
        return 0

    async def read(self, after_id: int, upto_id: int, limit: int) -> Sequence[TableRow]:
        return [row for row in self.rows if after_id < row.id <= upto_id][:limit]

    async def states(self, ids: Sequence[int]) -> Sequence[State]:
        rows = self.rows if self.now_rows is None else self.now_rows
        return [State(r.id, r.event, r.topic, r.status) for r in rows if r.id in ids]

    async def close(self) -> None: ...


@dataclass
class MemoryTopics:
    """Partitions of one topic; what is in front of `lows` is gone."""

    logs: list[list[Message]]
    lows: list[int] = field(default_factory=lambda: [0] * PARTITIONS)
    compacts: bool = False
    positions: dict[Part, int] = field(default_factory=dict)
    batch: int = 3

    async def start(self) -> None: ...

    async def existing(self, topics: Sequence[str]) -> frozenset[str]:
        return frozenset({"orders"})

    async def compacted(self, topics: Sequence[str]) -> dict[str, bool]:
        return {"orders": self.compacts}

    async def spans(self, topics: Sequence[str]) -> dict[Part, Span]:
        return {
            ("orders", number): Span(self.lows[number], len(log))
            for number, log in enumerate(self.logs)
        }

    async def offsets_at(self, parts: Sequence[Part], instant: int) -> dict[Part, int | None]:
        return {
            part: next(
                (m.offset for m in self.logs[part[1]] if m.timestamp * 1000 >= instant), None
            )
            for part in parts
        }

    def begin(self, positions: dict[Part, int]) -> None:
        self.positions = dict(positions)

    def leave(self, part: Part) -> None:
        del self.positions[part]

    async def fetch(self) -> Sequence[Batch]:
        gone = [part for part, at in self.positions.items() if at < self.lows[part[1]]]
        if gone:
            raise RecordsRemoved(gone)
        found = []
        for part, at in self.positions.items():
            messages = self.logs[part[1]][at : at + self.batch]
            self.positions[part] = at + len(messages)
            found.append(Batch(part, messages, at + len(messages)))
        return found

    async def close(self) -> None: ...


class Quiet:
    """Nobody looks."""

    def phase(self, name: str, *, done: int, total: int) -> None: ...

    def advance(self, more: int) -> None: ...

    def check(self) -> None: ...


def message_of(number: int, key: bytes, partition: int, offset: int, **more: Any) -> Message:
    headers = [
        ("ce_id", str(UUID(bytes=more.get("event", event_of(number)))).encode()),
        ("outbox-seq", str(number).encode()),
        *[(name, b"2026-01-01T00:00:00Z") for name in more.get("names", ())],
    ]
    created = more.get("created", START + number * SECOND)
    return Message("orders", partition, offset, created // 1000, key, b"{}", headers)


def row_of(number: int, key: bytes, status: Status = Status.PRODUCED, codec: int = 0) -> TableRow:
    created = START + number * SECOND
    published = created + SECOND // 2 if status is Status.PRODUCED else None
    return TableRow(number, event_of(number), "orders", key, status, created, published, codec)


def run(path: Path, table: MemoryTable, topics: MemoryTopics, plan: Plan | None = None) -> Report:
    path.unlink(missing_ok=True)
    chosen = plan or Plan(asked={}, settle_seconds=0.0)
    return asyncio.run(
        audit(chosen, path=path, table=table, topics=topics, progress=Quiet(), most=1000)
    )


def ids(report: Report, kind: str) -> list[int]:
    return [finding["outbox_seq"] for finding in report.findings[kind]]


def in_partitions(log: list[tuple[int, bytes, tuple[str, ...]]]) -> list[list[Message]]:
    logs: list[list[Message]] = [[] for _ in range(PARTITIONS)]
    places = KeyPartitions(PARTITIONS)
    for number, key, names in log:
        place = places[key]
        logs[place].append(message_of(number, key, place, len(logs[place]), names=names))
    return logs
