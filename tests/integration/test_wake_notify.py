"""
PostgreSQL's NOTIFY wakes relays on a real server, by the trigger that the guide shows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from outbox_relay.metrics import Metrics, MetricsObserver
from outbox_relay.relay import term
from outbox_relay.relay.hints import Wakes
from outbox_relay.relay.options import RelayOptions
from outbox_relay.relay.producer import EventProducer
from outbox_relay.store import DatabaseOptions, notify, open_store
from outbox_relay.store.notify import NotifyListener
from outbox_relay.testing import FakeClock, RecordingBroker
from tests.contract.stores import create_tables
from tests.pages import texts
from tests.services.database import Database

FAR = 1000.0
"""A poll that does not come within a test, so that only a notification explains what was read."""

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "wake-up.md"


@pytest.fixture
def engine(postgresql_database: Database) -> Iterator[sa.Engine]:
    """Over tables with the trigger of the guide."""
    made = sa.create_engine(postgresql_database.sync_url, poolclass=sa.NullPool)
    create_tables(made)
    [trigger] = texts(GUIDE, "sql")
    with made.begin() as connection:
        connection.exec_driver_sql(trigger)
    yield made
    made.dispose()


def insert(connection: sa.Connection) -> None:
    """By a writer that uses no library."""
    connection.exec_driver_sql(
        "INSERT INTO outbox (event_name, topic, payload) VALUES ('e', 't', '')"
    )


async def wait_for(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


class Listening:
    """A NotifyListener under way, and what it received."""

    def __init__(self, database: Database) -> None:
        self.observer = MetricsObserver(Metrics())
        self.logged: list[str] = []
        self.observer.log = lambda event, **_: self.logged.append(event)  # type: ignore[method-assign]
        self.hints: list[bool] = []
        self.wake = NotifyListener(DatabaseOptions(url=database.async_url), observer=self.observer)
        self.wake.start(self.hints.append)

    async def listens(self, times: int = 1) -> None:
        await wait_for(lambda: self.logged.count("wake_notify_listening") == times)

    async def close(self) -> None:
        self.wake.close()
        await asyncio.gather(self.wake._task, return_exceptions=True)


async def test_a_commit_is_told_and_nothing_before_it(
    engine: sa.Engine, postgresql_database: Database
) -> None:
    """
    Once for a transaction, at its commit; one that rolls back tells nothing.
    """
    listening = Listening(postgresql_database)
    await listening.listens()
    begun = len(listening.hints)
    with engine.connect() as connection:
        insert(connection)
        connection.rollback()
        insert(connection)
        insert(connection)
        await asyncio.sleep(0.2)
        before_commit = len(listening.hints) - begun
        connection.commit()
    await wait_for(lambda: len(listening.hints) > begun)
    with engine.begin() as connection:
        insert(connection)
    await wait_for(lambda: len(listening.hints) == begun + 2)
    counted = listening.observer.metrics.registry.get_sample_value(
        "outbox_relay_hints_total", {"kind": "received"}
    )
    await listening.close()

    assert before_commit == 0
    assert set(listening.hints) == {True}
    assert counted == 2


async def test_a_lost_connection_is_opened_again(
    engine: sa.Engine, postgresql_database: Database, postgresql: Any, monkeypatch: Any
) -> None:
    """
    The relay reads as soon as it listens again: what was committed meanwhile was not told.
    """
    monkeypatch.setattr(notify, "FIRST_SECONDS", 0.05)
    listening = Listening(postgresql_database)
    await listening.listens()
    with postgresql.root_connection() as root:
        root.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = %s AND query LIKE 'LISTEN%%'",
            (postgresql_database.name,),
        )
    await listening.listens(times=2)
    begun = len(listening.hints)
    with engine.begin() as connection:
        insert(connection)
    await wait_for(lambda: len(listening.hints) > begun)
    await listening.close()

    assert begun == 2


async def test_a_server_that_is_away_is_waited_for(postgresql_database: Database) -> None:
    """
    It is said in the log, without the password, and nothing else happens.
    """
    database = Database(
        name="x",
        async_url=postgresql_database.async_url.replace(":ob@", ":geheim@"),
        sync_url="",
    )
    listening = Listening(database)
    await wait_for(lambda: "wake_notify_failed" in listening.logged)
    still_there = not listening.wake._task.done()
    await listening.close()

    assert still_there
    assert listening.hints == []


async def test_relays_publish_at_once_and_pass_nothing_on(
    engine: sa.Engine, postgresql_database: Database, monkeypatch: Any
) -> None:
    """
    Polls do not come; the owner reads when it is told. A standby is told too and keeps still.
    """
    monkeypatch.setattr(term, "FIRST_POLL_SECONDS", FAR)

    def relay() -> tuple[EventProducer, RecordingBroker, MetricsObserver, asyncio.Task[None]]:
        observer = MetricsObserver(Metrics())
        options = DatabaseOptions(url=postgresql_database.async_url)
        broker = RecordingBroker(FakeClock(), {"t": 1})
        producer = EventProducer(
            open_store(options),
            broker,
            observer=observer,
            wake=Wakes(NotifyListener(options, observer=observer)),
            options=RelayOptions(poll_seconds=FAR),
        )
        return producer, broker, observer, asyncio.create_task(producer.run())

    def count(observer: MetricsObserver, kind: str) -> float:
        labels = {"kind": kind}
        value = observer.metrics.registry.get_sample_value("outbox_relay_hints_total", labels)
        return value or 0.0

    owner = relay()
    await wait_for(lambda: owner[0].active)
    standby = relay()
    for number in range(1, 6):
        with engine.begin() as connection:
            insert(connection)
        await wait_for(lambda expected=number: len(owner[1].published) == expected)
    await wait_for(lambda: count(standby[2], "received") > 0)
    for producer, _, _, task in (standby, owner):
        producer.stop()
        await task

    assert standby[1].published == []
    assert count(owner[2], "passed_on") == count(standby[2], "passed_on") == 0
