"""
A replay: what is published, in which order, at which rate, and what keeps it from going on.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from outbox_relay.errors import ConfigError, PublishError
from outbox_relay.operations import EventFilter, replaying
from outbox_relay.operations.replay_state import ReplayOrder, ReplayState, claimed, load, save
from outbox_relay.operations.replaying import EvenPace, Replay, ReplayStopped, Told
from outbox_relay.relay.envelope import make_encoder
from outbox_relay.relay.outcomes import Fault, Rejected, RejectReason, Unknown, Unsent
from outbox_relay.relay.ports import Record, Row
from outbox_relay.relay.wire import WireOptions
from outbox_relay.testing import FakeClock
from outbox_relay.testing.broker import RecordingBroker

ORDER = ReplayOrder(which=EventFilter())
AWAY = Unknown(fault=Fault.PARTITION, detail="no answer in time")


def row(row_id: int, *, key: bytes = b"k", payload: bytes | None = b"{}", codec: int = 0) -> Row:
    """A produced row."""
    size = 100_000 if payload is None else len(payload)
    event_id = uuid.UUID(int=row_id).bytes
    return Row(
        row_id, "orders", key, payload, size, codec, None, event_id, "e", "application/json", 0, None, 0
    )  # fmt: skip


@dataclass
class MemoryRows:
    """Rows that are there; of those whose payload was left behind, *large*."""

    rows: Sequence[Row]
    large: dict[int, bytes] = field(default_factory=dict)

    async def pages(
        self, *, after_id: int, last_id: int, rows: int
    ) -> AsyncIterator[tuple[list[Row], int]]:
        wanted = [found for found in self.rows if after_id < found.id <= last_id]
        for start in range(0, len(wanted), rows):
            page = wanted[start : start + rows]
            yield page, page[-1].id
        yield [], last_id

    async def payload(self, row_id: int) -> bytes | None:
        return self.large.get(row_id)


class World:
    """A replay over a broker in memory, and what became of it."""

    def __init__(
        self, rows: Sequence[Row], *, order: ReplayOrder = ORDER, topics: Any = None, **more: Any
    ) -> None:
        self.rows = MemoryRows(rows)
        self.order = order
        self.wire = more.pop("wire", WireOptions())
        self.broker = RecordingBroker(FakeClock(), topics or {"orders": 4})
        self.saved: list[ReplayState] = []
        self.over: list[int] = []
        self.slept: list[float] = []
        self.waited: list[str] = []
        self.more = more

    async def run(self, state: ReplayState | None = None, *, pages: int = 1000) -> ReplayState:
        async def rest(_: float) -> bool:
            return len(self.saved) < pages

        async def sleep(seconds: float) -> None:
            self.slept.append(seconds)

        told = Told(
            saved=self.saved.append,
            passed_over=lambda found, _: self.over.append(found.id),
            waits=self.waited.append,
        )
        replay = Replay(
            self.order,
            self.rows,
            self.broker,
            make_encoder(self.wire, max_payload_bytes=1000),
            batch_bytes=1000,
            told=told,
            sleep=sleep,
            jitter=lambda: 1.0,
            **self.more,
        )
        last = max([found.id for found in self.rows.rows], default=0)
        begin = state or ReplayState(last_id=last, rows=len(self.rows.rows))
        return await replay.run(begin, EvenPace(40.0), rest=rest)


def headers(record: Record) -> dict[str, bytes]:
    return dict(record.headers)


async def test_the_events_of_a_key_keep_their_order() -> None:
    """
    Over pages, batches and an answer that did not come.
    """
    world = World([row(n, key=b"%d" % (n % 5)) for n in range(1, 100)])
    answers = iter([AWAY, None] * 1000)
    world.broker.answer = lambda *_: next(answers)
    after = await world.run()

    for key in range(5):
        seqs = [p.seq for p in world.broker.published if p.record.key == b"%d" % key]
        assert seqs == [n for n in range(1, 100) if n % 5 == key]
    assert (after.published, after.done) == (99, True)
    assert world.slept


async def test_it_goes_on_where_it_was() -> None:
    """
    What was kept after a page is where the next one begins.
    """
    world = World([row(n) for n in range(1, 26)])
    stopped = await world.run(pages=1)
    after = await world.run(stopped)

    assert (stopped.after_id, stopped.published, stopped.done) == (10, 10, False)
    assert world.broker.seqs() == list(range(1, 26))
    assert (after.published, after.done) == (25, True)


async def test_the_header_says_whose_replay_it_is() -> None:
    """
    With its old id, or as new: then the id follows from the old one and the replay.
    """
    new = ReplayOrder(which=EventFilter(), as_new=True)
    as_it_was, as_new, again = (
        World([row(7)]),
        World([row(7)], order=new),
        World([row(7)], order=new),
    )
    for world in (as_it_was, as_new, again):
        await world.run()
    [first], [second], [third] = [
        [headers(p.record) for p in world.broker.published] for world in (as_it_was, as_new, again)
    ]
    original = str(uuid.UUID(int=7)).encode()

    assert first["ce_id"] == first["replay-of"] == second["replay-of"] == original
    assert second["ce_id"] == third["ce_id"] != original
    assert first["outbox-seq"] == second["outbox-seq"] == b"7"


async def test_records_without_headers_stay_without() -> None:
    """
    wire.headers = "none" holds here too.
    """
    world = World([row(7)], wire=WireOptions(headers="none"))
    await world.run()

    assert [p.record.headers for p in world.broker.published] == [[]]


async def test_another_topic() -> None:
    """
    Has partitions of its own.
    """
    order = ReplayOrder(which=EventFilter(), to_topic="copies")
    world = World([row(n, key=b"%d" % n) for n in range(9)], order=order, topics={"copies": 1})
    await world.run()

    assert {(p.topic, p.partition) for p in world.broker.published} == {("copies", 0)}


async def test_a_large_payload_is_fetched_and_a_purged_row_left_out() -> None:
    """
    I10. A page holds no large payload.
    """
    world = World([row(1, payload=None), row(2, payload=None), row(3)])
    world.rows.large[2] = b"large"
    after = await world.run()

    assert world.broker.values("orders") == [b"large", b"{}"]
    assert (after.published, after.done) == (2, True)


async def test_a_refused_record_stops_it_or_is_passed_over() -> None:
    """
    It is found among its neighbours, which are published; a row that is no record likewise.
    """

    def refuse(_: str, __: int, records: Sequence[Record]) -> Rejected | None:
        bad = any(record.seq == b"3" for record in records)
        return Rejected(reason=RejectReason.TOO_LARGE, detail="no") if bad else None

    rows = [row(n, codec=9 if n == 5 else 0) for n in range(1, 8)]
    stopped, over = World(rows), World(rows, skip_rejected=True)
    stopped.broker.answer = over.broker.answer = refuse
    with pytest.raises(ReplayStopped, match="row 5 cannot be published"):
        await stopped.run()
    after = await over.run()

    assert stopped.saved == []
    assert over.broker.seqs() == [1, 2, 4, 6, 7]
    assert sorted(over.over) == [3, 5]
    assert (after.published, after.passed_over) == (5, 2)


async def test_it_gives_up_when_nothing_is_acked_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    And a topic that is missing is told at once.
    """
    monkeypatch.setattr(replaying, "GIVE_UP_SECONDS", -1.0)
    away, missing = World([row(1)]), World([row(1)], topics={"others": 1})
    away.broker.answer = lambda *_: AWAY
    with pytest.raises(ReplayStopped, match="topic orders: no answer"):
        await away.run()
    with pytest.raises(PublishError, match="orders"):
        await missing.run()


