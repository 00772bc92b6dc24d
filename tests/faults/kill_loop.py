"""
Rounds of a kill loop: relays, now and then the database and the broker, are killed, frozen and stopped while an
application writes. Each round has a table, a topic and an account of its own.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from tests.acceptance.coming_and_going import owners
from tests.acceptance.relays import RelayProcess, wait_until_relayed, write_config
from tests.faults.oracle import Account, Repeats, account_of
from tests.faults.site import DATABASE_TIMES, until
from tests.services.database import Database
from tests.services.kafka import Kafka
from tests.services.mariadb import MariaDB
from tests.services.postgresql import PostgreSQL

IN_FLIGHT_ROWS = 1000
LEASE_SECONDS = 2.0
PARTITIONS = 8
BUSY_SECONDS = 3 * LEASE_SECONDS
FROZEN_SECONDS = 3.0
"""Longer than the lease, a statement and a publish deadline may take."""

KILLS = ("kill relay", "kill database", "kill broker")
SHARES = {
    "kill database": 0.03,
    "kill broker": 0.02,
    "stop relay": 0.10,
    "pause relay": 0.05,
    "freeze database": 0.01,
    "freeze broker": 0.01,
}
"""For each kill; at least one of each in a round."""


def schedule(kills: int, rng: random.Random) -> list[str]:
    """What happens in a round with so many kills, in a random order."""
    counts = {fate: max(1, round(kills * share)) for fate, share in SHARES.items()}
    counts["kill relay"] = max(0, kills - counts["kill database"] - counts["kill broker"])
    fates = [fate for fate, count in counts.items() for _ in range(count)]
    rng.shuffle(fates)
    return fates


@dataclass
class Scene:
    """What a round plays with."""

    relays: list[RelayProcess]
    server: MariaDB | PostgreSQL
    kafka: Kafka
    engine: sa.Engine
    rng: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    _paused: dict[int, float] = field(default_factory=dict)

    def play(self, fate: str) -> None:
        """Let it happen; a server is back before the next thing happens, a relay is started again."""
        if fate == "pause relay" and len(self._paused) + 2 > len(self.relays):
            fate = "kill relay"
        self.counts[fate] += 1
        what, _, whom = fate.partition(" ")
        if whom == "relay":
            self._to_a_relay(what)
            return
        service = self.server if whom == "database" else self.kafka
        if what == "kill":
            service.kill()
            service.start()
        else:
            service.freeze()
            time.sleep(FROZEN_SECONDS)
            service.thaw()

    def _to_a_relay(self, what: str) -> None:
        awake = [i for i in range(len(self.relays)) if i not in self._paused]
        busy = self._that_hold_lanes(awake)
        index = self.rng.choice(busy or awake)
        self.counts["busy"] += bool(busy)
        relay = self.relays[index]
        if what == "pause":
            relay.running.send_signal(signal.SIGSTOP)
            self._paused[index] = time.monotonic() + 1.5 * LEASE_SECONDS
        elif what == "stop":
            relay.running.terminate()
            # A relay that has just been started may not listen to it yet.
            assert relay.running.wait(timeout=30) in (0, -signal.SIGTERM)
            start(relay)
        else:
            relay.kill()
            start(relay)

    def _that_hold_lanes(self, awake: list[int]) -> list[int]:
        """Whom it hurts. Waits for one: to kill relays that are just starting shows nothing."""
        deadline = time.monotonic() + BUSY_SECONDS
        while time.monotonic() < deadline:
            held = owners(self.engine)
            pids = {int(owner.rpartition(":")[2]) for owner in held if owner}
            busy = [i for i in awake if self.relays[i].running.pid in pids]
            if busy:
                return busy
            time.sleep(0.02)
        return []

    def wake(self, *, all_of_them: bool = False) -> None:
        """Those that have slept long enough go on."""
        for index, wake_at in list(self._paused.items()):
            if all_of_them or time.monotonic() >= wake_at:
                del self._paused[index]
                self.relays[index].running.send_signal(signal.SIGCONT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What a round came to."""

    database: str
    active: int
    seed: int
    faults: Counter[str]
    account: Account
    most_repeated: int
    seconds: float

    @property
    def kills(self) -> int:
        """How often something was killed."""
        return sum(self.faults[fate] for fate in KILLS)

    @property
    def all_faults(self) -> int:
        """Kills and all others."""
        return sum(count for fate, count in self.faults.items() if fate != "busy")

    @property
    def bound(self) -> int:
        """The most duplicates that so many faults may cause."""
        return self.all_faults * IN_FLIGHT_ROWS

    @property
    def is_well(self) -> bool:
        """Whether every promise was kept."""
        return self.account.is_well and self.account.duplicates <= self.bound


