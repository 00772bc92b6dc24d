"""
The verdicts of an audit, against an oracle that knows what happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outbox_relay.audit.plan import Plan
from outbox_relay.audit.ports import Part, Span, TableRow
from outbox_relay.relay.partitioning import KeyPartitions
from outbox_relay.schema import Status
from tests.unit.auditing import (
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

FATES = ("sound", "sound", "sound", "lost", "twice", "late", "requeued", "pending", "dead", "unmarked", "vanished", "replayed", "in flight")  # fmt: skip


@st.composite
def worlds(draw: st.DrawFn) -> list[tuple[int, str]]:
    """Key and fate of each event, in the order of their ids."""
    fate = st.sampled_from(FATES)
    return draw(st.lists(st.tuples(st.integers(0, 3), fate), min_size=1, max_size=40))


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(world=worlds(), batch=st.integers(1, 7))
def test_an_audit_finds_what_happened_and_nothing_else(
    world: list[tuple[int, str]], batch: int, tmp_path: Path
) -> None:
    """
    Events with a known fate each: the findings are those of a simple account of the same world.
    """
    log: list[tuple[int, bytes, tuple[str, ...]]] = []
    held: list[tuple[int, bytes, tuple[str, ...]]] = []
    rows, now_rows = [row_of(1, b"first")], [row_of(1, b"first")]
    expected: dict[str, list[int]] = {
        kind: [] for kind in ("loss", "duplicate", "inversion", "ghost")
    }
    log.append((1, b"first", ()))
    for number, (key_number, fate) in enumerate(world, 2):
        key = b"key-%d" % key_number
        row, later = row_of(number, key), row_of(number, key)
        match fate:
            case "lost":
                expected["loss"].append(number)
            case "twice":
                log += [(number, key, ())] * 2
                expected["duplicate"].append(number)
            case "late" | "requeued":
                held.append((number, key, ("requeued-at",) if fate == "requeued" else ()))
            case "pending" | "dead":
                row = later = row_of(number, key, Status[fate.upper()])
            case "unmarked":
                log.append((number, key, ()))
                row = later = row_of(number, key, Status.PENDING)
                expected["ghost"].append(number)
            case "in flight":
                log.append((number, key, ()))
                row = row_of(number, key, Status.PENDING)
            case "vanished":
                log.append((number, key, ()))
                expected["ghost"].append(number)
            case "replayed":
                log += [(number, key, ()), (number, key, ("replay-of",))]
            case _:
                log.append((number, key, ()))
        if fate != "vanished":
            rows.append(row)
            now_rows.append(later)
    end = row_of(len(world) + 2, b"last")
    log += [*held, (end.id, b"last", ())]
    expected["inversion"] = turned_round(log, ghosts=set(expected["ghost"]))
    logs = in_partitions(log)

    report = run(
        tmp_path / "audit.db",
        MemoryTable([*rows, end], [*now_rows, end]),
        MemoryTopics(logs, batch=batch),
    )

    assert {kind: sorted(ids(report, kind)) for kind in expected} == expected


def turned_round(log: list[tuple[int, bytes, tuple[str, ...]]], *, ghosts: set[int]) -> list[int]:
    """Ids whose first copy is behind a larger one of the key; not those that were requeued."""
    highest: dict[bytes, int] = {}
    seen: set[int] = set()
    found = []
    for number, key, names in log:
        if number in seen or "replay-of" in names or number in ghosts:
            continue
        seen.add(number)
        if number < highest.get(key, 0) and "requeued-at" not in names:
            found.append(number)
        highest[key] = max(number, highest.get(key, 0))
    return sorted(found)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    removed=st.integers(0, 300),
    repeated=st.integers(0, 5),
    behind=st.integers(0, 300),
    lost=st.sets(st.integers(1, 400), max_size=8),
)
def test_nothing_is_found_that_retention_explains(
    removed: int, repeated: int, behind: int, lost: set[int], tmp_path: Path
) -> None:
    """
    Whatever is in front of the first record that is kept: no event that was there is called lost, and no
    repetition whose first copy is gone is called turned round; what is lost far behind it is found.
    """
    rows = [row_of(number, b"key") for number in range(1, 401)]
    order = [number for number in range(1, 401) if number not in lost]
    # A relay that was stalled repeats what it had under way long ago, just where retention cut.
    window = max(0, removed - behind)
    order[removed:removed] = order[max(0, window - repeated) : window]
    place = KeyPartitions(PARTITIONS)[b"key"]
    logs: list[list[Message]] = [[], []]
    logs[place] = [message_of(number, b"key", place, at) for at, number in enumerate(order)]
    lows = [0, 0]
    lows[place] = removed

    report = run(tmp_path / "audit.db", MemoryTable(rows), MemoryTopics(logs, lows))

    assert set(ids(report, "loss")) <= lost
    assert not ids(report, "inversion")
    if removed == 0:
        assert set(ids(report, "loss")) == lost


def test_what_is_lost_behind_the_cut_is_found(tmp_path: Path) -> None:
    """
    A row produced later than what the first thousand kept records tell must be there.
    """
    rows = [row_of(number, b"key") for number in range(1, 3001)]
    place = KeyPartitions(PARTITIONS)[b"key"]
    order = [number for number in range(1, 3001) if number not in (50, 2500)]
    logs: list[list[Message]] = [[], []]
    logs[place] = [message_of(number, b"key", place, at) for at, number in enumerate(order)]
    lows = [0, 0]
    lows[place] = 100

    report = run(tmp_path / "audit.db", MemoryTable(rows), MemoryTopics(logs, lows, batch=500))

    assert ids(report, "loss") == [2500]
    assert report.removed == 101


def seldom(row: TableRow) -> TableRow:
    """The same an event every five minutes."""
    created = START + row.id * 300 * SECOND
    return row._replace(created=created, published=row.published and created + SECOND // 2)


def test_what_is_lost_of_a_topic_with_few_events_is_found(tmp_path: Path) -> None:
    """
    All that such a topic keeps is less than a thousand records: the third of them tells enough.
    """
    rows = [seldom(row_of(number, b"key")) for number in range(1, 101)]
    place = KeyPartitions(PARTITIONS)[b"key"]
    order = [number for number in range(1, 101) if number not in (30, 50)]
    logs: list[list[Message]] = [[], []]
    logs[place] = [message_of(number, b"key", place, at) for at, number in enumerate(order)]
    lows = [0, 0]
    lows[place] = 28

    report = run(tmp_path / "audit.db", MemoryTable(rows), MemoryTopics(logs, lows))

    assert ids(report, "loss") == [50]
    assert report.removed == 29
    assert not report.notes


def test_a_repetition_at_the_cut_of_few_events_tells_nothing(tmp_path: Path) -> None:
    """
    What a stalled relay repeats was marked long ago: of what is behind it nothing is called lost.
    """
    rows = [seldom(row_of(number, b"key")) for number in range(1, 101)]
    place = KeyPartitions(PARTITIONS)[b"key"]
    order = [*range(1, 61), 5, *range(61, 101)]
    logs: list[list[Message]] = [[], []]
    logs[place] = [message_of(number, b"key", place, at) for at, number in enumerate(order)]
    lows = [0, 0]
    lows[place] = 60

    report = run(tmp_path / "audit.db", MemoryTable(rows), MemoryTopics(logs, lows))

    assert not ids(report, "loss")
    assert report.removed == 59


def test_it_says_where_it_could_not_see(tmp_path: Path) -> None:
    """
    A topic that keeps only the last records: "0 losses" alone would be a promise that nobody can give.
    """
    rows = [row_of(number, b"key") for number in range(1, 101)]
    place = KeyPartitions(PARTITIONS)[b"key"]
    logs: list[list[Message]] = [[], []]
    logs[place] = [message_of(number, b"key", place, at) for at, number in enumerate(range(1, 101))]
    lows = [0, 0]
    lows[place] = 99
    plan = Plan(asked={}, settle_seconds=0.0)

    other = 1 - place
    logs[other] = [message_of(1, b"key", other, 0)]
    lows[other] = 1

    report = run(tmp_path / "audit.db", MemoryTable(rows), MemoryTopics(logs, lows), plan)

    assert report.is_clean()
    assert any("orders: none of its produced events" in note for note in report.notes)


def test_rows_that_are_purged_by_hand_meanwhile_are_no_ghosts(tmp_path: Path) -> None:
    """
    Somebody deletes them before their time, while the table is read: their records are still there.
    """
    rows = [row_of(number, b"key") for number in range(1, 101)]
    read = [row for row in rows if not 20 < row.id <= 60]
    place = KeyPartitions(PARTITIONS)[b"key"]
    logs: list[list[Message]] = [[], []]
    logs[place] = [message_of(number, b"key", place, at) for at, number in enumerate(range(1, 101))]
    purged = MemoryTable(read, now_rows=[row for row in rows if row.id > 60])
    invented = MemoryTable(read, now_rows=read)

    report = run(tmp_path / "audit.db", purged, MemoryTopics(logs))
    other = run(tmp_path / "other.db", invented, MemoryTopics(logs))

    assert not ids(report, "ghost")
    assert report.unjudged_records == 40
    assert ids(other, "ghost") == list(range(21, 61))


def test_marks_of_neighbours_may_change_places(tmp_path: Path) -> None:
    """
    A row in front of the cut that was marked half a minute after those behind it is not lost.
    """
    rows = [row_of(number, b"key") for number in (1, 2, 3)]
    assert rows[0].published is not None
    rows[0] = rows[0]._replace(published=rows[0].published + 30 * SECOND)
    place = KeyPartitions(PARTITIONS)[b"key"]
    logs: list[list[Message]] = [[], []]
    logs[place] = [message_of(number, b"key", place, number - 1) for number in (1, 2, 3)]
    lows = [0, 0]
    lows[place] = 1

    report = run(tmp_path / "audit.db", MemoryTable(rows), MemoryTopics(logs, lows))

    assert report.is_clean()
    assert report.removed == 1


def test_records_behind_the_ends_are_left_out(tmp_path: Path) -> None:
    """
    What a fetch gives beyond the end that was noted is not of this audit.
    """
    logs = in_partitions([(1, b"key", ()), (2, b"key", ()), (2, b"key", ())])
    topics = MemoryTopics(logs)
    places = fixed_spans(topics)
    place = KeyPartitions(PARTITIONS)[b"key"]
    places["orders", place] = Span(0, 2)

    report = run(tmp_path / "audit.db", MemoryTable([row_of(1, b"key"), row_of(2, b"key")]), topics)

    assert report.is_clean()
    assert report.topics[0].records == 2


def fixed_spans(topics: MemoryTopics) -> dict[Part, Span]:
    """The spans that *topics* will tell from now on."""
    told_ = asyncio.run(topics.spans(["orders"]))

    async def spans(names: Sequence[str]) -> dict[Part, Span]:
        return told_

    topics.spans = spans  # type: ignore[method-assign]
    return told_


def test_a_ghost_turns_nobody_round(tmp_path: Path) -> None:
    """
    The id that a ghost claims says nothing about the events behind it.
    """
    ghost = message_of(3, b"key", 0, 0, event=event_of(77), created=START + 9 * SECOND)
    place = KeyPartitions(PARTITIONS)[b"key"]
    log = [ghost, *[message_of(number, b"key", 0, number) for number in (1, 2, 3)]]
    logs: list[list[Message]] = [[], []]
    logs[place] = [replace(m, partition=place) for m in log]
    rows = [row_of(number, b"key") for number in (1, 2, 3)]

    report = run(tmp_path / "audit.db", MemoryTable(rows), MemoryTopics(logs))

    assert dict(report.found) == {"loss": 0, "duplicate": 0, "inversion": 0, "ghost": 1}
    assert report.findings["ghost"][0]["reason"] == "another_event"
