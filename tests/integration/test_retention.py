"""
Retention on real servers: the plans of its statements, its locks, and a relay that works meanwhile.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pymysql
import pytest
import sqlalchemy as sa

from outbox_relay.brokers.kafka import KafkaBroker
from outbox_relay.brokers.options import KafkaOptions
from outbox_relay.relay.options import RelayOptions
from outbox_relay.relay.ports import PurgePlan
from outbox_relay.relay.producer import EventProducer
from outbox_relay.schema import Status
from outbox_relay.store import DatabaseOptions, open_store
from outbox_relay.testing import Watcher
from tests.contract.stores import create_tables, sql_engine
from tests.services.database import Database
from tests.services.kafka import Kafka
from tests.services.sql_server import SqlServer

OLD_ROWS = 100_000
DEAD_ROWS = 50
YOUNG_ROWS = 1000
WRITERS = 3
MOST_LOCK_WAITS = 30
"""Of thousands of transactions; 3 to 6 were seen, by anybody, the relay included."""

DAY = 86_400.0


def fill(connection: sa.Connection, rows: int, values: str) -> None:
    """*rows* rows; *values* are status, produced_at and last_error in SQL, of the number n."""
    digits = " UNION ALL ".join(f"SELECT {n} AS d" for n in range(10))
    numbers = " + ".join(f"t{i}.d * {10**i}" for i in range(6))
    tables = " CROSS JOIN ".join(f"({digits}) AS t{i}" for i in range(6))
    connection.exec_driver_sql(
        "INSERT INTO outbox (event_name, topic, payload, status, produced_at, last_error) "
        f"SELECT 'order.placed', 'earlier', REPEAT('x', 400), {values} "
        f"FROM (SELECT {numbers} AS n FROM {tables}) AS numbers WHERE n < {rows} ORDER BY n"
    )


def one(server: SqlServer, sql: str) -> int:
    """A number, as root; the second column of SHOW STATUS."""
    with server.root_connection() as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return int(cursor.fetchone()[-1])


def lock_waits(server: SqlServer) -> int:
    """How often a statement has waited for a row lock since the server started."""
    return one(server, "SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_waits'")


async def until(condition: Callable[[], bool], *, seconds: float = 150) -> None:
    """Wait for *condition*, asked in a thread."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.1)


def producer(database: Database, kafka: Kafka, watcher: Watcher, **options: Any) -> EventProducer:
    """A relay in this process."""
    return EventProducer(
        open_store(DatabaseOptions(url=database.async_url)),
        KafkaBroker(KafkaOptions(bootstrap_servers=kafka.bootstrap_servers)),
        options=RelayOptions(**options),
        observer=watcher,
    )


class Writers:
    """Applications that insert in small transactions, each on a connection of its own."""

    def __init__(self, server: SqlServer, database: Database, topic: str) -> None:
        self._address = (server.port, database.name)
        self._topic = topic
        self._end = threading.Event()
        self.committed = 0
        self.failures: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._write, args=(seed,)) for seed in range(WRITERS)
        ]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _write(self, seed: int) -> None:
        rng = random.Random(seed)
        port, name = self._address
        connection = pymysql.connect(
            host="127.0.0.1", port=port, user="ob", password="ob", database=name
        )
        try:
            with connection, connection.cursor() as cursor:
                version = 0
                while not self._end.wait(0.005):
                    count = rng.randint(1, 5)
                    cursor.executemany(
                        "INSERT INTO outbox (event_name, topic, `key`, payload) VALUES "
                        f"('order.placed', '{self._topic}', 'key-{seed}', %s)",
                        [(str(version + n),) for n in range(count)],
                    )
                    connection.commit()
                    version += count
                    self.committed += count
        except BaseException as error:  # noqa: BLE001 - told by the test
            self.failures.append(error)


@pytest.mark.parametrize("kind", ["mariadb", "mysql"])
async def test_the_purge_neither_scans_pending_rows_nor_sorts(kind, request):
    """
    It looks by the index on the status and deletes by primary key, whatever else is in the table.
    """
    database = request.getfixturevalue(f"{kind}_database")
    store = open_store(DatabaseOptions(url=database.async_url))
    with sql_engine(database) as engine:
        create_tables(engine)
        with engine.begin() as connection:
            fill(connection, 3000, "0, '1970-01-01', NULL")
            fill(connection, 3000, "1, '2000-01-01', NULL")
            fill(connection, 3000, "0, '1970-01-01', NULL")
            connection.exec_driver_sql("ANALYZE TABLE outbox")
        # Without a lease the server sees at once that nothing can match.
        lease = await store.acquire("me", wake_address="", lease_seconds=60)
        plan = PurgePlan(status=Status.PRODUCED, older_than_seconds=DAY, after_id=3100, limit=1000)
        sql = store._sql
        ids = range(3101, 4101)
        statements = (
            (sql.aged(plan), (-DAY,)),
            (sql.purge(ids, plan), (-DAY,)),
            (sql.delete_produced(ids, store._lanes.sql.fence(lease.term)), (lease.term.nonce,)),
        )
        found = []
        with engine.connect() as connection:
            for text, parameters in statements:
                rows = connection.exec_driver_sql(f"EXPLAIN {text}", parameters).mappings()
                found += [dict(row) for row in rows if row["table"] == "outbox"]
    await store.close()

    assert [row["key"] for row in found] == ["outbox_pending_ix", "PRIMARY", "PRIMARY"]
    # MariaDB makes a table of 1,000 ids and looks up each: eq_ref.
    assert {row["type"] for row in found} <= {"range", "eq_ref"}
    assert not [row for row in found if "filesort" in str(row["Extra"])]
    assert all(int(row["rows"]) <= 3100 for row in found)


