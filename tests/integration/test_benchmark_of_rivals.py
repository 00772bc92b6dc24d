"""
What the benchmark of rivals rests on, without the rivals: one relay goes through all measurements.
"""

from __future__ import annotations

import json

import pytest

from benchmarks.orders import customer, order_json
from benchmarks.rivals import measure
from benchmarks.rivals.ours import Ours
from benchmarks.rivals.watermill import ENVELOPE, envelope
from benchmarks.rows import make_shapes, orders
from benchmarks.servers import MariaDBServer, Servers

ROWS = 300


@pytest.fixture
def servers(mariadb, kafka) -> Servers:
    """The session's own servers."""
    return Servers(database=MariaDBServer(mariadb), kafka=kafka)


def test_a_drain_finds_every_event_once_and_in_order(servers, topic_name):
    """
    The relay is let go after the fill; what it cost and what came are told.
    """
    ours = Ours(servers)
    with ours.running():
        found = measure.drain(ours, topic_name, ROWS)

    assert [found[name] for name in ("lost", "duplicated", "inverted", "split_keys")] == [0] * 4
    assert found["relay_us"] > 0


def test_events_that_never_come_are_counted_as_lost(servers, topic_name, monkeypatch):
    """
    Rows that never come end the wait too.
    """
    monkeypatch.setattr(measure, "STUCK_SECONDS", 0.5)
    ours = Ours(servers)
    monkeypatch.setattr(ours, "fill", lambda work, rows: None)
    with ours.running():
        found = measure.drain(ours, topic_name, ROWS)

    assert found["lost"] == ROWS


@pytest.mark.parametrize("hints", [False, True])
def test_latency_is_cut_into_runs_and_idle_comes_last(servers, topic_name, monkeypatch, hints):
    """
    Each run has its own quantiles.
    """
    monkeypatch.setattr(measure, "SETTLE_SECONDS", 1.0)
    monkeypatch.setattr(measure, "WARM_UP_SECONDS", 1)
    ours = Ours(servers, hints=hints)
    with ours.running():
        found = measure.latency_and_idle(
            ours, topic_name, rate=50, seconds=1, runs=2, idle_seconds=1
        )

    assert [sorted(run) for run in found] == [["p50_ms", "p99_ms"]] * 2 + [["cpu_percent"]]


def test_the_fill_makes_the_envelope_that_a_writer_makes(servers):
    """
    The backlog and the latency of watermill's forwarder have rows of one form.
    """
    database = servers.database.create_database()
    with servers.database.connect(database.name) as connection, connection.cursor() as cursor:
        make_shapes(cursor)
        cursor.execute(f"SELECT {ENVELOPE.format(topic='t')} FROM ({orders(0, 2)}) AS orders")
        filled = [json.loads(text) for (text,) in cursor.fetchall()]
    written = [json.loads(envelope("t", customer(n), order_json(n))) for n in range(3)]

    assert without_id(filled) == without_id(written)


def without_id(envelopes: list[dict[str, object]]) -> list[dict[str, object]]:
    """All but what is made by chance."""
    return [{name: said for name, said in one.items() if name != "uuid"} for one in envelopes]
