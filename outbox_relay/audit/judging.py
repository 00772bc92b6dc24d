"""
The verdicts, in SQL over the work file; the rules are in the package's docstring. Safe to repeat.

`judge_ghosts` only finds what looks like ghosts; `rechecking` looks them up once more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from outbox_relay.audit.plan import EVER, Plan
from outbox_relay.audit.records import Flag
from outbox_relay.audit.workfile import WorkFile
from outbox_relay.relay.partitioning import KeyPartitions
from outbox_relay.schema import Codec, Status

SLACK_US: Final = 60 * 1_000_000
"""How far the marks of neighbours may be apart from the order in which they were published."""

FIRST_OFFSETS: Final = 1000
FIRST_GROUPS: Final = 3
"""
What counts as the first of a partition: so many offsets, or records with so many groups of marks, whichever ends
sooner. Among them is one that is no late repetition: repetitions of one fault were marked together.
"""

_SAME: Final = "r.id = c.seq AND r.event = c.event AND r.topic = c.topic"
_FIRST_COPIES: Final = f"c.flags & {Flag.REPLAY:d} = 0"
_IN_RANGE: Final = "c.created >= :since AND c.created < :until"

Step = Callable[[WorkFile, Plan], None]


def prepare(file: WorkFile, plan: Plan) -> None:
    """Give records without a row's id the id of the row that has their event, and make the index."""
    if file.rows("SELECT 1 FROM records WHERE seq IS NULL AND event IS NOT NULL LIMIT 1"):
        file.run("CREATE INDEX IF NOT EXISTS rows_event ON audited_rows (event)")
        with file.transaction():
            file.run(
                "UPDATE records SET seq = (SELECT min(r.id) FROM audited_rows r "
                "WHERE r.event = records.event AND r.topic = records.topic) "
                "WHERE seq IS NULL AND event IS NOT NULL"
            )
    file.run("CREATE INDEX IF NOT EXISTS records_seq ON records (seq)")


def find_seen_from(file: WorkFile, plan: Plan) -> None:
    """Since when all of each partition can be seen, where its first records must tell."""
    if not file.rows("SELECT 1 FROM parts WHERE seen_from IS NULL LIMIT 1"):
        return
    matched = (
        f"FROM records c JOIN parts p USING (topic, partition) JOIN audited_rows r ON {_SAME} "
        f"WHERE p.seen_from IS NULL AND r.status = {Status.PRODUCED:d} "
        f'AND c.flags & {Flag.REPLAY | Flag.REQUEUED:d} = 0 AND c."offset" >= p.begin'
    )
    _table(
        file,
        "firsts",
        f'SELECT c.topic, c.partition, min(c."offset") AS first {matched} GROUP BY c.topic, c.partition',
    )
    _table(
        file,
        "first_marks",
        'SELECT c.topic, c.partition, c."offset", coalesce(r.published, r.created) AS mark '
        f"{matched} AND EXISTS (SELECT 1 FROM firsts f WHERE f.topic = c.topic "
        f'AND f.partition = c.partition AND c."offset" < f.first + {FIRST_OFFSETS})',
    )
    file.run('CREATE INDEX temp.first_marks_ix ON first_marks (topic, partition, "offset")')
    unseen = file.rows("SELECT topic, partition FROM parts WHERE seen_from IS NULL")
    with file.transaction():
        for part in unseen:
            marks = file.rows(
                'SELECT mark FROM first_marks WHERE topic = ? AND partition = ? ORDER BY "offset"',
                *part,
            )
            file.change(
                "UPDATE parts SET seen_from = ? WHERE topic = ? AND partition = ?",
                [(seen_since([mark for (mark,) in marks]), *part)],
            )


def seen_since(marks: Sequence[int]) -> int:
    """
    Since when all of a partition can be seen, of whose first kept records the rows were marked at *marks*.

    Whatever was marked later, by a minute, was published behind one of them. EVER if there are none.

    >>> minute = SLACK_US
    >>> seen_since([0, 1, 9 * minute, 20 * minute, 40 * minute]) // minute
    21
    >>> seen_since([50 * minute, 51 * minute, 0]) // minute
    52
    """
    latest, last, groups = -1, None, 0
    for mark in marks:
        groups += last is None or abs(mark - last) > SLACK_US
        if groups > FIRST_GROUPS:
            break
        latest, last = max(latest, mark), mark
    return EVER if last is None else latest + SLACK_US


