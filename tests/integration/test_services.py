"""
The services that the other tests stand on do what tests/services/README.md says.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pymysql
import pytest
from confluent_kafka import KafkaException, Producer
from sqlalchemy import create_engine, text

from tests.services.database import Database
from tests.services.kafka import Kafka
from tests.services.mariadb import MariaDB, find_program


def publish(kafka: Kafka, topic: str, *values: bytes) -> None:
    """Hand *values* to the broker and wait for its acks."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "acks": "all"})
    for value in values:
        producer.produce(topic, value, key=b"k", headers={"h": b"1"}, timestamp=1_700_000_000_000)

    assert producer.flush(30) == 0


def write_and_count(database: Database) -> int:
    """Insert one row as the user ob and count all of them."""
    engine = create_engine(database.sync_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE IF NOT EXISTS t (id int) ENGINE=InnoDB"))
        connection.execute(text("INSERT INTO t VALUES (1)"))
        count = connection.execute(text("SELECT count(*) FROM t")).scalar_one()
    engine.dispose()
    return int(count)


def variable(mariadb: MariaDB, name: str) -> str:
    """The value of a server variable."""
    with mariadb.root_connection() as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT @@global.{name}")
        (value,) = cursor.fetchone()
    return str(value)


def test_mariadb_is_durable_and_writes_a_row_binlog(mariadb):
    """
    What the tests call committed survives a crash of the server.
    """
    names = ("sync_binlog", "innodb_flush_log_at_trx_commit", "binlog_format", "log_bin")

    assert [variable(mariadb, name) for name in names] == ["1", "1", "ROW", "1"]


def test_each_database_is_fresh(mariadb, mariadb_database):
    """
    Two databases share no table, and their user sees nothing of the server's own.
    """
    other = mariadb.create_database()

    assert write_and_count(mariadb_database) == 1
    assert write_and_count(other) == 1
    with pytest.raises(pymysql.err.OperationalError):
        pymysql.connect(
            host=mariadb.host, port=mariadb.port, user="ob", password="ob", database="mysql"
        )


def test_mariadb_comes_back_on_its_port_and_data(mariadb, mariadb_database):
    """
    After stop or kill, start serves the committed rows at the same address, any number of times.
    """
    port = mariadb.port
    counts = [write_and_count(mariadb_database)]
    for end in (mariadb.stop, mariadb.kill, mariadb.kill):
        end()
        mariadb.start()
        counts.append(write_and_count(mariadb_database))

    assert counts == [1, 2, 3, 4]
    assert mariadb.port == port


def test_a_frozen_mariadb_answers_nothing_until_thawed(mariadb, mariadb_database):
    """
    Frozen, the server takes connections and says nothing; thawed, it goes on.
    """
    pid = mariadb.pid
    mariadb.freeze()
    with pytest.raises(pymysql.err.OperationalError):
        pymysql.connect(host=mariadb.host, port=mariadb.port, user="ob", read_timeout=1)
    mariadb.thaw()

    assert write_and_count(mariadb_database) == 1
    assert mariadb.pid == pid


def test_the_client_program_reaches_the_server(mariadb, mariadb_database):
    """
    The `mariadb` client is installed beside the server: operators insert rows with it.
    """
    where = ["-uob", "-pob", f"-h{mariadb.host}", f"-P{mariadb.port}", mariadb_database.name]
    done = subprocess.run(
        [find_program("mariadb"), "--no-defaults", *where, "-BNe", "SELECT 1"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == "1"


def test_kafka_gives_back_each_record_as_published(kafka, topic_name):
    """
    consume_all reads every partition to its end, with key, headers and timestamp.
    """
    kafka.create_topic(topic_name, partitions=3, config={"max.message.bytes": "2000"})
    publish(kafka, topic_name, b"a", b"b")
    records = kafka.consume_all(topic_name)

    assert [record.value for record in records] == [b"a", b"b"]
    assert {record.key for record in records} == {b"k"}
    assert records[0].headers == {"h": b"1"}
    assert records[0].timestamp == 1_700_000_000_000
    assert [record.offset for record in records] == [0, 1]


def test_kafka_creates_no_topic_by_itself(kafka, topic_name):
    """
    A topic that nobody created is an error, for a reader as for a writer.
    """
    with pytest.raises(KafkaException):
        kafka.consume_all(topic_name)


def test_partitions_can_be_added_and_topics_removed(kafka, topic_name):
    """
    The number of partitions grows; a topic that was removed is gone.
    """
    kafka.create_topic(topic_name)
    kafka.add_partitions(topic_name, 4)

    assert kafka.consume_all(topic_name) == []
    kafka.delete_topic(topic_name)
    with pytest.raises(KafkaException):
        kafka.consume_all(topic_name)


def test_kafka_comes_back_on_its_port_and_data(kafka, topic_name):
    """
    After stop or kill, start serves the acked records at the same address.
    """
    address = kafka.bootstrap_servers
    kafka.create_topic(topic_name, partitions=2)
    publish(kafka, topic_name, b"1")
    for end, value in ((kafka.stop, b"2"), (kafka.kill, b"3")):
        end()
        kafka.start()
        publish(kafka, topic_name, value)

    assert [record.value for record in kafka.consume_all(topic_name)] == [b"1", b"2", b"3"]
    assert kafka.bootstrap_servers == address


def test_a_frozen_kafka_acks_nothing_until_thawed(kafka, topic_name):
    """
    Frozen, the broker acks nothing; thawed, the waiting record arrives once.
    """
    kafka.create_topic(topic_name)
    kafka.freeze()
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    producer.produce(topic_name, b"late")
    waiting = producer.flush(1)
    kafka.thaw()
    left = producer.flush(30)

    assert (waiting, left) == (1, 0)
    assert [record.value for record in kafka.consume_all(topic_name)] == [b"late"]


def test_a_server_left_frozen_is_healed(mariadb):
    """
    heal() brings back what a failed test left stopped or frozen, so the next test is not blamed.
    """
    mariadb.freeze()
    mariadb.heal()
    after_freeze = variable(mariadb, "server_id")
    mariadb.stop()
    mariadb.heal()

    assert (after_freeze, variable(mariadb, "server_id")) == ("1", "1")


def test_a_server_does_not_outlive_its_starter():
    """
    When the test run itself is killed with SIGKILL, its servers end too, and their data is removed.
    """
    program = (
        "import os, select, signal, sys\n"
        "from tests.services.mariadb import MariaDB\n"
        "server = MariaDB(); server.start()\n"
        "print(server.pid, server.folder, flush=True)\n"
        "signal.pause()\n"
    )
    starter = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    server_pid, folder = starter.stdout.readline().split()
    handle = os.pidfd_open(int(server_pid))
    starter.kill()
    starter.communicate()

    assert wait_for_the_end_of(handle)
    assert wait_until_gone(Path(folder))


def wait_until_gone(folder: Path) -> bool:
    """Whether *folder* went before the patience did."""
    patience = time.monotonic() + 30
    while folder.exists() and time.monotonic() < patience:
        time.sleep(0.05)
    return not folder.exists()


def wait_for_the_end_of(handle: int) -> bool:
    """Whether the process behind the pidfd *handle* ended before the patience did."""
    import select

    ended, _, _ = select.select([handle], [], [], 30)
    os.close(handle)
    return bool(ended)


def test_signals_need_a_running_server(mariadb):
    """
    Freezing a stopped server does nothing; asking for its pid says what to do.
    """
    from tests.services.process import ServiceFailedError

    mariadb.stop()
    mariadb.freeze()
    with pytest.raises(ServiceFailedError, match=r"call start\(\) first"):
        os.kill(mariadb.pid, signal.SIGCONT)
