"""A running bookstore for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.bookstore.site import Site, running
from tests.services.database import Database


@pytest.fixture
async def site(sqlite_database: Database) -> AsyncIterator[Site]:
    """The bookstore on SQLite."""
    async with running(sqlite_database.async_url) as running_site:
        yield running_site


@pytest.fixture(params=["sqlite", "mariadb"])
async def each_site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    """The bookstore on SQLite, and on MariaDB."""
    database: Database = request.getfixturevalue(f"{request.param}_database")
    async with running(database.async_url) as running_site:
        yield running_site
