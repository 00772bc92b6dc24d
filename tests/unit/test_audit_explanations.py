"""
What explains that an event is not there: retention, compaction, and what its record says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from outbox_relay.audit.plan import EVER, Plan, from_offsets
from outbox_relay.audit.ports import Batch, Span
from outbox_relay.audit.reading import begin_seen
from outbox_relay.audit.records import Flag, told
from outbox_relay.relay.partitioning import KeyPartitions
from outbox_relay.schema import Status
from tests.unit.auditing import (
    DAY,
    PARTITIONS,
    SECOND,
    START,
    MemoryTable,
    MemoryTopics,
    Message,
    event_of,
    ids,
    in_partitions,
    message_of,
    no_waiting_for_the_disk,  # noqa: F401 - no test waits
    row_of,
    run,
)


def test_a_row_that_was_deleted_on_its_ack_is_no_ghost(tmp_path: Path) -> None:
    """
    It was pending when the table was read, and is gone when it is looked up: it was there.
    """
    rows = [row_of(1, b"key"), row_of(2, b"key", Status.PENDING)]
    logs = in_partitions([(1, b"key", ()), (2, b"key", ())])

    report = run(tmp_path / "audit.db", MemoryTable(rows, rows[:1]), MemoryTopics(logs))

    assert report.is_clean()


def test_retention_that_is_faster_than_the_audit(tmp_path: Path) -> None:
    """
    What goes while it reads is removed, not lost; the audit goes on behind it.
    """
    rows = [row_of(number, b"key") for number in range(1, 51)]
    place = KeyPartitions(PARTITIONS)[b"key"]
    logs: list[list[Message]] = [[], []]
    logs[place] = [message_of(number, b"key", place, number - 1) for number in range(1, 51)]
    topics = MemoryTopics(logs)
    fetch = topics.fetch

    async def fetch_and_lose() -> Sequence[Batch]:
        found = await fetch()
        topics.lows[place] = 30
        return found

    topics.fetch = fetch_and_lose  # type: ignore[method-assign]

    report = run(tmp_path / "audit.db", MemoryTable(rows), topics)

    assert report.is_clean()
    assert report.removed == 27


def test_rows_that_the_purge_deleted_are_no_ghosts(tmp_path: Path) -> None:
    """
    Records older than the oldest row that is kept cannot be judged, and are counted.
    """
    rows = [row_of(number, b"key") for number in range(10, 20)]
    logs = in_partitions([(number, b"key", ()) for number in range(1, 20)])

    report = run(tmp_path / "audit.db", MemoryTable(rows), MemoryTopics(logs))

    assert report.is_clean()
    assert report.unjudged_records == 9


def test_rows_older_than_the_retention_are_no_ghosts(tmp_path: Path) -> None:
    """
    A late row of a paused topic may be kept for long after its neighbours were purged.
    """
    rows = [row_of(1, b"key"), row_of(50, b"key")]
    logs = in_partitions([(number, b"key", ()) for number in range(1, 51)])
    plan = Plan(asked={}, settle_seconds=0.0, keeps_produced_us=DAY - 10 * SECOND)

    report = run(tmp_path / "audit.db", MemoryTable(rows), MemoryTopics(logs), plan)

    # The database's clock is a day after the first event: what is younger than 10 s counts.
    assert min(ids(report, "ghost")) == 11
    assert report.unjudged_records == 9


@pytest.mark.parametrize("later", ["record", "requeued", "tombstone", "nothing"])
def test_compaction_explains_only_what_it_may_remove(later: str, tmp_path: Path) -> None:
    """
    A record goes if a later one of its key is there, or was a tombstone; the last of a key stays.
    """
    rows = [row_of(1, b"key"), row_of(2, b"key", codec=3 if later == "tombstone" else 0)]
    log: list[tuple[int, bytes, tuple[str, ...]]] = []
    if later in ("record", "requeued"):
        # A requeued one may stand behind what came after it, and so take its place.
        log.append((2, b"key", ()) if later == "record" else (1, b"key", ("requeued-at",)))
    rows.append(row_of(3, b"other"))

    report = run(
        tmp_path / "audit.db",
        MemoryTable(rows),
        MemoryTopics(in_partitions([*log, (3, b"other", ())]), compacts=True),
    )

    assert ids(report, "loss") == ([1, 2] if later == "nothing" else [])


@pytest.mark.parametrize(
    ("begin", "span", "skipped", "seen"),
    [
        (0, Span(0, 9), None, -1),
        (0, Span(0, 9), 5, -1),
        (4, Span(4, 9), None, None),
        (4, Span(4, 9), 5, None),
        (6, Span(4, 9), 5, 5),
        (6, Span(4, 9), None, None),
    ],
)
def test_since_when_a_partition_can_be_seen(
    begin: int, span: Span, skipped: int | None, seen: int | None
) -> None:
    """
    All of it from offset 0; from --since where older records are there still; else its records tell.
    """
    assert begin_seen(begin, span, skipped=skipped) == seen


@pytest.mark.parametrize(
    ("headers", "value", "expected"),
    [
        ([("ce_id", b"00000000-0000-4000-8000-000000000007"), ("outbox-seq", b"9")], b"", (9, Flag.OURS)),
        ([("ce_id", b"00000000000040008000000000000007"), ("outbox-seq", b"9")], b"", (9, Flag.OURS)),
        ([("ce_id", b"00000000-0000-4000-8000-000000000007")], b"", (None, 0)),
        ([], b'{"message_name":"a","message_id":"00000000-0000-4000-8000-000000000007","payload":{}}', (None, 0)),
        ([], b'{"specversion":"1.0","type":"a","source":"/","id":"00000000-0000-4000-8000-000000000007"}', (None, 0)),
        ([], b"nothing", None),
        ([("ce_id", b"00000000-0000-4000-8000-000000000007"), ("outbox-seq", b"nine")], b"", None),
    ],
)  # fmt: skip
def test_what_a_record_says(
    headers: list[tuple[str, bytes]], value: bytes, expected: tuple[int | None, int] | None
) -> None:
    """
    By its headers, else by the envelope in its value; what says no id is not guessed at.
    """
    found = told(Message("orders", 0, 0, 1000, b"k", value, headers), bare=False)

    assert (found and (found.sequence, found.flags)) == expected
    assert found is None or found.event == event_of(7)


def test_where_to_begin_is_read_from_text() -> None:
    """
    The most exact word counts; what is none is named.
    """
    plan = Plan(asked={}, from_offsets=from_offsets(["1", "orders=2", "orders:3=4"]))

    assert [plan.from_offset(*part) for part in (("a", 0), ("orders", 0), ("orders", 3))] == [
        1,
        2,
        4,
    ]
    with pytest.raises(ValueError, match="orders:x=1"):
        from_offsets(["orders:x=1"])
    assert EVER > START