def find_missing(file: WorkFile, plan: Plan) -> None:
    """Produced rows without a record. `reason` is NULL if nothing explains it."""
    _table(
        file,
        "found_missing",
        "SELECT r.id AS seq, r.event, r.topic, r.key, r.created, r.published, NULL AS reason "
        f"FROM audited_rows r WHERE r.status = {Status.PRODUCED:d} "
        "AND r.created >= :since AND r.created < :until "
        f"AND NOT EXISTS (SELECT 1 FROM records c WHERE {_SAME})",
        since=plan.since,
        until=plan.until,
    )
    if not file.rows("SELECT 1 FROM found_missing LIMIT 1"):
        return
    _explain_by_begin(file)
    _explain_by_compaction(file)


def _explain_by_begin(file: WorkFile) -> None:
    """Their records may be in front of what can be seen."""
    parts: dict[int, dict[int, int]] = {}
    for topic, partition, instant in file.rows("SELECT topic, partition, seen_from FROM parts"):
        parts.setdefault(topic, {})[partition] = instant
    keys = {topic: KeyPartitions(len(of_topic)) for topic, of_topic in parts.items()}

    def is_elsewhere(topic: int, key: bytes, partition: int) -> bool:
        return keys[topic][key] != partition

    _function(file, "is_elsewhere", 3, is_elsewhere)
    scattered = set()
    for topic, of_topic in parts.items():
        if len(set(of_topic.values())) > 1 and file.rows(
            "SELECT 1 FROM records c WHERE c.topic = ? AND c.key IS NOT NULL AND c.seq IS NOT NULL "
            "AND is_elsewhere(c.topic, c.key, c.partition) LIMIT 1",
            topic,
        ):
            # The number of partitions was another one, or somebody else chose them.
            scattered.add(topic)

    def seen_from(topic: int, key: bytes | None) -> int:
        of_topic = parts.get(topic)
        if of_topic is None:
            return -1  # no such topic: nothing of it can be seen, and nothing excuses that
        if key is None or topic in scattered:
            return max(of_topic.values())
        return of_topic.get(keys[topic][key], EVER)

    _function(file, "seen_from", 2, seen_from)
    file.run(
        "UPDATE found_missing SET reason = 'removed' "
        "WHERE coalesce(published, created) <= seen_from(topic, key)"
    )


def _explain_by_compaction(file: WorkFile) -> None:
    """Later records of their keys took their place, or a tombstone that is gone itself."""
    _table(
        file,
        "compacted_keys",
        "SELECT DISTINCT m.topic, m.key FROM found_missing m JOIN topics t ON t.number = m.topic "
        "WHERE m.reason IS NULL AND m.key IS NOT NULL AND t.is_there AND coalesce(t.compacted, 1)",
    )
    file.run("CREATE UNIQUE INDEX temp.compacted_keys_ix ON compacted_keys (topic, key)")
    _table(
        file,
        "last_of_key",
        # Foreign records, and copies on purpose, may stand behind anything.
        "SELECT c.topic, c.key, max(CASE WHEN c.seq IS NULL OR c.flags & :late THEN :ever "
        "ELSE c.seq END) AS last FROM records c JOIN compacted_keys USING (topic, key) "
        "GROUP BY c.topic, c.key UNION ALL "
        "SELECT r.topic, r.key, max(r.id) FROM audited_rows r JOIN compacted_keys USING (topic, key) "
        "WHERE r.codec = :tombstone AND r.status = :produced GROUP BY r.topic, r.key",
        late=int(Flag.REPLAY | Flag.REQUEUED),
        ever=EVER,
        tombstone=int(Codec.TOMBSTONE),
        produced=int(Status.PRODUCED),
    )
    file.run("CREATE INDEX temp.last_of_key_ix ON last_of_key (topic, key)")
    file.run(
        "UPDATE found_missing SET reason = 'compacted' WHERE reason IS NULL AND seq <= (SELECT max(last) "
        "FROM last_of_key l WHERE l.topic = found_missing.topic AND l.key = found_missing.key)"
    )


def find_duplicates(file: WorkFile, plan: Plan) -> None:
    """Events that are on their topic more than once."""
    _table(
        file,
        "found_duplicates",
        'SELECT min(c.seq) AS seq, c.event, c.topic, c.partition, min(c."offset") AS "offset", '
        'max(c."offset") AS last_offset, count(*) AS copies FROM records c '
        f"WHERE c.event IS NOT NULL AND {_FIRST_COPIES} AND {_IN_RANGE} "
        f"AND (c.seq IS NOT NULL OR c.flags & {Flag.OURS:d}) "
        "GROUP BY c.topic, c.event HAVING count(*) > 1",
        since=plan.since,
        until=plan.until,
    )


