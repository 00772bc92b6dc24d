"""
What goes wrong in a `World`: one function for each fault of the runbook's cases.

A fault is the real thing where that can be had: a quota of Kafka, a setting of MariaDB, a transaction
that somebody forgot. What it changes for other tests it puts right at the world's end.
"""

from __future__ import annotations

import contextlib
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pymysql

from tests.deploy.world import World
from tests.services.secure import SecureMariaDB

JOB_USER = "nightly"
RELAY_USER = "relay"
PASSWORD = "a-password"
HELD_SECONDS = 6.5
FORGOTTEN_SECONDS = 6
STANDS_STILL_SECONDS = 1.7
BROKER_STANDS_STILL_SECONDS = 2.0

UNKNOWN_ERROR = (
    "CREATE TRIGGER strange BEFORE UPDATE ON outbox FOR EACH ROW "
    "SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 31999, MESSAGE_TEXT = 'strange'"
)
MANY_ROWS = (
    "INSERT INTO outbox (event_name, topic, payload) SELECT 'e', '{}', '{{}}' FROM seq_1_to_300"
)
# Each row takes 1.2 s. MySQL gives out ids in advance: 1, 2, 4 ...
SLOW_COPY = (
    "INSERT INTO outbox (event_name, topic, payload) "
    "SELECT 'e', '{}', IF(SLEEP(1.2), '', '{{}}') FROM information_schema.tables LIMIT 7"
)
# Hangs once, where the file is: a bug in the main loop, that a new process has no more.
HANGING_READ = """
import asyncio, pathlib
from outbox_relay.store.sql import SqlStore

FILE = pathlib.Path({file!r})
read = SqlStore.read

async def hangs(self, plan):
    if FILE.exists():
        FILE.unlink()
        await asyncio.Event().wait()
    return await read(self, plan)

SqlStore.read = hangs
"""


def nothing(world: World) -> None:
    """What is wrong is wrong from the start."""


# Kafka


def missing_topic(world: World) -> None:
    """An event for a topic that nobody made."""
    world.words["TOPIC"] = f"{world.topic}-missing"
    world.write(world.words["TOPIC"], {"a": 1})


def with_a_canary_topic(world: World) -> None:
    """Before the start: the topic of the canaries is there."""
    world.words["TOPIC"] = f"{world.topic}-canary"
    world.kafka.create_topic(world.words["TOPIC"])


def too_large(world: World) -> None:
    """An event that its topic does not take, and another one of its key."""
    topic = world.words["TOPIC"] = f"{world.topic}-small"
    world.kafka.create_topic(topic, config={"max.message.bytes": "1000"})
    world.write(topic, {"a": "x" * 5000}, {"a": 2}, key="k")


def throttle(world: World, bytes_per_second: int) -> None:
    """A quota for the relay's client id."""
    world.kafka.limit_client("outbox-relay", bytes_per_second)
    world.after.callback(world.kafka.limit_client, "outbox-relay", None)


def events_are_late(world: World) -> None:
    """The brokers take less of the relay than is written: soon each event waits."""
    throttle(world, 5_000)
    world.write_for_ever(*[{"a": 1}] * 20)
    # A quota is for the mean of eleven seconds: this is more.
    world.write(world.topic, *[{"a": 1}] * 600)


def more_than_the_brokers_take(world: World) -> None:
    """The same with more than ten thousand events."""
    throttle(world, 100_000)
    world.write_for_ever(*[{"a": 1}] * 200)
    for _ in range(6):
        world.write(world.topic, *[{"a": 1}] * 2000)


def answers_come_too_late(world: World) -> None:
    """A limit of the broker's CPU: it stands still for longer than the relay's deadline, again and again."""
    wide = f"{world.topic}-wide"
    world.kafka.create_topic(wide, partitions=6)
    world.write_for_ever(*[{"a": "x" * 500}] * 50, topic=wide)

    def work(stop: threading.Event) -> None:
        while not stop.is_set():
            world.kafka.freeze()
            stop.wait(BROKER_STANDS_STILL_SECONDS)
            world.kafka.thaw()
            stop.wait(0.7)

    world.end_of_limit = world.spawn(work)


# The database


def forgotten_locks(world: World) -> None:
    """Somebody's transaction locks what it finds pending, and never ends."""
    connection = world.mariadb.root_connection(world.database.name)
    is_old = threading.Event()

    def work(stop: threading.Event) -> None:
        with contextlib.suppress(pymysql.MySQLError), connection, connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
            cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
            cursor.execute(f"SELECT SLEEP({FORGOTTEN_SECONDS})")
            is_old.set()
            while not stop.wait(0.02):
                cursor.execute("SELECT id FROM outbox WHERE status = 0 FOR UPDATE SKIP LOCKED")

    world.spawn(work)
    # The alert's every time is shortened; that of which the runbook takes a transaction for forgotten is not.
    assert is_old.wait(60)
    world.write(world.topic, *[{"a": 1}] * 2000)
    world.write_for_ever(*[{"a": 1}] * 100)


def commits_wait(world: World, seconds: float) -> None:
    """A setting that gathers commits, where there are none to gather."""
    usec = int(seconds * 1_000_000)
    world.after.callback(
        world.execute,
        "SET GLOBAL binlog_commit_wait_usec = 0",
        "SET GLOBAL binlog_commit_wait_count = 0",
    )
    world.execute(
        f"SET GLOBAL binlog_commit_wait_usec = {usec}", "SET GLOBAL binlog_commit_wait_count = 1000"
    )


