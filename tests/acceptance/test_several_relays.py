"""
Relays join and leave every few seconds under load: killed, stopped, asleep for longer than their lease.

`make chaos-relays` runs it for five minutes each; CHAOS_SECONDS says how long.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.acceptance.coming_and_going import Fates, account, owners, wait_for_shares
from tests.acceptance.relays import RelayProcess, wait_until_relayed, write_config
from tests.services.database import Database

SECONDS = float(os.environ.get("CHAOS_SECONDS", "20"))
IN_FLIGHT_ROWS = 2000
LEASE_SECONDS = 3.0
SHARES = {1: [64], 4: [16, 16, 16, 16]}


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Database:
    found: Database = request.getfixturevalue(f"{request.param}_database")
    return found


@pytest.fixture
def relays(
    request: pytest.FixtureRequest, installed_wheel, database, kafka, tmp_path: Path
) -> Iterator[list[RelayProcess]]:
    """One more than may be active; their tables are there."""
    made = []
    for number in range(request.param + 1):
        folder = tmp_path / f"relay-{number}"
        folder.mkdir()
        config = write_config(
            folder,
            database,
            kafka,
            max_active_relays=request.param,
            in_flight_rows=IN_FLIGHT_ROWS,
            chunk_rows=500,
            lease_seconds=LEASE_SECONDS,
            publish_deadline_seconds=2.0,
        )
        made.append(RelayProcess(installed_wheel.command, config, name=folder.name))
    migrate = [installed_wheel.command, "migrate", "--config", str(made[0].config)]
    subprocess.run(migrate, check=True, cwd=tmp_path)
    yield made
    for relay in made:
        relay.end()


@pytest.mark.parametrize(
    ("database", "relays"),
    [
        ("mariadb", 1),
        ("mariadb", 4),
        # One at a time is the same code with a single owner; `make chaos-relays` runs it here too.
        pytest.param("postgresql", 1, marks=pytest.mark.long),
        ("postgresql", 4),
    ],
    indirect=True,
)
def test_relays_that_come_and_go_lose_and_invert_nothing(
    relays, database, kafka, topic_name, capsys
):
    """
    I2, I4, I5, I6. Nothing is lost or inverted, and each kill or pause repeats at most what was in
    flight. At the end the lanes are shared fairly, and a relay that stops hands its own on.
    """
    kafka.create_topic(topic_name, partitions=8)
    active = len(relays) - 1
    engine = sa.create_engine(database.sync_url)
    for relay in relays:
        relay.start()
    application = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.acceptance.coming_and_going"),
            *(database.sync_url, topic_name, str(SECONDS), "7"),
        ]
    )
    fates = Fates(relays, pause_seconds=1.5 * LEASE_SECONDS, rng=random.Random(active))
    try:
        while application.poll() is None:
            time.sleep(fates.rng.uniform(0.5, 2.0))
            fates.step()
    finally:
        application.kill()
        application.wait()
        fates.wake(all_of_them=True)
    wait_for_shares(engine, relays, SHARES[active])
    wait_until_relayed(database)
    seconds = take_over_seconds(relays, engine)
    for relay in relays:
        relay.stop()

    result = account(engine, kafka, topic_name)
    with capsys.disabled():
        print(f"\n  {engine.name}, {active} active: {dict(fates.counts)}\n  {result}")
        print(f"  take-over after SIGTERM: {seconds:.2f} s")
    assert application.returncode == 0
    assert result.committed > 0
    assert (result.lost, result.ghosts, result.inversions, result.pending) == (0, 0, 0, 0)
    assert result.duplicates <= fates.faults * IN_FLIGHT_ROWS


def take_over_seconds(relays: list[RelayProcess], engine: sa.Engine) -> float:
    """From SIGTERM to an active relay until others hold all lanes."""
    holder = next(iter(owners(engine)))
    [relay] = [r for r in relays if holder.endswith(f":{r.running.pid}")]
    started = time.monotonic()
    relay.running.terminate()
    while holder in (held := owners(engine)) or sum(held.values()) < 64:
        assert time.monotonic() < started + 60
        time.sleep(0.01)
    seconds = time.monotonic() - started
    relay.running.wait(timeout=30)
    relays.remove(relay)
    return seconds