async def test_a_broker_that_throttles_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    However long it does: nothing was refused, and what it says is the broker's to repeat.
    """
    monkeypatch.setattr(replaying, "GIVE_UP_SECONDS", -1.0)
    world, answers = World([row(1)]), [Unsent()] * 9
    world.broker.answer = lambda *_: answers.pop() if answers else None

    await world.run()

    assert world.broker.seqs() == [1]
    assert world.slept == []
    assert world.waited == ["a broker throttles, because of a quota"]


async def test_only_a_few_partitions_are_published_to_at_once() -> None:
    """
    I10. So that large payloads do not fill the memory.
    """
    busy, most = 0, 0
    world = World([row(n, key=b"%d" % n) for n in range(200)], topics={"orders": 100})
    publish = world.broker.publish

    async def counted(topic: str, partition: int, records: Sequence[Record]) -> Any:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0)
        try:
            return await publish(topic, partition, records)
        finally:
            busy -= 1

    world.broker.publish = counted  # type: ignore[method-assign]
    await world.run()

    assert most <= replaying.MOST_AT_ONCE


def test_the_pace_has_no_bursts() -> None:
    """
    Time that was lost is not made up for.
    """
    pace = EvenPace(100.0)
    first = pace.pause(25, started=10.0, now=10.1)
    late = pace.pause(25, started=100.0, now=100.0)

    assert (pace.page_rows, EvenPace(1).page_rows, EvenPace(10**6).page_rows) == (25, 1, 200)
    assert first == pytest.approx(0.15)
    assert late == pytest.approx(0.25)


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    """
    All of it; a file that is not there is none, and a folder is told.
    """
    which = EventFilter(
        topics=("orders",),
        keys=(b"\x00\xff",),
        names=("e",),
        since=datetime(2026, 11, 22, 1, 2, 3, 4, tzinfo=UTC).replace(tzinfo=None),
        first_id=1,
        last_id=9,
    )
    order = ReplayOrder(which=which, to_topic="copies", as_new=True)
    state = ReplayState(last_id=9, rows=5, after_id=3, published=2, passed_over=1)
    save(tmp_path / "replay.json", order, state)

    assert load(tmp_path / "replay.json") == (order, state)
    assert load(tmp_path / "none.json") is None
    with pytest.raises(ConfigError, match="cannot be written"):
        save(tmp_path / "none" / "replay.json", order, state)
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path)


def test_a_file_is_claimed_by_one_at_a_time(tmp_path: Path) -> None:
    """
    Until the claim ends; nothing stays behind.
    """
    path = tmp_path / "replay.json"
    with claimed(path):
        with pytest.raises(ConfigError, match="another replay works with it"), claimed(path):
            pass
        with claimed(tmp_path / "another.json"), claimed(None):
            pass
    with claimed(path):
        pass

    assert list(tmp_path.iterdir()) == []


def test_a_claim_counts_only_for_the_file_that_is_there(tmp_path, monkeypatch) -> None:
    """
    Who had it may remove it between the opening and the lock of the next one: that is another file then.
    """
    path, locks = tmp_path / "replay.json", []
    beside, lock = tmp_path / "replay.json.lock", fcntl.flock

    def removed_meanwhile(descriptor: int, operation: int) -> None:
        if not locks:
            beside.unlink()
        locks.append(descriptor)
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
    with claimed(path):
        assert len(locks) == 2
        assert beside.exists()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_claims_nothing(tmp_path, monkeypatch, code) -> None:
    """
    A replay is not refused for that.
    """

    def without(_: int, __: int) -> None:
        raise OSError(code, "no locks")

    monkeypatch.setattr(fcntl, "flock", without)
    with claimed(tmp_path / "replay.json"), claimed(tmp_path / "replay.json"):
        pass


def test_a_file_that_cannot_be_claimed_is_told(tmp_path, monkeypatch) -> None:
    """
    With the option and the reason.
    """

    def broken(_: int, __: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(ConfigError, match="No such file"), claimed(tmp_path / "none" / "r.json"):
        pass
    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(ConfigError, match="Input/output error"), claimed(tmp_path / "r.json"):
        pass
