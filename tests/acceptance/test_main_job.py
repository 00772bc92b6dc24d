"""
The main job, from an installed wheel, in processes of its own, on MariaDB and Kafka.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

from tests.acceptance.relays import (
    account,
    wait_for_owner,
    wait_until_relayed,
)

EVENTS = 20_000
KEYS = 500
CONNECTIONS = 4
IN_FLIGHT_ROWS = 4000


def start_writer(url: str, topic: str, *, seed: int, events: int = EVENTS) -> subprocess.Popen[str]:
    arguments = [url, topic, events, KEYS, CONNECTIONS, seed]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.acceptance.writer", *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(writer: subprocess.Popen[str]) -> dict[str, int]:
    output, _ = writer.communicate(timeout=200)
    assert writer.returncode == 0
    return json.loads(output)


def test_every_committed_event_arrives_once_and_in_order(
    migrated, make_relay, kafka, topic_name, capsys
):
    """
    I1, I2, I4, I6. With rollbacks, transactions held open and a relay that is stopped now and then:
    no ghost, no loss, no inversion, and without a kill no duplicate.
    """
    relay = make_relay()
    relay.start()
    writer = start_writer(migrated.sync_url, topic_name, seed=1)

    while writer.poll() is None:
        time.sleep(2.0)
        relay.pause(2.5)
    counts = finish(writer)
    wait_until_relayed(migrated)
    relay.stop()

    result = account(migrated, kafka, topic_name)
    with capsys.disabled():
        print(f"\n  {counts}\n  {result}")
    assert counts["committed"] == result.committed >= EVENTS
    assert counts["rolled_back"] > 0
    assert counts["held"] > 0
    assert (result.lost, result.ghosts, result.inversions, result.dead) == (0, 0, 0, 0)
    assert result.duplicates == 0


def test_five_kills_and_two_relays_lose_and_invert_nothing(
    migrated, make_relay, kafka, topic_name, capsys
):
    """
    I2, I4, I5, I6. Duplicates stay below in_flight_rows for each kill.
    """
    settings = dict(
        lease_seconds=3.0,
        publish_deadline_seconds=2.0,
        standby_seconds=0.2,
        in_flight_rows=IN_FLIGHT_ROWS,
    )
    relays = [make_relay(f"relay-{n}", **settings) for n in range(2)]
    for relay in relays:
        relay.start()
    writer = start_writer(migrated.sync_url, topic_name, seed=2)

    kills = 0
    for _ in range(5):
        time.sleep(1.5)
        owner = wait_for_owner(migrated, relays)
        owner.kill()
        kills += 1
        owner.start()
    counts = finish(writer)
    wait_until_relayed(migrated)
    for relay in relays:
        relay.stop()

    result = account(migrated, kafka, topic_name)
    with capsys.disabled():
        print(f"\n  {counts} kills {kills}\n  {result}")
    assert counts["committed"] == result.committed
    assert (result.lost, result.ghosts, result.inversions, result.dead) == (0, 0, 0, 0)
    assert result.duplicates <= kills * IN_FLIGHT_ROWS


def test_a_relay_that_sleeps_longer_than_its_lease_does_no_harm_when_it_wakes(
    migrated, make_relay, kafka, topic_name, capsys
):
    """
    I5, I6. Another relay has taken over: the sleeper marks nothing and repeats its window at most.
    """
    settings = dict(
        lease_seconds=2.0,
        publish_deadline_seconds=1.0,
        standby_seconds=0.2,
        in_flight_rows=IN_FLIGHT_ROWS,
    )
    relays = [make_relay(f"relay-{n}", **settings) for n in range(2)]
    for relay in relays:
        relay.start()
    writer = start_writer(migrated.sync_url, topic_name, seed=3, events=8000)

    naps = 0
    while writer.poll() is None:
        time.sleep(0.5)
        wait_for_owner(migrated, relays).pause(4.0)
        naps += 1
    finish(writer)
    wait_until_relayed(migrated)
    for relay in relays:
        relay.stop()

    result = account(migrated, kafka, topic_name)
    with capsys.disabled():
        print(f"\n  {naps} naps\n  {result}")
    assert naps > 1
    assert sum(len(relay.logged("lease_acquired")) for relay in relays) > naps
    assert (result.lost, result.ghosts, result.inversions, result.dead) == (0, 0, 0, 0)
    assert result.duplicates <= naps * IN_FLIGHT_ROWS
