"""
Whether a store logs in to its database, and what it says when it does not.
"""

from __future__ import annotations

import pytest

from outbox_relay.errors import SchemaMismatch, StoreUnavailable
from outbox_relay.store import DatabaseOptions, open_store


async def refusal(options: DatabaseOptions) -> str:
    """What the store says when it cannot log in."""
    assert options.problems() == []
    store = open_store(options)
    with pytest.raises(StoreUnavailable) as raised:
        await store.check_schema()
    await store.close()
    return str(raised.value)


async def logs_in(options: DatabaseOptions) -> bool:
    """Whether the store reaches the (empty) database."""
    assert options.problems() == []
    store = open_store(options)
    with pytest.raises(SchemaMismatch):
        await store.check_schema()
    await store.close()
    return True
