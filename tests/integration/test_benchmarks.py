"""
Each benchmark, with few rows, on the servers of the tests: it runs, and finds every event once and in order.
"""

from __future__ import annotations

import pytest

from benchmarks import drain, flatness, idle, insert, latency, migrating, roundtrip, takeover
from benchmarks.servers import MariaDBServer, PostgreSQLServer, Servers
from tests.services.kafka import Kafka

ROWS = 300
WRONG = ("lost", "duplicated", "inverted", "split_keys")


@pytest.fixture
def on_mariadb(mariadb, kafka) -> Servers:
    """The session's own servers."""
    return Servers(database=MariaDBServer(mariadb), kafka=kafka)


@pytest.fixture
def on_postgresql(postgresql, kafka) -> Servers:
    """The same, with PostgreSQL."""
    return Servers(database=PostgreSQLServer(postgresql), kafka=kafka)


def wrong(cases) -> list[tuple[str, str, float]]:
    """What a consumer found that should not be."""
    return [
        (case.name, name, run[name])
        for case in cases
        for run in case.runs
        for name in WRONG
        if run.get(name)
    ]


@pytest.mark.parametrize("settings", [{}, drain.DELETE], ids=["mark", "delete"])
def test_drain(on_mariadb, settings):
    """
    Rows are marked, or deleted.
    """
    case = drain.ours(on_mariadb, ROWS, 1, settings)

    assert wrong([case]) == []
    assert case.settings == settings
    assert case.median("relay_us")


def test_drain_on_postgresql(on_postgresql):
    """
    The same rows, made another way.
    """
    case = drain.ours(on_postgresql, ROWS, 1)

    assert wrong([case]) == []
    assert case.median("rows_per_second")


def test_latency(on_mariadb, monkeypatch, tmp_path):
    """
    A hint to a relay that stands by brings every event.
    """
    monkeypatch.setattr(latency, "SETTLED_SECONDS", 0.5)
    monkeypatch.setattr(latency, "WARM_UP", 10)
    sockets = [f"unix:{tmp_path}/{n}" for n in range(2)]
    relays = [{"relay.wake_address": f"{path},udp:127.0.0.1:0"} for path in sockets]

    found = latency.measure_once(on_mariadb, relays, sockets[1], rate=100, count=100)

    assert {name: found[name] for name in WRONG} == dict.fromkeys(WRONG, 0)
    assert 0 < found["p50_ms"] <= found["p99_ms"] <= found["max_ms"]


def test_idle(on_postgresql, monkeypatch):
    """
    The owner and those that stand by are told apart.
    """
    monkeypatch.setattr(latency, "SETTLED_SECONDS", 0.2)
    monkeypatch.setattr(idle, "SETTLED_SECONDS", 0.0)

    owner, each = idle.measure(on_postgresql, standbys=1, seconds=0.5, runs=1)

    assert owner.median("cpu_percent")
    assert each.median("cpu_percent")


@pytest.mark.parametrize("database", ["on_mariadb", "on_postgresql"])
def test_insert(database, request):
    """
    Each way writes its events.
    """
    server = request.getfixturevalue(database).database
    bare, add, made = insert.measure(server, rows=10, runs=1, beside=False)

    assert bare.median("client_cpu_us")
    assert add.median("over_bare_us") is not None
    assert made.median("over_bare_us") is not None


def test_flatness(on_mariadb, monkeypatch):
    """
    Whatever is around the backlog, all of it comes, and nothing else.
    """
    monkeypatch.setattr(flatness, "TOPICS", 3)
    monkeypatch.setattr(flatness, "CALM_SHARE", 9.0)
    first, _, *others = flatness.all_surroundings(on_mariadb, rows=ROWS, many=ROWS + 1, runs=1)

    found = {what.name: flatness.measure_once(on_mariadb, what) for what in others}

    assert first.kept == ROWS + 1
    assert {run[name] for run in found.values() for name in WRONG} == {0}


def test_takeover(on_mariadb, monkeypatch):
    """
    The relay that stood by publishes what was committed after the owner was told to stop.
    """
    monkeypatch.setattr(takeover, "SETTLED_SECONDS", 1.0)

    found = takeover.measure_once(on_mariadb, 1, takeover.BY_STOP)

    assert {name: found[name] for name in WRONG} == dict.fromkeys(WRONG, 0)
    assert found["p50_ms"]


class NoProxy:
    """Stands for toxiproxy."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def set_round_trip(self, name: str, milliseconds: int) -> None:
        """Note it."""
        self.asked.append((name, milliseconds))


def test_round_trip(on_mariadb, monkeypatch):
    """
    Each round trip is set before its runs, and taken back after them.
    """
    monkeypatch.setattr(roundtrip, "ROUND_TRIPS", (2,))
    monkeypatch.setattr(roundtrip, "WARM_UP_ROWS", 1)
    proxy = NoProxy()
    servers = roundtrip.FarServers(
        database=on_mariadb.database,
        kafka=on_mariadb.kafka,
        proxy=proxy,
        bootstrap=on_mariadb.kafka.bootstrap_servers,
        database_port=on_mariadb.database.service.port,
    )

    cases = roundtrip.measure(servers, rows=ROWS, runs=1, beside=False)

    assert wrong(cases) == []
    assert proxy.asked == [("broker", 2), ("broker", 0), ("database", 2), ("database", 0)]


@pytest.mark.parametrize("kind", ["mariadb", "mysql", "postgresql"])
def test_migrate(request, kind, monkeypatch):
    """
    Every kind of work is done while writers write, and the tables are those of this release.
    """
    monkeypatch.setattr(migrating, "AROUND_SECONDS", 0.05)
    service = request.getfixturevalue(kind)
    wrapped = {
        "mariadb": MariaDBServer,
        "mysql": migrating.MySQLServer,
        "postgresql": PostgreSQLServer,
    }
    cases = migrating.measure(Servers(database=wrapped[kind](service), kafka=Kafka()), rows=ROWS)

    assert len(cases) == 4
    assert all(case.median("writes") for case in cases)
    assert all(case.median("renewal_ms") for case in cases)
