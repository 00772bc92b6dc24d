"""
How long nobody relays after the owner was told to stop: from that moment until another relay has
marked a row that was committed right after it.
"""

from __future__ import annotations

import os
import signal
import time

import sqlalchemy as sa

from benchmarks.orders import EVENT_NAME, customer, order
from benchmarks.relays import settings_for, start_relay
from benchmarks.results import Case
from benchmarks.servers import Servers
from benchmarks.topic import check, fresh_topic
from outbox_relay import Outbox

SETTLED_SECONDS = 5.0
WAIT_SECONDS = 60.0
BY_STOP, BY_KILL = "the owner is told to stop", "the owner is killed"


def measure_once(servers: Servers, times: int, how: str) -> dict[str, float]:
    """*times* a relay comes, stands by, and takes over from the one before it."""
    database, topic = servers.database.create_outbox(), fresh_topic(servers.kafka)
    settings = settings_for(servers, database)
    engine, outbox = sa.create_engine(database.sync_url), Outbox()
    gaps = []
    owner = start_relay(settings)
    owner.tell("go")
    try:
        for number in range(times):
            standby = start_relay(settings)
            standby.tell("go")
            time.sleep(SETTLED_SECONDS)
            started = time.monotonic()
            if how == BY_KILL:
                os.kill(owner.pid, signal.SIGKILL)
            else:
                owner.tell("stop")
            with engine.connect() as connection:
                outbox.add(
                    connection, order(number), name=EVENT_NAME, topic=topic, key=customer(number)
                )
                connection.commit()
                while connection.scalar(sa.text("SELECT COUNT(*) FROM outbox WHERE status = 0")):
                    connection.rollback()
                    if time.monotonic() - started > WAIT_SECONDS:
                        raise TimeoutError(f"nobody took over within {WAIT_SECONDS:g} s")
                    time.sleep(0.005)
            gaps.append((time.monotonic() - started) * 1000)
            owner.close()
            owner = standby
    finally:
        owner.close()
        engine.dispose()
    account = check(servers.kafka, topic, times).fields()
    servers.database.drop(database.name)
    gaps.sort()
    return {"p50_ms": gaps[len(gaps) // 2], "max_ms": gaps[-1], **account}


def measure(servers: Servers, *, times: int) -> list[Case]:
    """Told to stop, and killed: then the others wait for the end of its lease."""
    return [
        Case(
            name=how,
            database=servers.database.title,
            rows=count,
            runs=[measure_once(servers, count, how)],
        )
        for how, count in ((BY_STOP, times), (BY_KILL, max(1, times // 3)))
    ]
