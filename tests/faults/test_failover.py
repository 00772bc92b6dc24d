"""
An asynchronous failover: the primary dies before its replica has everything, and ids are given out again.
"""

from __future__ import annotations

from collections.abc import Iterator

import pymysql
import pytest
import sqlalchemy as sa

from outbox_relay.schema import Status
from tests.faults.site import SETTINGS, Account, Site, Sites, until
from tests.services.mariadb import MariaDB

LEASE_SECONDS = 6.0
REPLICATOR = "replicator"


@pytest.fixture
def primary_and_replica() -> Iterator[tuple[MariaDB, MariaDB]]:
    """Two servers; the second has what the first has, a moment later."""
    small = "--innodb-buffer-pool-size=32M"
    with (
        MariaDB(extra_args=[small, "--server-id=11"]) as primary,
        MariaDB(extra_args=[small, "--server-id=12"]) as replica,
    ):
        execute(
            primary,
            f"CREATE USER {REPLICATOR} IDENTIFIED BY 'r'",
            f"GRANT REPLICATION SLAVE ON *.* TO {REPLICATOR}",
        )
        execute(
            replica,
            f"CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {primary.port}, "
            f"MASTER_USER = '{REPLICATOR}', MASTER_PASSWORD = 'r', MASTER_USE_GTID = slave_pos",
            "START SLAVE",
        )
        yield primary, replica


def execute(server: MariaDB, *statements: str) -> None:
    """As root."""
    with server.root_connection() as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def rows(server: MariaDB, database: str) -> dict[int, int]:
    """Rows of the outbox by status; none while the table is not there."""
    with server.root_connection() as connection, connection.cursor() as cursor:
        try:
            cursor.execute(f"SELECT status, COUNT(*) FROM {database}.outbox GROUP BY status")
        except pymysql.err.ProgrammingError:
            return {}
        return dict(cursor.fetchall())


def moved_to(site: Site, server: MariaDB) -> None:
    """The application goes to another server; the relay still has its old address."""
    site.engine.dispose()
    site.engine = sa.create_engine(site.engine.url.set(port=server.port))


def test_ids_that_are_given_out_again_are_published(sites: Sites, primary_and_replica):
    """
    I2, I3. Marks wait while the primary dies, and new events get the ids that they name: on the promoted
    server these marks are dropped, a new term begins, and every new event is published.
    """
    primary, replica = primary_and_replica
    site = sites.make("failover", primary, lease_seconds=LEASE_SECONDS)
    name = site.near.name
    site.start()
    site.write(100)
    site.wait_until_relayed()
    until(lambda: rows(replica, name) == {Status.PRODUCED: 100})
    execute(replica, "STOP SLAVE")

    site.broker.cut()
    site.write(50)
    with primary.root_connection(name) as holder, holder.cursor() as cursor:
        # Whoever holds the rows lets no mark through: they are published and not yet marked.
        cursor.execute("BEGIN")
        cursor.execute("SELECT id FROM outbox WHERE id > 100 FOR UPDATE")
        site.broker.cure()
        until(lambda: len(site.kafka.consume_all(site.topic)) == 150)
        assert rows(primary, name) == {Status.PRODUCED: 100, Status.PENDING: 50}
        primary.kill()
    execute(
        replica,
        "RESET SLAVE ALL",
        # The last renewal has just come through: nothing but the server's identity ends the term.
        f"UPDATE {name}.outbox_lease SET expires_at = UTC_TIMESTAMP(6) + INTERVAL {LEASE_SECONDS} SECOND "
        "WHERE nonce <> ''",
    )
    moved_to(site, replica)
    site.write(50)
    with site.engine.connect() as connection:
        [largest] = connection.execute(sa.text("SELECT MAX(id) FROM outbox")).scalars()
    site.database.proxy.redirect(site.database.name, upstream=replica.port)

    site.wait_until_relayed()
    assert largest == 150
    assert site.account() == Account(
        lost=0, ghosts=0, inversions=0, duplicates=0, statuses={Status.PRODUCED: 150}
    )
    assert "instead of" in site.relay.logged("term_over")[0]["error"]
    site.relay.stop()


def test_a_primary_that_only_reads_is_left_for_the_new_one(sites: Sites, primary_and_replica):
    """
    I2, I6, I8. In a planned failover the old primary still answers: what was acked and could not be marked
    there is published once more by the new term, and nothing else. The relay says what is wrong.
    """
    primary, replica = primary_and_replica
    site = sites.make("planned", primary, lease_seconds=LEASE_SECONDS)
    name = site.near.name
    site.start()
    site.write(100)
    site.wait_until_relayed()
    site.broker.cut()
    site.write(200)
    until(lambda: sum(rows(replica, name).values()) == 300)

    execute(primary, "SET GLOBAL read_only = 1")
    site.broker.cure()
    until(lambda: site.relay.logged("store_unavailable"))
    execute(replica, "STOP SLAVE", "RESET SLAVE ALL")
    moved_to(site, replica)
    site.database.proxy.redirect(site.database.name, upstream=replica.port)
    site.write(50)

    site.wait_until_relayed()
    found = site.account()
    assert (found.lost, found.ghosts, found.inversions) == (0, 0, 0)
    assert found.duplicates <= SETTINGS["in_flight_rows"]
    assert found.statuses == {Status.PRODUCED: 350}
    said = [line["error"] for line in site.relay.logged("store_unavailable")]
    assert any("read" in error and "only" in error for error in said), said
    site.relay.stop()
