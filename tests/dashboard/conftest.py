"""
Dashboards over an outbox of their own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from outbox_relay.migrate import migrate
from outbox_relay.store.options import DatabaseOptions
from tests.dashboard.desk import Office


@pytest.fixture
async def open_office(sqlite_database, tmp_path) -> AsyncIterator[Callable[..., Office]]:
    migrate(DatabaseOptions(url=sqlite_database.async_url))
    opened: list[Office] = []

    def open_(**options) -> Office:
        opened.append(Office(sqlite_database, tmp_path, **options))
        return opened[-1]

    yield open_
    for office in opened:
        await office.browser.aclose()
        await office.desk.close()
        office.engine.dispose()


@pytest.fixture
async def office(open_office) -> Office:
    """One that somebody has logged in to."""
    office = open_office()
    await office.log_in()
    return office
