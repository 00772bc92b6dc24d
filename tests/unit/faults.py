"""
What tests put in the way of a store.
"""

from __future__ import annotations

from outbox_relay.errors import StoreUnavailable


def unavailable() -> None:
    """The database is away."""
    raise StoreUnavailable("the database is away")