def strange_trigger(world: World) -> None:
    """A trigger of the user's own that refuses with a number of its own."""
    world.words["TRIGGER"] = "strange"
    world.execute(UNKNOWN_ERROR)


def long_transactions(world: World) -> None:
    """A job writes very much at once, and takes its time before it commits."""
    _job(world, MANY_ROWS.format(world.topic), f"SELECT SLEEP({HELD_SECONDS})")


def slow_copies(world: World) -> None:
    """A job copies events with INSERT ... SELECT, again and again."""
    _job(world, SLOW_COPY.format(world.topic))


def _job(world: World, *statements: str) -> None:
    """A job of one transaction after another, with a user of its own; an error ends it."""
    world.words["JOB"] = JOB_USER
    world.execute(
        f"DROP USER IF EXISTS '{JOB_USER}'@'%'",
        f"CREATE USER '{JOB_USER}'@'%' IDENTIFIED BY '{PASSWORD}'",
        f"GRANT ALL ON {world.database.name}.* TO '{JOB_USER}'@'%'",
    )
    world.after.callback(world.execute, f"DROP USER IF EXISTS '{JOB_USER}'@'%'")
    server = world.mariadb
    connection = pymysql.connect(
        host=server.host,
        port=server.port,
        user=JOB_USER,
        password=PASSWORD,
        database=world.database.name,
    )

    def work(stop: threading.Event) -> None:
        with contextlib.suppress(pymysql.MySQLError), connection, connection.cursor() as cursor:
            while not stop.is_set():
                for statement in statements:
                    cursor.execute(statement)
                connection.commit()

    world.spawn(work)


# The relay


def hanging_loop(world: World) -> None:
    """The main loop waits for what never comes; the server of /metrics goes on."""
    (world.folder / "hang").touch()


def with_a_bug(world: World) -> None:
    """Before the start: a relay that will hang where the file is."""
    folder = world.folder / "bug"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HANGING_READ.format(file=str(world.folder / "hang")))
    world.relay.environment = {**world.relay.environment, "PYTHONPATH": str(folder)}


def too_little_cpu(world: World) -> None:
    """Time for one relay: the kernel lets each stand still for longer than its lease, in turn."""

    def work(stop: threading.Event) -> None:
        while not stop.is_set():
            for relay in world.relays:
                relay.freeze()
                stop.wait(STANDS_STILL_SECONDS)
                relay.thaw()
                stop.wait(0.2)

    world.end_of_limit = world.spawn(work)


def too_little_memory(world: World) -> None:
    """A limit that suffices while nothing waits, and a backlog of large events."""
    payloads = [{"a": "x" * 300_000}] * 5
    world.limit_memory(16 * 2**20)
    world.kafka.freeze()
    for _ in range(30):
        world.write(world.topic, *payloads, key="k")
    world.kafka.thaw()
    # Of one key: each of its suspects is tried by itself, after a pause.
    world.write_for_ever(*payloads, key="k")


def poor_relay(world: World) -> None:
    """Before the start: the relay's own user, with the rights of the guide and that of the canary."""
    name = world.database.name
    world.execute(
        f"CREATE OR REPLACE USER '{RELAY_USER}'@'%' IDENTIFIED BY '{PASSWORD}'",
        f"GRANT SELECT, UPDATE, DELETE ON {name}.* TO '{RELAY_USER}'@'%'",
    )
    world.execute(_canary_right(world, "GRANT", "TO"))
    world.after.callback(world.execute, f"DROP USER '{RELAY_USER}'@'%'")
    text = world.config.read_text()
    world.config.write_text(text.replace("//ob:ob@", f"//{RELAY_USER}:{PASSWORD}@"))


def _canary_right(world: World, verb: str, to: str) -> str:
    columns = "(event_name, topic, payload)"
    return f"{verb} INSERT {columns} ON {world.database.name}.outbox {to} '{RELAY_USER}'@'%'"


def right_taken_away(world: World) -> None:
    """The relay's user may no longer insert."""
    world.execute(_canary_right(world, "REVOKE", "FROM"))


# Certificates


def with_a_certificate(world: World) -> None:
    """Before the start: a relay that logs in with a certificate, which lasts."""
    server = _secure(world)
    server.create_user(f"{RELAY_USER}_tls", PASSWORD, tls="X509")
    world.after.callback(server.root, f"DROP USER '{RELAY_USER}_tls'@'%'")
    path = world.folder / "relay.pem"
    lines = [
        "ssl = true",
        f'ssl_ca_file = "{server.authority.certificate.cert}"',
        f'ssl_cert_file = "{path}"',
        "[kafka]",
    ]
    text = world.config.read_text().replace("//ob:ob@", f"//{RELAY_USER}_tls:{PASSWORD}@")
    world.config.write_text(text.replace("[kafka]", "\n".join(lines), 1))
    world.words["CERTIFICATE"] = str(path)
    _write_certificate(world, path, days=25)


def certificate_ends(world: World) -> None:
    """Time has passed: five days are left. The new one is there."""
    _write_certificate(world, Path(world.words["CERTIFICATE"]), days=5)
    renewed = world.folder / "renewed.pem"
    _write_certificate(world, renewed, days=90)
    world.words["RENEWED"] = str(renewed)


def _write_certificate(world: World, path: Path, *, days: int) -> None:
    end = datetime.now(UTC) + timedelta(days=days)
    made = _secure(world).authority.sign_until(f"relay-{days}", end)
    path.write_text(made.cert.read_text() + made.key.read_text())


def _secure(world: World) -> SecureMariaDB:
    assert isinstance(world.mariadb, SecureMariaDB)
    return world.mariadb
