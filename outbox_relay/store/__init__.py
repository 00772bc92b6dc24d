"""Where the outbox is: stores over SQLAlchemy, a small file for what differs in each database."""

from __future__ import annotations

from outbox_relay.relay.ports import Observer, Store
from outbox_relay.store.options import DatabaseOptions


def open_store(options: DatabaseOptions, *, observer: Observer | None = None) -> Store:
    """
    The store that ``options.url`` names. Connects when it is first used, not now.

    *observer* is told of errors that are in no table.

    Raises ConfigError for a database that is not supported.
    """
    if options.layout == "python-cqrs":
        from outbox_relay.store.adopt import AdoptedStore  # noqa: PLC0415

        return AdoptedStore(options, observer=observer)
    from outbox_relay.store.sql import SqlStore  # noqa: PLC0415 - keeps the options cheap to import

    return SqlStore(options, observer=observer)


__all__ = ["DatabaseOptions", "open_store"]
