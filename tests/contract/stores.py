"""
One store to a test, with a writer's side of its own: what the suites need of each implementation.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import sqlalchemy as sa

from outbox_relay.relay.ports import Store
from outbox_relay.schema import LANES, SCHEMA_VERSION, Status, tables
from outbox_relay.store import DatabaseOptions, open_store
from outbox_relay.testing import FakeClock, InMemoryStore
from tests.contract.adopted import AdoptedWorld
from tests.services.database import Database

SERVERS = ["mariadb", "mysql", "postgresql", "sqlite"]
KINDS = ["memory", *SERVERS]
ADOPTED = ["adopted mariadb", "adopted mysql", "adopted postgresql"]


class Writer(Protocol):
    """A transaction of an application."""

    def insert(self, topic: str = "t", key: bytes | None = None, payload: bytes = b"{}") -> int: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...


class World(Protocol):
    """A store, and what tests see of it from outside."""

    store: Store
    dirty_reads: bool

    def another(self) -> Store: ...
    def begin(self) -> Writer: ...
    def status(self, row_id: int) -> Status: ...
    def statuses(self, row_ids: Collection[int]) -> set[Status]: ...
    def error(self, row_id: int) -> str | None: ...
    def ids(self) -> list[int]: ...
    def age(self, row_id: int, *, seconds: float) -> None: ...
    def pause(self, topic: str) -> None: ...
    def end_lease(self) -> None: ...
    def change_server(self) -> None: ...


class MemoryWorld:
    """The store of `outbox_relay.testing`."""

    dirty_reads = True

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = InMemoryStore(self.clock)

    def another(self) -> Store:
        return self.store

    def begin(self) -> Any:
        return self.store.begin()

    def status(self, row_id: int) -> Status:
        return self.store.status(row_id)

    def statuses(self, row_ids: Collection[int]) -> set[Status]:
        return {self.store.status(row_id) for row_id in row_ids}

    def error(self, row_id: int) -> str | None:
        return self.store.error(row_id)

    def ids(self) -> list[int]:
        return sorted(self.store.rows)

    def age(self, row_id: int, *, seconds: float) -> None:
        self.store.rows[row_id].settled_at -= seconds

    def pause(self, topic: str) -> None:
        self.store.paused.add(topic)

    def end_lease(self) -> None:
        self.store.leases.run_out()

    def change_server(self) -> None:
        self.store.server = "memory:2"


@dataclass
class SqlWriter:
    """A plain transaction on a connection of its own."""

    connection: sa.Connection
    outbox: sa.Table

    def insert(self, topic: str = "t", key: bytes | None = None, payload: bytes = b"{}") -> int:
        statement = self.outbox.insert().values(
            event_name="event", topic=topic, key=key, payload=payload
        )
        return self.connection.execute(statement).inserted_primary_key[0]

    def commit(self) -> None:
        self.connection.commit()
        self.connection.close()

    def rollback(self) -> None:
        self.connection.rollback()
        self.connection.close()


class SqlWorld:
    """A store over a real database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.engine = sa.create_engine(database.sync_url)
        self.tables = create_tables(self.engine)
        self.store = self.another()
        self.dirty_reads = self.engine.dialect.name in ("mysql", "mariadb")
        self.opened = [self.store]

    def another(self) -> Store:
        store = open_store(DatabaseOptions(url=self.database.async_url))
        self.__dict__.setdefault("opened", []).append(store)
        return store

    def begin(self) -> SqlWriter:
        return SqlWriter(self.engine.connect(), self.tables.outbox)

    def _row(self, row_id: int) -> Any:
        outbox = self.tables.outbox
        with self.engine.connect() as connection:
            return connection.execute(sa.select(outbox).where(outbox.c.id == row_id)).one()

    def status(self, row_id: int) -> Status:
        return Status(self._row(row_id).status)

    def statuses(self, row_ids: Collection[int]) -> set[Status]:
        """Of rows that are all there, by one statement: a connection for each takes its time."""
        outbox = self.tables.outbox
        chosen = sa.select(outbox.c.status).where(outbox.c.id.in_(row_ids))
        with self.engine.connect() as connection:
            found = connection.execute(chosen).scalars().all()
        assert len(found) == len(row_ids)
        return {Status(status) for status in found}

    def error(self, row_id: int) -> str | None:
        return self._row(row_id).last_error

    def ids(self) -> list[int]:
        outbox = self.tables.outbox
        with self.engine.connect() as connection:
            return list(connection.execute(sa.select(outbox.c.id).order_by(outbox.c.id)).scalars())

    def age(self, row_id: int, *, seconds: float) -> None:
        """As if it had been produced, or given up, so long ago."""
        outbox = self.tables.outbox
        then = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=seconds)
        with self.engine.begin() as connection:
            connection.execute(
                outbox.update().where(outbox.c.id == row_id).values(produced_at=then, dead_at=then)
            )

    def pause(self, topic: str) -> None:
        with self.engine.begin() as connection:
            connection.execute(self.tables.control.insert().values(topic=topic))

    def end_lease(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(
                sa.text("UPDATE outbox_lease SET expires_at = '1999-01-01 00:00:00.000000'")
            )

    def change_server(self) -> None:
        """What the store remembers of the server no longer fits the one that answers."""
        self.store._server = "another:1"


def create_tables(engine: sa.Engine, name: str = "outbox") -> Any:
    """The tables as `outbox-relay migrate` leaves them."""
    made = tables(name)
    made.metadata.create_all(engine)
    lanes = 1 if engine.dialect.name == "sqlite" else 2 * LANES
    with engine.begin() as connection:
        connection.execute(made.version.insert().values(version=SCHEMA_VERSION, min_reader=1))
        connection.execute(made.lease.insert(), [{"lane": lane} for lane in range(lanes)])
    return made


@contextmanager
def sql_engine(database: Database) -> Iterator[sa.Engine]:
    """An engine that is disposed of."""
    engine = sa.create_engine(database.sync_url, poolclass=sa.NullPool)
    yield engine
    engine.dispose()


@asynccontextmanager
async def open_world(kind: str, database: Database | None) -> AsyncIterator[World]:
    """A world, closed at the end."""
    if kind == "memory":
        yield MemoryWorld()
        return
    assert database is not None
    world: Any
    if kind.startswith("adopted "):
        world = AdoptedWorld(database)
        await world.prepare()
    else:
        world = SqlWorld(database)
    yield world
    for store in world.opened:
        await store.close()
    world.engine.dispose()
