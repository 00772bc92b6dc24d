"""
Looks what seems to be a ghost up once more: commits and marks come in while an audit works.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from outbox_relay.audit.plan import EVER, Plan
from outbox_relay.audit.ports import AuditedTable, State
from outbox_relay.audit.reading import Pace, Progress, patiently
from outbox_relay.audit.workfile import WorkFile
from outbox_relay.schema import Status

IDS_AT_ONCE: Final = 500
PAUSE_SECONDS: Final = 1.0

_PRODUCED: Final = f"FROM audited_rows r WHERE r.status = {Status.PRODUCED:d} AND r.id"
_WITH_NEIGHBOURS: Final = (
    f"SELECT g.rowid, (SELECT r.id {_PRODUCED} < g.seq ORDER BY r.id DESC LIMIT 1), "
    f"(SELECT r.id {_PRODUCED} > g.seq ORDER BY r.id LIMIT 1) FROM found_ghosts g "
    "WHERE g.reason = 'unknown' AND g.seq IS NOT NULL AND g.rowid > ? ORDER BY g.rowid LIMIT ?"
)


async def recheck(file: WorkFile, table: AuditedTable, plan: Plan, progress: Progress) -> None:
    """
    Strike out of ``found_ghosts`` what is none, and give the rest its reason.

    Repeats until nothing is left that may still change, at most until `settle_seconds` after the ends of
    the partitions were taken.
    """
    settled_at = file.get_number("ends_at") / 1_000_000 + plan.settle_seconds
    while True:
        may_change = await _look(file, table, plan, progress)
        if not may_change or time.time() > settled_at:
            break
        await asyncio.sleep(PAUSE_SECONDS)
    count = await _strike_purged(file, table, plan, progress)
    now = await patiently(table.now, Pace(None))
    # The relay may have purged rows that were never seen here.
    kept_since = max(0, now - plan.keeps_produced_us) if plan.keeps_produced_us < EVER else 0
    with file.transaction():
        purged = "reason = 'unknown' AND created <= ?"
        count += file.number(f"SELECT count(*) FROM found_ghosts WHERE {purged}", kept_since)
        file.change(f"DELETE FROM found_ghosts WHERE {purged}", [(kept_since,)])
        file.put(unjudged_records=file.get_number("unjudged_records") + count)


async def _strike_purged(
    file: WorkFile, table: AuditedTable, plan: Plan, progress: Progress
) -> int:
    """
    Strike out those whose neighbour was read as produced and is gone by now; how many they were.

    Somebody deletes rows while the audit works, such as by hand before their time: what was not read may
    have gone in the same way.
    """
    struck, last, pace = 0, 0, Pace(plan.rows_per_second)
    while some := file.rows(_WITH_NEIGHBOURS, last, IDS_AT_ONCE // 2):
        progress.check()
        started = time.monotonic()
        last = some[-1][0]
        neighbours = {seq for _, *around in some for seq in around if seq is not None}
        found = await patiently(partial(table.states, sorted(neighbours)), pace)
        gone = neighbours - {state.id for state in found}
        purged = [(number,) for number, *around in some if gone.intersection(around)]
        with file.transaction():
            file.change("DELETE FROM found_ghosts WHERE rowid = ?", purged)
        struck += len(purged)
        await asyncio.sleep(pace.rest(len(neighbours), time.monotonic() - started))
    return struck


async def _look(file: WorkFile, table: AuditedTable, plan: Plan, progress: Progress) -> bool:
    """One round over all; whether the next one may find something else."""
    may_change, last = False, 0
    pace = Pace(plan.rows_per_second)
    while some := _suspects(file, last):
        progress.check()
        started = time.monotonic()
        last = some[-1][0]
        found = await patiently(partial(table.states, sorted({s[1] for s in some})), pace)
        states = {state.id: state for state in found}
        verdicts = [
            (_verdict(states.get(seq), event, topic, was=status), number)
            for number, seq, event, topic, status in some
        ]
        may_change |= _write(file, verdicts)
        await asyncio.sleep(pace.rest(len(some), time.monotonic() - started))
    if file.rows("SELECT 1 FROM found_ghosts WHERE seq IS NULL LIMIT 1"):
        may_change |= await _look_by_event(file, table, progress, pace)
    return may_change


def _suspects(file: WorkFile, after: int) -> list[tuple[Any, ...]]:
    return file.rows(
        "SELECT g.rowid, g.seq, g.event, t.name, g.status FROM found_ghosts g "
        "JOIN topics t ON t.number = g.topic WHERE g.seq IS NOT NULL AND g.rowid > ? "
        "ORDER BY g.rowid LIMIT ?",
        after,
        IDS_AT_ONCE,
    )


def _verdict(state: State | None, event: bytes, topic: str, *, was: int | None) -> str | None:
    """
    Why a record is a ghost; None if it is none.

    >>> _verdict(State(7, b"e", "orders", 1), b"e", "orders", was=0) is None
    True
    >>> _verdict(None, b"e", "orders", was=None)
    'unknown'
    """
    if state is None:
        # It was there, and is purged or discarded by now: then the event was no invention.
        return "unknown" if was is None else None
    if state.event != event:
        return "another_event"
    if state.topic != topic:
        return "another_topic"
    if state.status == Status.PRODUCED:
        return None
    return "dead" if state.status == Status.DEAD else "pending"


def _write(file: WorkFile, verdicts: Sequence[tuple[str | None, int]]) -> bool:
    with file.transaction():
        file.change("UPDATE found_ghosts SET reason = ? WHERE rowid = ?", verdicts)
        file.change(
            "DELETE FROM found_ghosts WHERE rowid = ?",
            [(n,) for reason, n in verdicts if not reason],
        )
    return any(reason in ("pending", "unknown") for reason, _ in verdicts)


async def _look_by_event(
    file: WorkFile, table: AuditedTable, progress: Progress, pace: Pace
) -> bool:
    """Records that do not say their row: only the whole table can tell."""
    file.run("CREATE INDEX IF NOT EXISTS found_ghosts_ix ON found_ghosts (event)")
    file.run("UPDATE found_ghosts SET reason = 'unknown' WHERE seq IS NULL")
    after, upto = file.get_number("first"), await patiently(table.last_id, pace)
    while after < upto:
        progress.check()
        started = time.monotonic()
        rows = await patiently(partial(table.read, after, upto, pace.rows), pace)
        states = {row.event: State(row.id, row.event, row.topic, row.status) for row in rows}
        marks = ", ".join("?" * len(states))
        suspects = file.rows(
            "SELECT g.rowid, g.event, t.name FROM found_ghosts g JOIN topics t ON t.number = g.topic "
            f"WHERE g.seq IS NULL AND g.event IN ({marks})",
            *states,
        )
        _write(
            file,
            [(_verdict(states[e], e, topic, was=None), number) for number, e, topic in suspects],
        )
        after = rows[-1].id if rows else upto
        await asyncio.sleep(pace.rest(len(rows), time.monotonic() - started))
    left = "seq IS NULL AND reason IN ('pending', 'unknown')"
    return file.number(f"SELECT count(*) FROM found_ghosts WHERE {left}") > 0
