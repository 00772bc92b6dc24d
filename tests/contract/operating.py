"""
An outbox whose rows an operator asks for, on each database.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from outbox_relay.operations import (
    Access,
)
from outbox_relay.schema import Status
from outbox_relay.store import DatabaseOptions
from tests.contract.stores import SqlWorld

NOW = datetime.now(UTC).replace(tzinfo=None, microsecond=0)


@pytest.fixture
async def access(world: SqlWorld) -> AsyncIterator[Access]:
    opened = Access(DatabaseOptions(url=world.database.async_url))
    yield opened
    await opened.close()


def insert(world: SqlWorld, *rows: dict[str, Any]) -> list[int]:
    """A row for each, produced an hour after it was created unless it says otherwise."""
    ids = []
    with world.engine.begin() as connection:
        for given in rows:
            row = {"event_name": "order.placed", "topic": "orders", "payload": b"{}", **given}
            statement = world.tables.outbox.insert().values(**row)
            ids.append(connection.execute(statement).inserted_primary_key[0])
    return ids


def produced(**given: Any) -> dict[str, Any]:
    return {"status": 1, "produced_at": NOW, **given}


def dead(**given: Any) -> dict[str, Any]:
    return {"status": 2, "last_error": "too_large: x", "dead_at": NOW, "attempts": 1, **given}


def settle(world: SqlWorld, row_id: int, status: Status) -> None:
    error = "x" if status is Status.DEAD else None
    with world.engine.begin() as connection:
        outbox = world.tables.outbox
        change = outbox.update().values(status=int(status), last_error=error, dead_at=NOW)
        connection.execute(change.where(outbox.c.id == row_id))
