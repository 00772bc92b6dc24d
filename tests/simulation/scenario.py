"""
What a seed means: the settings of a world, who writes what when, and which faults come.

A scenario is data, so that it can be shrunk: any of its writes and faults may be left out. `schedule`
seeds what is left to chance while it runs: delays, and the order of what is ready at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

ENGINES = ("mariadb", "postgresql", "postgresql ahead", "sqlite")
"""Dirty reads, holders of locks, the same reading ahead of an open transaction, or one writer."""

LEASE_SECONDS = 2.5
DEADLINE_SECONDS = 1.0
STOP_SECONDS = 4.0
BUSY_SECONDS = 5.0
"""How long writers write and faults come."""

OUTAGE = "stop while nothing answers"

FAULTS = {
    # kind: weight
    "crash": 5,
    "crash at a statement": 4,
    "crash after an ack": 3,
    "pause shorter than the lease": 2,
    "pause longer than the lease": 4,
    "SIGTERM": 2,
    "SIGTERM after an ack": 3,
    "join": 3,
    "relay cut off from the database": 4,
    "database refuses": 1,
    "database hangs": 2,
    "database slow": 2,
    "statement lost": 3,
    "answer lost": 5,
    "statement late": 5,
    "statement waits for a lock": 4,
    "failover": 3,
    "database clock ahead": 2,
    "database clock back": 1,
    "wall clock back": 1,
    "schema does not fit": 1,
    "broker refuses": 1,
    "broker hangs": 2,
    "broker slow": 2,
    "request lost": 3,
    "ack lost": 4,
    "append late": 4,
    "partition sick": 3,
    "topic missing": 2,
    "topic refuses": 1,
    "partitions grow": 3,
    "operator pauses a topic": 3,
    "operator pauses everything": 1,
    "operator requeues": 4,
    "operator discards": 2,
}

QUOTA = "broker throttles"
"""A fault that comes beside the others."""

OF_THE_LIST = {*FAULTS, QUOTA, OUTAGE}
LEAST_FAULTS = 3
"""What each world meets of them at least."""

STATEMENTS = (
    "mark", "mark", "mark", "dead", "renew", "acquire", "release", "take", "give", "read", "peek",
    "max_id", "dead_keys",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RowPlan:
    """A row to insert. `kind`: good, invalid (refused), large, unreadable, or aside (a large payload)."""

    topic: str
    key: bytes | None
    kind: str = "good"


@dataclass(frozen=True, slots=True)
class Write:
    """A transaction. `unseen` is how long each id is given out before its row can be seen."""

    at: float
    rows: tuple[RowPlan, ...]
    unseen: float
    open_for: float
    commits: bool


@dataclass(frozen=True, slots=True)
class Fault:
    """`which` chooses a relay, topic or statement; `more` is what else a kind needs, in [0, 1)."""

    kind: str
    at: float
    seconds: float
    which: int
    more: float


OPERATIONS = ("replay", "replay", "purge", "requeue", "discard")


@dataclass(frozen=True, slots=True)
class Operation:
    """
    A command that an operator gives, and gives again if it fails or is killed.

    `seconds`: how old what is purged must be, or how long the question is read. `killed_after` so many steps, 0 for
    never. `goes_wrong` and `which` say what becomes of one of its statements.
    """

    kind: str
    at: float
    seconds: float
    rows_at_once: int
    killed_after: int
    goes_wrong: int
    which: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One world, from its beginning to its end."""

    seed: int
    schedule: int
    engine: str
    relays: int
    slots: int
    hold_key: bool
    retention_seconds: float
    in_flight_rows: int
    chunk_rows: int
    batch_bytes: int
    sweep_rows: int
    topics: dict[str, int]
    lasting: str
    """The fault that goes on in the first phase of the end."""
    first_poll_seconds: float
    few: bool
    writes: tuple[Write, ...]
    faults: tuple[Fault, ...]
    canary_seconds: float = 0.0
    """How often the relays write a canary; 0 for never."""
    operations: tuple[Operation, ...] = ()
    least_faults: int = 0
    """Of what is armed some may find nothing to hit: then relays are killed until so much was met."""

    @property
    def rows(self) -> int:
        """How many rows are inserted."""
        return sum(len(write.rows) for write in self.writes)


