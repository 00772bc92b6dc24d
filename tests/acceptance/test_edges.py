"""
What an operator meets on the first days: plain SQL, oversized events, a stop in bad moments.
"""

from __future__ import annotations

import subprocess
import time

import pytest
import sqlalchemy as sa

from outbox_relay import Outbox
from tests.acceptance.relays import wait_until_relayed

SLOW_RESOLVER = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>
int getaddrinfo(const char *n, const char *s, const struct addrinfo *h, struct addrinfo **r) {
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    if (n && strncmp(n, "slow.", 5) == 0) sleep(60);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    return real(n, s, h, r);
}
"""


@pytest.fixture
def engine(migrated):
    made = sa.create_engine(migrated.sync_url)
    yield made
    made.dispose()


def test_rows_inserted_by_hand_are_relayed(migrated, make_relay, mariadb, kafka, topic_name):
    """
    The table is a public interface: three columns, from the mariadb client.
    """
    relay = make_relay()
    relay.start()
    rows = ", ".join(
        f"('by.hand', '{topic_name}', '{value}')" for value in ('{"n": 1}', '{"n": 2}')
    )
    sql = f"INSERT INTO outbox (event_name, topic, payload) VALUES {rows}"
    subprocess.run(
        ["mariadb", "-uob", "-pob", "-h127.0.0.1", f"-P{mariadb.port}", migrated.name, "-e", sql],
        check=True,
    )
    wait_until_relayed(migrated)
    relay.stop()

    records = kafka.consume_all(topic_name)
    assert sorted(r.value for r in records) == [b'{"n": 1}', b'{"n": 2}']
    assert {r.headers["ce_type"] for r in records} == {b"by.hand"}
    assert len({r.headers["ce_id"] for r in records}) == 2


@pytest.mark.parametrize("limit", ["relay", "topic"])
def test_an_oversized_event_among_good_ones(migrated, engine, make_relay, kafka, topic_name, limit):
    """
    I2, I4, I7. It becomes a dead letter with a reason; every other event arrives in order.
    """
    topic = f"{topic_name}-{limit}"
    kafka.create_topic(
        topic, partitions=2, config={"max.message.bytes": "20000"} if limit == "topic" else None
    )
    large = "x" * (50_000 if limit == "topic" else 1_100_000)
    outbox = Outbox(compressor=None, max_event_bytes=2_000_000)
    with engine.begin() as connection:
        for number in range(60):
            key = f"k{number % 3}"
            content = {"number": number, "content": large if number == 30 else ""}
            outbox.add(connection, content, name="sized", topic=topic, key=key)
    relay = make_relay()
    relay.start()
    wait_until_relayed(migrated)
    relay.stop()

    seqs: dict[bytes, list[int]] = {}
    for record in kafka.consume_all(topic):
        seqs.setdefault(record.key, []).append(int(record.headers["outbox-seq"]))
    with engine.connect() as connection:
        dead = connection.execute(
            sa.text("SELECT id, status, attempts, last_error FROM outbox WHERE status = 2")
        ).all()
    assert len(dead) == 1
    assert dead[0].last_error.startswith("too_large: ")
    assert dead[0].attempts == 1
    assert sum(len(ids) for ids in seqs.values()) == 59
    assert all(ids == sorted(set(ids)) for ids in seqs.values())


@pytest.mark.alone
def test_a_stop_fits_its_budget_while_the_database_hangs(
    migrated, engine, make_relay, mariadb, topic_name
):
    """
    I9.
    """
    relay = make_relay(stop_seconds=3.0)
    relay.start()
    with engine.begin() as connection:
        Outbox().add(connection, {}, name="e", topic=topic_name, key=None)
    wait_until_relayed(migrated)
    mariadb.freeze()
    time.sleep(1)

    took = relay.stop()
    mariadb.thaw()

    assert took <= 3.0 + 1.0


@pytest.mark.alone
def test_a_stop_fits_its_budget_while_a_name_look_up_hangs(
    migrated, make_relay, tmp_path, monkeypatch
):
    """
    I9. asyncio alone would wait for the resolver's thread.
    """
    source = tmp_path / "slow.c"
    source.write_text(SLOW_RESOLVER)
    library = tmp_path / "slow.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    monkeypatch.setenv("LD_PRELOAD", str(library))
    relay = make_relay(stop_seconds=2.0)
    text = relay.config.read_text()
    relay.config.write_text(text.replace('servers = "127.0.0.1:', 'servers = "slow.example:'))
    relay.start()
    monkeypatch.delenv("LD_PRELOAD")
    deadline = time.monotonic() + 20
    while not relay.logged("lease_acquired") and time.monotonic() < deadline:
        time.sleep(0.1)

    took = relay.stop()

    assert took <= 2.0 + 1.0


def test_a_relay_waits_for_its_table_and_goes_on_by_itself(
    installed_wheel, mariadb_database, make_relay, kafka, topic_name
):
    """
    It says which command mends it, stays alive, and needs no restart.
    """
    kafka.create_topic(topic_name)
    relay = make_relay()
    relay.start()
    deadline = time.monotonic() + 30
    while not relay.logged("schema_mismatch") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "outbox-relay migrate" in relay.logged("schema_mismatch")[0]["error"]

    subprocess.run([installed_wheel.command, "migrate", "--config", str(relay.config)], check=True)
    engine = sa.create_engine(mariadb_database.sync_url)
    with engine.begin() as connection:
        Outbox().add(connection, {"a": 1}, name="e", topic=topic_name, key="k")
    wait_until_relayed(mariadb_database)
    relay.stop()
    engine.dispose()

    assert len(kafka.consume_all(topic_name)) == 1


def test_until_empty_drains_what_is_there_and_exits(
    migrated, engine, make_relay, kafka, topic_name
):
    """
    For jobs and for tests of one's own.
    """
    with engine.begin() as connection:
        events = [{"n": n} for n in range(500)]
        Outbox().add(connection, *events, name="e", topic=topic_name, key=None)
    relay = make_relay()
    relay.start("--until-empty")

    assert relay.running.wait(timeout=60) == 0
    assert len(kafka.consume_all(topic_name)) == 500
