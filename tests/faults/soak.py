"""
One relay, for as long as you like, under faults at random: `python -m tests.faults.soak SECONDS [SEED]`.

After each fault, when all is relayed again, its memory, files, threads, connections and lag are measured. Exits 1
if one of them grows, or if an event is lost, given up or inverted. The relay itself is never started again.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil

from outbox_relay.schema import Status
from tests.faults.flat import Course, course, table
from tests.faults.network import FAULTS
from tests.faults.site import Site, Sites
from tests.services.far_kafka import FarKafka
from tests.services.mariadb import MariaDB
from tests.services.process import Service
from tests.services.toxiproxy import Toxiproxy

COMMAND = str(Path(sys.executable).with_name("outbox-relay"))
ROWS_AT_ONCE = 20
WRITES_OF_A_CYCLE = 20
WRITE_PAUSE_SECONDS = 0.1
MOST_FAULT_SECONDS = 6.0
SETTLE_SECONDS = 1.0
RETENTION_SECONDS = 120.0


class Soak:
    """The relay with its surroundings, and what was measured."""

    def __init__(self, site: Site, servers: tuple[Service, Service], rng: random.Random) -> None:
        self.site = site
        self.servers = servers
        self.rng = rng
        self.faults: Counter[str] = Counter()
        self.measures: dict[str, list[float]] = {}
        self._process = psutil.Process(site.relay.running.pid)

    def cycle(self) -> None:
        """A fault under load, its end, and a measurement."""
        name, fault, mend = self._any_fault()
        self.faults[name] += 1
        self._write()
        fault()
        if not name.startswith("MariaDB"):
            self._write()
        time.sleep(self.rng.uniform(0.2, MOST_FAULT_SECONDS))
        mend()
        self._write()
        self.site.wait_until_relayed(seconds=120)
        time.sleep(SETTLE_SECONDS)
        self._measure()

    def _any_fault(self) -> tuple[str, Callable[[], None], Callable[[], None]]:
        if self.rng.random() < 0.15:
            server = self.rng.choice(self.servers)
            title = "MariaDB" if isinstance(server, MariaDB) else "Kafka"
            if self.rng.random() < 0.5:
                return f"{title} killed", server.kill, server.start
            return f"{title} frozen", server.freeze, server.thaw
        name, fault = self.rng.choice(list(FAULTS.items()))
        link = self.rng.choice([self.site.broker, self.site.database])
        which = "to the broker" if link is self.site.broker else "to the database"
        return f"{name} {which}", lambda: fault(link), link.cure

    def _write(self) -> None:
        for _ in range(WRITES_OF_A_CYCLE):
            self.site.write(ROWS_AT_ONCE)
            time.sleep(WRITE_PAUSE_SECONDS)

    def _measure(self) -> None:
        started = time.monotonic()
        self.site.write(1)
        self.site.wait_until_relayed()
        lag = time.monotonic() - started
        process = self._process
        sockets = [c for c in process.net_connections("tcp") if c.status == "ESTABLISHED"]
        found = {
            "memory, MiB": process.memory_info().rss / 2**20,
            "open files": process.num_fds(),
            "threads": process.num_threads(),
            "connections": len(sockets),
            "lag, ms": lag * 1000,
        }
        for name, value in found.items():
            self.measures.setdefault(name, []).append(value)

    def courses(self) -> list[Course]:
        """What became of each measure."""
        return [course(name, values) for name, values in self.measures.items()]


def soak(site: Site, servers: tuple[Service, Service], seconds: float, seed: int) -> bool:
    """Run it and say what was found. Whether all is well."""
    run = Soak(site, servers, random.Random(seed))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        run.cycle()
    courses = run.courses()
    account = site.account()
    alive = site.relay.running.poll() is None
    print(
        f"\n{seconds:g} s, seed {seed}, {site.written} events, {sum(run.faults.values())} faults:"
    )
    print(", ".join(f"{count} × {name}" for name, count in sorted(run.faults.items())))
    print(f"\n{table(courses)}\n")
    print(
        f"lost {account.lost}, ghosts {account.ghosts}, inversions {account.inversions}, "
        f"dead letters {account.statuses.get(Status.DEAD, 0)}, duplicates {account.duplicates}"
    )
    wrong = account.lost + account.ghosts + account.inversions
    wrong += account.statuses.get(Status.DEAD, 0) + account.statuses.get(Status.PENDING, 0)
    return alive and not wrong and all(c.is_flat for c in courses)


def main() -> int:
    """Start the servers and the relay, and soak."""
    seconds = float(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with (
        tempfile.TemporaryDirectory() as folder,
        MariaDB() as mariadb,
        FarKafka() as kafka,
        Toxiproxy() as proxy,
    ):
        kafka.open_doors(proxy)
        sites = Sites(COMMAND, proxy, kafka, Path(folder))
        site = sites.make("soak", mariadb, retention_seconds=RETENTION_SECONDS)
        try:
            site.start()
            return 0 if soak(site, (mariadb, kafka), seconds, seed) else 1
        finally:
            sites.end()


if __name__ == "__main__":
    sys.exit(main())