def play_round(
    command: str,
    server: MariaDB | PostgreSQL,
    kafka: Kafka,
    folder: Path,
    *,
    kills: int,
    active: int,
    seed: int,
) -> Round:
    """One round: *active* relays and one more."""
    started = time.monotonic()
    folder.mkdir()
    database = server.create_database()
    topic = f"kills-{database.name}"
    kafka.create_topic(topic, partitions=PARTITIONS)
    rng = random.Random(seed)
    engine = sa.create_engine(database.sync_url, poolclass=sa.NullPool)
    scene = Scene(_relays(command, database, kafka, folder, active), server, kafka, engine, rng)
    ledger = folder / "ledger"
    repeats = Repeats(kafka, topic, PARTITIONS)
    with _running(scene), _writing(database, topic, ledger, seed) as writer:
        repeats.start()
        for number, fate in enumerate(schedule(kills, rng), 1):
            time.sleep(rng.uniform(0.05, 0.5))
            scene.wake()
            repeats.fault = number
            scene.play(fate)
            assert writer.poll() is None
        scene.wake(all_of_them=True)
        writer.terminate()
        assert writer.wait(timeout=60) == 0
        wait_until_relayed(database)
        for relay in scene.relays:
            until(lambda relay=relay: relay.listens)
            relay.stop()
    repeats.end()
    return Round(
        database=server.name,
        active=active,
        seed=seed,
        faults=scene.counts,
        account=account_of(ledger, engine, kafka, topic),
        most_repeated=max(repeats.by_fault.values(), default=0),
        seconds=time.monotonic() - started,
    )


def _relays(
    command: str, database: Database, kafka: Kafka, folder: Path, active: int
) -> list[RelayProcess]:
    relays = []
    for number in range(active + 1):
        own = folder / f"relay-{number}"
        own.mkdir()
        config = write_config(
            own,
            database,
            kafka,
            max_active_relays=active,
            in_flight_rows=IN_FLIGHT_ROWS,
            chunk_rows=IN_FLIGHT_ROWS // 4,
            lease_seconds=LEASE_SECONDS,
            publish_deadline_seconds=1.0,
            standby_seconds=0.2,
            stop_seconds=3.0,
        )
        relays.append(RelayProcess(command, config, name=own.name))
    migrate = [command, "migrate", "--config", str(relays[0].config)]
    subprocess.run(migrate, check=True, cwd=folder, capture_output=True)
    return relays


def start(relay: RelayProcess) -> None:
    """Start it with short waits for the database."""
    relay.start(*(word for setting in DATABASE_TIMES for word in ("--set", setting)))


@contextmanager
def _running(scene: Scene) -> Iterator[None]:
    for relay in scene.relays:
        start(relay)
    try:
        yield
    finally:
        scene.wake(all_of_them=True)
        for relay in scene.relays:
            relay.end()


@contextmanager
def _writing(
    database: Database, topic: str, ledger: Path, seed: int
) -> Iterator[subprocess.Popen[bytes]]:
    arguments = (database.sync_url, topic, str(ledger), str(seed))
    writer = subprocess.Popen([sys.executable, "-m", "tests.faults.writer", *arguments])
    try:
        until(lambda: ledger.exists() and "committed" in ledger.read_text())
        yield writer
    finally:
        writer.kill()
        writer.wait()


COLUMNS: tuple[tuple[str, Callable[[Round], object]], ...] = (
    ("relays", lambda r: f"{r.active} + 1"),
    ("kills", lambda r: r.kills),
    ("of the database", lambda r: r.faults["kill database"]),
    ("of the broker", lambda r: r.faults["kill broker"]),
    ("other faults", lambda r: r.all_faults - r.kills),
    ("of relays at work", lambda r: r.faults["busy"]),
    ("committed", lambda r: r.account.committed),
    ("rolled back", lambda r: r.account.rolled_back),
    ("COMMIT unknown", lambda r: r.account.unknown),
    ("lost", lambda r: r.account.lost + r.account.vanished),
    ("ghosts", lambda r: r.account.ghosts),
    ("inversions", lambda r: r.account.inversions),
    ("dead letters", lambda r: r.account.dead),
    ("duplicates", lambda r: r.account.duplicates),
    ("most after one fault", lambda r: r.most_repeated),
    ("minutes", lambda r: f"{r.seconds / 60:.1f}"),
)


def total(rounds: list[Round]) -> dict[str, object]:
    """Each column summed up over the rounds, but for the most and what cannot be summed up."""
    found: dict[str, object] = {}
    for name, value in COLUMNS:
        values = [value(r) for r in rounds]
        if name == "relays":
            found[name] = ""
        elif name == "most after one fault":
            found[name] = max(r.most_repeated for r in rounds)
        elif name == "minutes":
            found[name] = f"{sum(r.seconds for r in rounds) / 60:.1f}"
        else:
            found[name] = sum(int(str(v)) for v in values)
    return found


def table(rounds: list[Round]) -> str:
    """The rounds as a Markdown table, with a line that sums them up."""
    lines = [[str(value(r)) for _, value in COLUMNS] for r in rounds]
    lines.append([f"**{value}**" if value != "" else "all" for value in total(rounds).values()])
    head = [name for name, _ in COLUMNS]
    rows = [head, ["---:"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