def scenario(seed: int) -> Scenario:
    """The scenario of *seed*: always the same."""
    r = Random(seed)
    topics = {f"t{n}": r.choice((1, 1, 2, 3)) for n in range(r.choice((1, 2, 2, 3)))}
    chunk = r.choice((2, 4, 10, 20))
    size = r.choice((1, 1, 1, 2, 4))
    faults = _faults(r, size)
    engine = r.choice(("mariadb", "mariadb", "mariadb", *ENGINES[1:]))
    lasting = r.choice(("", "", "partition sick", "operator pauses a topic", OUTAGE))
    troubles = [fault.at for fault in faults] + [BUSY_SECONDS] * (lasting == OUTAGE)
    return Scenario(
        seed=seed,
        schedule=seed,
        engine=engine,
        relays=r.choice((2, 2, 2, 3, 3, 4)),
        slots=1 if engine == "sqlite" else r.choice((1, 1, 2, 3)),
        hold_key=r.random() < 0.4,
        retention_seconds=r.choice((0.0, 0.0, 604_800.0, 604_800.0, 2.0)),
        in_flight_rows=chunk * r.choice((2, 3, 6)),
        chunk_rows=chunk,
        batch_bytes=r.choice((600, 2000, 10_000)),
        sweep_rows=r.choice((3, 10, 100)),
        topics=topics,
        lasting=lasting,
        first_poll_seconds=r.choice((0.01, 0.05, 0.05)),
        few=r.random() < 0.4,
        writes=_writes(r, tuple(topics), size, troubles),
        faults=faults + _quotas(Random(f"quotas of {seed}")),
        least_faults=LEAST_FAULTS,
        **_operated(Random(f"operators of {seed}")),
    )


def _quotas(r: Random) -> tuple[Fault, ...]:
    """From a source of chance of its own, as `_operated`."""
    return tuple(
        Fault(
            kind=QUOTA,
            at=0.2 + r.random() * (BUSY_SECONDS - 0.2),
            seconds=r.choice((0.1, 0.5, 2.0, 6.0)) * (0.5 + r.random()),
            which=0,
            more=0.0,
        )
        for _ in range(r.choice((0, 0, 1, 2)))
    )


def _operated(r: Random) -> dict[str, Any]:
    """From a source of chance of its own, so that what a seed meant before there were operators it means still."""
    canary_seconds = r.choice((0.0, 0.0, 1.0, 2.5))
    count = r.choice((0, 0, 1, 2, 3))
    operations = tuple(
        Operation(
            kind=r.choice(OPERATIONS),
            at=0.7 + r.random() * BUSY_SECONDS,
            seconds=r.choice((0.0, 0.3, 1.5)),
            rows_at_once=r.choice((1, 2, 5, 25)),
            killed_after=r.choice((0, r.randint(1, 12), r.randint(1, 60))),
            goes_wrong=r.randrange(6),
            which=r.randrange(1000),
        )
        for _ in range(count)
    )
    return {"canary_seconds": canary_seconds, "operations": operations}


def _writes(
    r: Random, topics: tuple[str, ...], size: int, troubles: list[float]
) -> tuple[Write, ...]:
    keys = [b"k%d" % n for n in range(r.randint(5, 5 + 3 * size))]
    # A hot key takes many of the rows.
    hot = r.choice(keys)
    used: list[bytes] = []
    poison = r.choice((0.0, 0.02, 0.06))
    rows = 0
    writes: list[Write] = []
    want = r.randint(30, 36 + 14 * size)
    burst = 0.0
    while rows < want or len(set(used)) < 5:
        if r.random() < 0.3:
            # Much is written around the faults, and when the relays begin to share.
            around = max(0.0, r.choice((0.8, *troubles)) + 0.3 * (r.random() - 0.6))
            burst = r.choice((around, r.random() * BUSY_SECONDS * 0.9))
        plans = []
        for _ in range(r.choice((1, 1, 1, 2, 3, 8))):
            key: bytes | None = hot if r.random() < 0.3 else r.choice(keys)
            if r.random() < 0.08:
                key = None
            else:
                used.append(key or b"")
            kind = "good"
            if r.random() < poison:
                kind = r.choice(("invalid", "large", "unreadable"))
            elif r.random() < 0.03:
                kind = "aside"
            plans.append(RowPlan(r.choice(topics), key, kind))
        rows += len(plans)
        writes.append(
            Write(
                at=burst + r.random() * r.choice((0.02, 0.5)),
                rows=tuple(plans),
                unseen=r.choice((0.0, 0.0, 0.0, 0.002, 0.05, 1.4)) * r.random(),
                open_for=r.choice((0.0, 0.001, 0.001, 0.01, 0.2, 3.0)) * r.random(),
                commits=r.random() > 0.1,
            )
        )
    return tuple(writes)


def _faults(r: Random, size: int) -> tuple[Fault, ...]:
    kinds = r.choices(tuple(FAULTS), weights=tuple(FAULTS.values()), k=r.randint(3, 5 + 2 * size))
    return tuple(
        Fault(
            kind=kind,
            at=0.2 + r.random() * (BUSY_SECONDS - 0.2),
            seconds=r.choice((0.3, 1.0, 1.0, 3.0, 6.0)) * (0.5 + r.random()),
            which=r.randrange(1000),
            more=r.random(),
        )
        for kind in kinds
    )