@pytest.mark.parametrize("kind", ["mariadb", "mysql"])
async def test_a_delete_that_waited_for_a_row_lock_deletes_no_dead_letter(kind, request):
    """
    I5. A statement that waits for a row lock goes on with what it knew of the term before; the
    status of the row fences it.
    """
    server = request.getfixturevalue(kind)
    database = request.getfixturevalue(f"{kind}_database")
    store = open_store(DatabaseOptions(url=database.async_url))
    with sql_engine(database) as engine:
        create_tables(engine)
        with engine.begin() as connection:
            fill(connection, 1, "0, '1970-01-01', NULL")
        lease = await store.acquire("me", wake_address="", lease_seconds=15)
        with engine.connect() as another:
            another.exec_driver_sql("UPDATE outbox SET status = 2, last_error = 'unreadable: x'")
            late = asyncio.create_task(store.delete_produced([1], lease.term))
            await until(
                lambda: one(server, "SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'") > 0
            )
            another.commit()
        await late
        with engine.connect() as connection:
            left = connection.exec_driver_sql("SELECT id, status FROM outbox").all()
    await store.close()

    assert left == [(1, Status.DEAD)]


@pytest.mark.alone
async def test_a_purge_of_many_rows_disturbs_neither_writers_nor_the_relay(
    mariadb, mariadb_database, kafka, topic_name, capsys
):
    """
    I2, I4. 100,000 old rows go while writers insert and the relay publishes: what is pending, dead
    or young stays, and writers do not queue for locks.
    """
    kafka.create_topic(topic_name, partitions=4)
    watcher = Watcher()
    with sql_engine(mariadb_database) as engine:
        create_tables(engine)
        with engine.begin() as connection:
            fill(connection, OLD_ROWS, "1, '2000-01-01', NULL")
            fill(connection, DEAD_ROWS, "2, '1970-01-01', 'unreadable: x'")
            fill(connection, YOUNG_ROWS, "1, UTC_TIMESTAMP(6), NULL")

        def counts() -> dict[str, int]:
            with engine.connect() as connection:
                return {
                    name: connection.exec_driver_sql(
                        f"SELECT COUNT(*) FROM outbox WHERE {where}"
                    ).scalar_one()
                    for name, where in (
                        ("old", "status = 1 AND produced_at < '2001-01-01'"),
                        ("dead", "status = 2"),
                        (
                            "young",
                            "status = 1 AND topic = 'earlier' AND produced_at > '2001-01-01'",
                        ),
                        ("pending", "status = 0"),
                        ("relayed", f"status = 1 AND topic = '{topic_name}'"),
                    )
                }

        waits = lock_waits(mariadb)
        relay = producer(mariadb_database, kafka, watcher, retention_seconds=DAY)
        started = time.monotonic()
        running = asyncio.create_task(relay.run())
        with Writers(mariadb, mariadb_database, topic_name) as writers:
            await until(lambda: counts()["old"] == 0)
            seconds = time.monotonic() - started
            during = writers.committed
        waits = lock_waits(mariadb) - waits
        await until(lambda: counts()["pending"] == 0)
        relay.stop()
        await running
        left = counts()
    seen: list[int] = []
    last: dict[bytes | None, int] = {}
    inversions = 0
    for record in kafka.consume_all(topic_name):
        seen.append(int(record.headers["outbox-seq"]))
        inversions += int(record.value) != last.get(record.key, -1) + 1
        last[record.key] = int(record.value)
    with capsys.disabled():
        print(
            f"\n  purged in {seconds:.1f} s, {during} events written, {waits} lock waits\n  {left}"
        )

    assert writers.failures == []
    assert during > 0
    assert (left["old"], left["dead"], left["young"]) == (0, DEAD_ROWS, YOUNG_ROWS)
    assert left["relayed"] == writers.committed == len(set(seen)) == len(seen)
    assert inversions == 0
    assert waits <= MOST_LOCK_WAITS
    assert sum(f["rows"] for name, f in watcher.events if name == "purged") == OLD_ROWS
    assert {"purge_failed", "mark_failed"} & set(watcher.names()) == set()


async def test_with_a_retention_of_0_the_table_is_empty_and_every_event_is_on_the_topic(
    mariadb, mariadb_database, kafka, topic_name
):
    """
    I2, I4, I6. Deleted on the ack, while writers insert: none lost, none twice, all in order.
    """
    kafka.create_topic(topic_name, partitions=4)
    with sql_engine(mariadb_database) as engine:
        create_tables(engine)
        relay = producer(mariadb_database, kafka, Watcher(), retention_seconds=0.0)
        running = asyncio.create_task(relay.run())

        def rows() -> int:
            with engine.connect() as connection:
                return connection.exec_driver_sql("SELECT COUNT(*) FROM outbox").scalar_one()

        with Writers(mariadb, mariadb_database, topic_name) as writers:
            await until(lambda: writers.committed > 3000 or bool(writers.failures))
        await until(lambda: rows() == 0)
        relay.stop()
        await running
    values: dict[bytes | None, list[int]] = {}
    for record in kafka.consume_all(topic_name):
        values.setdefault(record.key, []).append(int(record.value))

    assert writers.failures == []
    assert sum(len(found) for found in values.values()) == writers.committed
    assert all(found == list(range(len(found))) for found in values.values())