def find_suspected_ghosts(file: WorkFile, plan: Plan) -> None:
    """
    Records of this outbox whose events are not in the table, or are pending or dead there.

    `status` is that of the row; NULL without one. What is left after `rechecking` has a reason.
    """
    _table(
        file,
        "found_ghosts",
        'SELECT c.seq, c.event, c.topic, c.partition, c."offset", c.created, r.status, '
        "NULL AS reason FROM records c "
        f"LEFT JOIN audited_rows r ON {_SAME} "
        f"WHERE c.flags & {Flag.OURS:d} AND {_FIRST_COPIES} AND {_IN_RANGE} "
        f"AND (c.seq IS NULL OR c.seq <= :upper) "
        f"AND (r.id IS NULL AND c.created > :oldest OR r.status <> {Status.PRODUCED:d})",
        since=plan.since,
        until=plan.until,
        upper=file.get_number("upper"),
        oldest=file.get_number("oldest_published"),
    )
    file.put(
        unjudged_records=file.number(
            f"SELECT count(*) FROM records c WHERE c.flags & {Flag.OURS:d} AND {_FIRST_COPIES} "
            "AND c.created >= ? AND c.created < ? AND (c.seq IS NULL OR c.seq <= ?) "
            f"AND c.created <= ? AND NOT EXISTS (SELECT 1 FROM audited_rows r WHERE {_SAME})",
            plan.since,
            plan.until,
            file.get_number("upper"),
            file.get_number("oldest_published"),
        )
    )


def find_inversions(file: WorkFile, plan: Plan) -> None:
    """
    First copies behind a later one of their key. `requeued` says that it was a dead letter.

    Only a record with a smaller id than one before it on its partition can be one: of all others the
    keys need not be looked at, so hardly anything is sorted.
    """
    _table(
        file,
        "suspects",
        "SELECT DISTINCT c.topic, c.partition, c.key FROM records c "
        "WHERE c.late AND c.seq IS NOT NULL AND c.key IS NOT NULL",
    )
    file.run("CREATE UNIQUE INDEX temp.suspects_ix ON suspects (topic, partition, key)")
    _table(
        file,
        "ordered",
        # Beside min(), SQLite gives the other columns of that record.
        'SELECT c.seq, c.event, c.topic, c.partition, c.key, min(c."offset") AS "offset", c.flags, '
        "c.created FROM records c JOIN suspects USING (topic, partition, key) "
        f"WHERE c.seq IS NOT NULL AND {_FIRST_COPIES} AND NOT EXISTS (SELECT 1 FROM found_ghosts g "
        'WHERE g.topic = c.topic AND g.partition = c.partition AND g."offset" = c."offset") '
        "GROUP BY c.topic, c.partition, c.key, c.seq, c.event",
    )
    _table(
        file,
        "found_inversions",
        'SELECT c.seq, c.event, c.topic, c.partition, c."offset", c.behind, '
        f"c.flags & {Flag.REQUEUED:d} <> 0 AS requeued FROM (SELECT o.*, max(seq) OVER ("
        'PARTITION BY topic, partition, key ORDER BY "offset" '
        "ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS behind FROM ordered o) c "
        "JOIN parts p USING (topic, partition) "
        f"WHERE c.seq < c.behind AND {_IN_RANGE} AND c.created > p.seen_from",
        since=plan.since,
        until=plan.until,
    )


BEFORE_RECHECK: Final[tuple[tuple[str, Step], ...]] = (
    ("ids", prepare),
    ("begins", find_seen_from),
    ("losses", find_missing),
    ("duplicates", find_duplicates),
    ("ghosts", find_suspected_ghosts),
)
"""In this order; each may take a minute for ten million events."""

AFTER_RECHECK: Final[tuple[tuple[str, Step], ...]] = (("inversions", find_inversions),)


def _table(file: WorkFile, name: str, query: str, **parameters: object) -> None:
    """Make the table anew. Only what begins with ``found_`` stays in the file."""
    kept = name.startswith("found_")
    where = "main" if kept else "temp"
    with file.transaction():
        file.run(f"DROP TABLE IF EXISTS {where}.{name}")
        file.run(f"CREATE {'' if kept else 'TEMP '}TABLE {name} AS {query}", **parameters)


def _function(file: WorkFile, name: str, arguments: int, function: Callable[..., int]) -> None:
    with file.errors():
        file.base.create_function(name, arguments, function, deterministic=True)
