"""What the tests of the write side, of the stores, of the inbox, and of what operators ask, share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.contract.billing import billing, database
from tests.contract.operating import access
from tests.contract.stores import World, open_world
from tests.contract.write_side import DATABASES, App, lent_app
from tests.services.database import Database
from tests.services.postgresql import PostgreSQL

__all__ = ["access", "billing", "database"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test of a `world` runs in each of those that its module names in WORLDS, or itself."""
    worlds = getattr(metafunc.module, "WORLDS", None)
    chosen = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if worlds and "world" in metafunc.fixturenames and "world" not in chosen:
        metafunc.parametrize("world", worlds, indirect=True)


@pytest.fixture
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A store of this kind, empty."""
    kind: str = request.param
    server = kind.removeprefix("adopted ")
    database = None if kind == "memory" else request.getfixturevalue(f"{server}_database")
    async with open_world(kind, database) as opened:
        yield opened


@pytest.fixture(scope="session")
def emptied() -> list[Database]:
    """Databases of PostgreSQL that tests have left, as if they were new."""
    return []


@pytest.fixture
def postgresql_database(postgresql: PostgreSQL, emptied: list[Database]) -> Iterator[Database]:
    """An empty one: that of the test before, if nobody uses it, since a new one takes longer than most tests."""
    database = emptied.pop() if emptied else postgresql.create_database()
    yield database
    if postgresql.empty(database):
        emptied.append(database)


@pytest.fixture(scope="session")
def ready() -> dict[str, Database]:
    """The databases that tests of the write side have left, by kind."""
    return {}


@pytest.fixture(params=DATABASES)
async def app(request: pytest.FixtureRequest, ready: dict[str, Database]) -> AsyncIterator[App]:
    """An application on a database of each kind, whose tables are empty."""
    kind: str = request.param

    def new() -> Database:
        if kind == "sqlite":
            return request.getfixturevalue("sqlite_database")  # type: ignore[no-any-return]
        # It stays: no fixture of this test may take it back.
        return request.getfixturevalue(kind).create_database()  # type: ignore[no-any-return]

    async with lent_app(kind, ready, new) as app:
        yield app
