"""
A row that kills the relay, on a real database and in processes that really die.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import sqlalchemy as sa

from outbox_relay.relay.careful import CAREFUL_AFTER, GIVE_UP_AFTER
from outbox_relay.schema import Codec, Status
from tests.contract.stores import create_tables
from tests.integration.deadly_relay import DEADLY

ROOT = Path(__file__).parents[2]
KEYS = 5
MOST_LIVES = 25


def insert(engine: sa.Engine, outbox: sa.Table, payloads: Sequence[bytes]) -> list[int]:
    with engine.begin() as connection:
        return [
            connection.execute(
                outbox.insert().values(
                    event_name="e",
                    topic="orders",
                    key=b"%d" % (number % KEYS),
                    payload=zlib.compress(payload),
                    codec=Codec.ZLIB,
                )
            ).inserted_primary_key[0]
            for number, payload in enumerate(payloads)
        ]


def live(url: str, published: Path, *, killed_after: float | None) -> int:
    """One life of a relay; its exit code. *killed_after* seconds with the lanes it is killed."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.integration.deadly_relay", url, str(published)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        if killed_after is not None and "lease_acquired\n" in process.stdout:
            time.sleep(killed_after)  # at random: that is the fault
            process.kill()
        process.stdout.read()
        return process.wait(60)


def test_it_becomes_a_dead_letter_and_no_kill_does_that_to_another(
    mariadb_database: Any, tmp_path: Path
) -> None:
    """
    I2, I4, I7. `kill -9` from outside, at random, before and after; then the row's own. Everything else
    is published, in order.
    """
    engine = sa.create_engine(mariadb_database.sync_url)
    outbox = create_tables(engine).outbox
    payloads = [b'{"n": %d}' % number for number in range(60)]
    before = insert(engine, outbox, payloads[:30])
    [deadly] = insert(engine, outbox, [DEADLY])
    after = insert(engine, outbox, payloads[30:])
    random = Random(7)
    published = tmp_path / "published"
    codes = []
    for life in range(MOST_LIVES):
        pause = random.uniform(0.0, 0.05) if life in (0, 3, 5) else None
        codes.append(live(mariadb_database.async_url, published, killed_after=pause))
        if codes[-1] == 0:
            break
    with engine.connect() as connection:
        rows = connection.execute(
            sa.select(outbox.c.id, outbox.c.status, outbox.c.last_error)
        ).all()
    engine.dispose()
    statuses = {row.id: Status(row.status) for row in rows}
    first = list(dict.fromkeys(int(line) for line in published.read_text().split()))

    assert codes[-1] == 0
    assert set(codes[:-1]) == {-signal.SIGKILL}
    assert len(codes) - 1 >= CAREFUL_AFTER + GIVE_UP_AFTER
    assert next(row.last_error for row in rows if row.id == deadly).startswith("kills_relay: ")
    assert {row_id for row_id, status in statuses.items() if status is Status.DEAD} == {deadly}
    assert sorted(first) == before + after
    assert all(
        of_key == sorted(of_key)
        for key in range(KEYS)
        for of_key in [[i for i in first if (before + after).index(i) % KEYS == key]]
    )
