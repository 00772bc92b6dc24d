"""What an audit found, as data: for eyes, and for scripts as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from outbox_relay.audit.plan import EVER, Plan
from outbox_relay.audit.records import Flag
from outbox_relay.audit.workfile import WorkFile
from outbox_relay.schema import Status

_FOUND: Final[Mapping[str, tuple[str, str, str]]] = {
    # kind: table, condition, fields besides event and topic
    "loss": ("found_missing", "reason IS NULL", "seq, created"),
    "duplicate": (
        "found_duplicates",
        "1",
        'seq, partition, "offset", last_offset, copies',
    ),
    "inversion": ("found_inversions", "NOT requeued", 'seq, partition, "offset", behind'),
    "ghost": ("found_ghosts", "reason IS NOT NULL", 'seq, partition, "offset", created, reason'),
}

_INSTANTS: Final = frozenset({"created"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicCounts:
    """What was compared of one topic."""

    topic: str
    rows: int
    produced: int
    pending: int
    dead_letters: int
    records: int
    unidentified_records: int
    exists: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """
    The outcome. `found` counts each kind, `findings` has the first of each with their ids.

    * removed, compacted: produced rows whose records the topic's retention, or compaction, may have removed
    * unjudged_records: records older than the oldest row, so that the table cannot say whose they are
    * replays, requeued_late: copies and late records that are on purpose
    """

    found: Mapping[str, int]
    findings: Mapping[str, list[dict[str, Any]]]
    topics: tuple[TopicCounts, ...]
    removed: int
    compacted: int
    unjudged_records: int
    replays: int
    requeued_late: int
    upper_id: int
    notes: tuple[str, ...]
    work_file: str | None = None

    def is_clean(self, allowed: Iterable[str] = ()) -> bool:
        """Whether nothing was found but what is *allowed*."""
        return not any(count for kind, count in self.found.items() if kind not in allowed)


def make_report(file: WorkFile, plan: Plan, *, most: int, work_file: str | None) -> Report:
    """Read the verdicts. At most *most* findings of each kind."""
    found = {
        kind: file.number(f"SELECT count(*) FROM {table} WHERE {condition}")
        for kind, (table, condition, _) in _FOUND.items()
    }
    topics = _topics(file, plan)
    return Report(
        found=found,
        findings={kind: _findings(file, kind, most) for kind in _FOUND},
        topics=topics,
        removed=_reason(file, "removed"),
        compacted=_reason(file, "compacted"),
        unjudged_records=file.get_number("unjudged_records"),
        replays=file.number(f"SELECT count(*) FROM records WHERE flags & {Flag.REPLAY:d}"),
        requeued_late=file.number("SELECT count(*) FROM found_inversions WHERE requeued"),
        upper_id=file.get_number("upper"),
        notes=tuple(_notes(file, plan, found, topics)),
        work_file=work_file,
    )


def _reason(file: WorkFile, reason: str) -> int:
    return file.number("SELECT count(*) FROM found_missing WHERE reason = ?", reason)


def _findings(file: WorkFile, kind: str, most: int) -> list[dict[str, Any]]:
    table, condition, fields = _FOUND[kind]
    names = ["event_id", "topic", *(name.strip(' "') for name in fields.split(","))]
    rows = file.rows(
        f"SELECT event, t.name, {fields} FROM {table} f JOIN topics t ON t.number = f.topic "
        f"WHERE {condition} ORDER BY f.topic, f.seq LIMIT ?",
        most,
    )
    return [_finding(dict(zip(names, row, strict=True))) for row in rows]


def _finding(fields: dict[str, Any]) -> dict[str, Any]:
    fields["event_id"] = str(UUID(bytes=fields["event_id"]))
    for name in _INSTANTS & fields.keys():
        fields[name] = datetime.fromtimestamp(fields[name] / 1_000_000, UTC).isoformat()
    names = {"seq": "outbox_seq", "created": "created_at", "behind": "behind_outbox_seq"}
    return {names.get(name, name): value for name, value in fields.items()}


def _topics(file: WorkFile, plan: Plan) -> tuple[TopicCounts, ...]:
    rows: dict[int, dict[int, int]] = {}
    for topic, status, count in file.rows(
        "SELECT topic, status, count(*) FROM audited_rows WHERE created >= ? AND created < ? "
        "GROUP BY topic, status",
        plan.since,
        plan.until,
    ):
        rows.setdefault(topic, {})[status] = count
    records = dict(
        file.rows("SELECT topic, count(*) FROM records WHERE event IS NOT NULL GROUP BY topic")
    )
    found = []
    for number, name, is_there, unidentified in file.rows(
        "SELECT number, name, is_there, unidentified FROM topics ORDER BY name"
    ):
        counts = rows.get(number, {})
        found.append(
            TopicCounts(
                topic=name,
                rows=sum(counts.values()),
                produced=counts.get(Status.PRODUCED, 0),
                pending=counts.get(Status.PENDING, 0) + counts.get(Status.SCHEDULED, 0),
                dead_letters=counts.get(Status.DEAD, 0),
                records=records.get(number, 0),
                unidentified_records=unidentified,
                exists=bool(is_there),
            )
        )
    return tuple(found)


def _notes(
    file: WorkFile, plan: Plan, found: Mapping[str, int], topics: tuple[TopicCounts, ...]
) -> Iterable[str]:
    for counts in topics:
        if not counts.exists:
            yield f"topic {counts.topic} does not exist: all its produced events count as lost"
        if counts.unidentified_records:
            yield (
                f"topic {counts.topic}: {counts.unidentified_records:,} records do not say which event "
                "they are; a loss may be one of them"
            )
        if counts.exists and counts.topic in _begun_anew(file):
            yield (
                f"topic {counts.topic}: everything up to some row is missing, and nothing after it: so "
                "looks a topic that was deleted and made anew; --since leaves out what was before"
            )
    for name in _unseen(file, plan):
        yield (
            f"topic {name}: none of its produced events is younger than what all its partitions keep, and a "
            "minute: a loss among them could not be seen"
        )
    unknown = file.rows(
        "SELECT name FROM topics WHERE is_there AND compacted IS NULL ORDER BY name"
    )
    for (name,) in unknown:
        yield (
            f"topic {name}: whether it is compacted may not be read (grant DescribeConfigs), so it was "
            "taken for granted"
        )
    if plan.keeps_produced_us <= 0:
        yield (
            "relay.retention_seconds = 0 deletes rows as soon as they are produced: neither losses "
            "nor ghosts can be seen"
        )
    elif file.get_number("oldest_published", EVER) == EVER:
        yield "the table holds no produced row: neither losses nor ghosts can be seen"
    if found["ghost"] and not plan.sources:
        yield "if other outboxes publish to the same topics, name the sources of this one: --source"


def _unseen(file: WorkFile, plan: Plan) -> list[str]:
    """Topics with produced rows, of which not one would be called lost if its record were missing."""
    produced = (
        f"SELECT 1 FROM audited_rows r WHERE r.topic = t.number AND r.status = {Status.PRODUCED:d} "
        "AND r.created >= ?1 AND r.created < ?2"
    )
    rows = file.rows(
        f"SELECT t.name FROM topics t WHERE t.is_there AND EXISTS ({produced}) AND NOT EXISTS "
        f"({produced} AND coalesce(r.published, r.created) > "
        "(SELECT min(p.seen_from) FROM parts p WHERE p.topic = t.number)) ORDER BY t.name",
        plan.since,
        plan.until,
    )
    return [name for (name,) in rows]


def _begun_anew(file: WorkFile) -> frozenset[str]:
    """Topics of which all lost rows are older than all that were found."""
    return frozenset(
        name
        for (name,) in file.rows(
            "SELECT t.name FROM topics t JOIN (SELECT topic, max(seq) AS last, count(*) AS count "
            "FROM found_missing WHERE reason IS NULL GROUP BY topic) m ON m.topic = t.number "
            "WHERE m.count > 1 AND m.last < (SELECT min(c.seq) FROM records c "
            "JOIN audited_rows r ON r.id = c.seq AND r.event = c.event WHERE c.topic = t.number)"
        )
    )
