"""
Each benchmark, with few rows, on the servers of the tests: it runs, and finds every event once and in order.
"""

from __future__ import annotations

import pytest

from benchmarks import drain, flatness, idle, insert, latency, roundtrip, several
from benchmarks.servers import MariaDBServer, PostgreSQLServer, Servers

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


def test_drain(on_mariadb):
    """
    Rows are marked, then deleted.
    """
    cases = drain.measure(on_mariadb, rows=ROWS, runs=1, full=False, beside=False)

    assert wrong(cases) == []
    assert [case.settings for case in cases] == [{}, {"relay.retention_seconds": "0"}]
    assert all(case.median("relay_us") for case in cases)


def test_drain_on_postgresql(on_postgresql):
    """
    The same rows, made another way.
    """
    case = drain.ours(on_postgresql, ROWS, 1)

    assert wrong([case]) == []
    assert case.median("rows_per_second")


def test_latency(on_mariadb, monkeypatch):
    """
    Each of the ways brings every event.
    """
    monkeypatch.setattr(latency, "SETTLED_SECONDS", 1.0)
    monkeypatch.setattr(latency, "WARM_UP", 20)

    cases = latency.measure(on_mariadb, rate=100, seconds=1, runs=1, sidecars=2)

    assert wrong(cases) == []
    assert [case.name for case in cases] == ["hint", "hint to a standby, 2 sidecars", "poll"]


@pytest.mark.parametrize("database", ["on_mariadb", "on_postgresql"])
def test_idle(database, request, monkeypatch):
    """
    The owner and those that stand by are told apart.
    """
    monkeypatch.setattr(latency, "SETTLED_SECONDS", 0.2)
    monkeypatch.setattr(idle, "SETTLED_SECONDS", 0.0)

    owner, each = idle.measure(request.getfixturevalue(database), standbys=1, seconds=0.5, runs=1)

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


@pytest.mark.parametrize("database", ["on_mariadb", "on_postgresql"])
def test_flatness(database, request, monkeypatch):
    """
    Whatever is around the backlog, all of it comes, and nothing else.
    """
    monkeypatch.setattr(flatness, "TOPICS", 3)

    cases = flatness.measure(request.getfixturevalue(database), rows=ROWS, many=ROWS + 1, runs=1)

    assert wrong(cases) == []
    assert all(case.median("over_first") for case in cases)


@pytest.mark.skipif(not several.is_possible(), reason="this release shares no lanes out")
def test_several_relays(on_mariadb):
    """
    All relays end, and each row came once.
    """
    cases = several.measure(on_mariadb, rows=ROWS, runs=1, relays=2)

    assert wrong(cases) == []


class NoProxy:
    """Stands for toxiproxy, which only the benchmarks install."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def set_round_trip(self, name: str, milliseconds: int) -> None:
        """Note it."""
        self.asked.append((name, milliseconds))


def test_round_trip(on_mariadb):
    """
    Each round trip is set before its runs, and taken back after them.
    """
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
    assert [name for name, _ in proxy.asked] == ["broker"] * 4 + ["database"] * 4
    assert [ms for _, ms in proxy.asked] == [0, 2, 10, 0] * 2
