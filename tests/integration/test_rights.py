"""
docs/guide/security.md: the rights that it names suffice, and each of the relay's is needed.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from outbox_relay import Outbox
from outbox_relay.errors import StoreUnavailable
from outbox_relay.migrate import migrate
from outbox_relay.relay.options import RelayOptions
from outbox_relay.relay.ports import PurgePlan, ReadPlan
from outbox_relay.relay.producer import EventProducer
from outbox_relay.schema import Status
from outbox_relay.store import DatabaseOptions, open_store
from outbox_relay.testing import FakeClock, RecordingBroker
from tests.pages import texts

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "security.md"
BLOCKS = texts(GUIDE, "sql")
ABOUT_CANARIES = GUIDE.parent / "prometheus.md"
PASSWORD = "its-password"
EVERYTHING = ReadPlan(after_id=0, open_ids=frozenset(), limit=100)
SERVERS = ["mariadb", "mysql", "postgresql"]


class Rights:
    """Three users of one database, with the rights that the guide gives them."""

    def __init__(self, kind: str, server: Any) -> None:
        self._is_postgresql = kind == "postgresql"
        self._server = server
        self.database = server.create_database()
        self._suffix = uuid.uuid4().hex[:8]
        for who in ("relay", "app", "migrator"):
            if self._is_postgresql:
                self.root(f"CREATE ROLE {self._name(who)} LOGIN PASSWORD '{PASSWORD}'")
            else:
                self.root(f"CREATE USER '{self._name(who)}'@'%' IDENTIFIED BY '{PASSWORD}'")

    def _name(self, who: str) -> str:
        return f"{who}_{self._suffix}"

    def root(self, statement: str) -> None:
        """Run one statement with every right."""
        if self._is_postgresql:
            with self._server.root_connection(self.database.name) as connection:
                connection.execute(statement)
        else:
            connection = self._server.root_connection()
            with connection, connection.cursor() as cursor:
                cursor.execute(statement)

    def url(self, who: str, *, sync: bool = False) -> URL:
        base = make_url(self.database.sync_url if sync else self.database.async_url)
        return base.set(username=self._name(who), password=PASSWORD)

    def options(self, who: str) -> DatabaseOptions:
        return DatabaseOptions(url=self.url(who).render_as_string(hide_password=False))

    def statements(self, who: str, blocks: Sequence[str] = BLOCKS) -> list[str]:
        """The guide's statements for *who*, with this database's names."""
        ending = f"TO {who};" if self._is_postgresql else f"TO '{who}'@'%';"
        (block,) = [block for block in blocks if ending in block]
        named = re.sub(rf"\b{who}(?=;|'@)", self._name(who), block)
        return named.replace("shop.", f"{self.database.name}.").strip().splitlines()

    def grant(self, who: str) -> None:
        for statement in self.statements(who):
            self.root(statement)

    def each(self, who: str) -> Iterator[tuple[str, str]]:
        """Each single right of *who*: how to take it away, and how to give it back."""
        for statement in self.statements(who):
            rights, rest = statement.removeprefix("GRANT ").split(" ON ")
            for right in rights.split(", "):
                given = f"GRANT {right} ON {rest}"
                yield given.replace("GRANT", "REVOKE", 1).replace(" TO ", " FROM "), given

    def drop(self) -> None:
        for who in ("relay", "app", "migrator"):
            if self._is_postgresql:
                self.root(f"DROP OWNED BY {self._name(who)}")
                self.root(f"DROP ROLE {self._name(who)}")
            else:
                self.root(f"DROP USER '{self._name(who)}'@'%'")


@pytest.fixture(params=SERVERS)
def rights(request: pytest.FixtureRequest) -> Iterator[Rights]:
    made = Rights(request.param, request.getfixturevalue(request.param))
    yield made
    made.drop()


def write(rights: Rights, count: int) -> None:
    """Events of the application, by its own user."""
    engine = sa.create_engine(rights.url("app", sync=True), poolclass=sa.NullPool)
    with engine.begin() as connection:
        for number in range(count):
            Outbox().add(connection, {"n": number}, name="e", topic="orders", key=f"k{number}")
    engine.dispose()


async def refusals(options: DatabaseOptions) -> list[str]:
    """What the database refuses of all that a store does for a relay."""
    store = open_store(options)
    said = []
    try:
        await store.check_schema()
        lease = await store.acquire("relay", wake_address="", lease_seconds=15)
        assert lease is not None
        term = lease.term
        aged = PurgePlan(status=Status.PRODUCED, older_than_seconds=3600, after_id=0, limit=10)
        for work in (
            lambda: store.read(EVERYTHING),
            lambda: store.uncommitted_ids(EVERYTHING),
            store.max_id,
            lambda: store.payload(1),
            store.paused_topics,
            lambda: store.dead_keys(limit=10),
            lambda: store.sample(cap=10),
            lambda: store.waiting(limit=10, by_key=True),
            lambda: store.mark_produced([1], term),
            lambda: store.mark_dead(2, "too_large: x", term),
            lambda: store.delete_produced([3], term),
            lambda: store.aged(aged),
            lambda: store.purge([1], aged, term),
            lambda: store.renew(lease, noted_id=0, lease_seconds=15),
            store.wake_addresses,
            lambda: store.release(lease),
        ):
            try:
                await work()
            except StoreUnavailable as error:
                said.append(str(error))
        with suppress(StoreUnavailable):
            await store.release(lease)
    except StoreUnavailable as error:
        said.append(str(error))
    finally:
        await store.close()
    return said


async def test_the_rights_suffice(rights: Rights) -> None:
    """
    The tables are made, events written, published and marked, and dead letters kept, each by its user.
    """
    rights.grant("migrator")
    await asyncio.to_thread(migrate, rights.options("migrator"))
    assert await asyncio.to_thread(migrate, rights.options("migrator")) == []
    rights.grant("relay")
    rights.grant("app")
    await asyncio.to_thread(write, rights, 5)
    broker = RecordingBroker(FakeClock(), {"orders": 1})
    store = open_store(rights.options("relay"))
    options = RelayOptions(retention_seconds=3600, dead_letter_retention_seconds=3600)
    await asyncio.wait_for(EventProducer(store, broker, options=options).run(until_empty=True), 30)

    assert len(broker.seqs()) == 5
    assert await refusals(rights.options("relay")) == []


async def test_each_right_of_the_relay_is_needed(rights: Rights) -> None:
    """
    Without any single one the database refuses something, and says which: none is given for nothing.
    """
    rights.grant("migrator")
    await asyncio.to_thread(migrate, rights.options("migrator"))
    rights.grant("relay")
    rights.grant("app")
    await asyncio.to_thread(write, rights, 3)
    unneeded = []
    for take_away, give_back in rights.each("relay"):
        rights.root(take_away)
        if not await refusals(rights.options("relay")):
            unneeded.append(give_back)
        rights.root(give_back)

    assert unneeded == []


async def test_a_canary_needs_one_right_more(rights: Rights) -> None:
    """
    docs/guide/prometheus.md names it: to insert, and of three columns only.
    """
    rights.grant("migrator")
    await asyncio.to_thread(migrate, rights.options("migrator"))
    rights.grant("relay")
    store = open_store(rights.options("relay"))
    try:
        await store.check_schema()
        with pytest.raises(StoreUnavailable, match=r"INSERT|permission denied"):
            await store.write_canary("canary")
        canary = texts(ABOUT_CANARIES, "sql")
        for statement in rights.statements("relay", canary):
            rights.root(statement)
        row_id = await store.write_canary("canary")

        assert await store.canary_seconds(row_id) is None
    finally:
        await store.close()


async def test_an_application_can_only_insert(rights: Rights) -> None:
    """
    It reads nobody's events, and marks none.
    """
    rights.grant("migrator")
    await asyncio.to_thread(migrate, rights.options("migrator"))
    rights.grant("app")
    engine = sa.create_engine(rights.url("app", sync=True), poolclass=sa.NullPool)
    for statement in ("SELECT 1 FROM outbox", "UPDATE outbox SET status = 1", "DELETE FROM outbox"):
        with pytest.raises(sa.exc.DBAPIError), engine.connect() as connection:
            connection.exec_driver_sql(statement)
    engine.dispose()


@pytest.mark.parametrize("rights", ["mariadb"], indirect=True)
async def test_each_right_to_migrate_is_needed(rights: Rights) -> None:
    """
    From nothing to the newest tables, without any single right: something is refused.
    """
    rights.grant("migrator")
    unneeded = []
    for take_away, give_back in rights.each("migrator"):
        rights.root(take_away)
        try:
            await asyncio.to_thread(migrate, rights.options("migrator"))
        except StoreUnavailable:
            pass
        else:
            unneeded.append(give_back)
        rights.root(give_back)
        rights.root(f"DROP DATABASE {rights.database.name}")
        rights.root(f"CREATE DATABASE {rights.database.name}")

    assert unneeded == []
