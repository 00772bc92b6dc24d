"""
For the `env.py` of an application that uses Alembic: leave our tables out of `--autogenerate`.

Without it, Alembic finds tables that the application's metadata does not know, and writes a revision
that drops them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from outbox_relay.inbox_schema import inbox_tables
from outbox_relay.schema import tables


def include_name(
    name: str | None,
    type_: str,
    parent_names: Mapping[str, str | None],
    *,
    table: str = "outbox",
    inbox: str | None = None,
) -> bool:
    """
    For ``context.configure(include_name=...)``: False for the outbox' tables and what is in them.

    An outbox of another name: ``functools.partial(include_name, table="shop_events")``. Of a consuming
    service, also leave its inbox out: ``inbox="inbox"``.

    >>> include_name("outbox_lease", "table", {})
    False
    """
    of = name if type_ == "table" else parent_names.get("table_name")
    return of not in _names(table, inbox)


def include_object(
    item: Any,
    name: str | None,
    type_: str,
    reflected: bool,
    compare_to: Any,
    *,
    table: str = "outbox",
    inbox: str | None = None,
) -> bool:
    """
    For ``context.configure(include_object=...)``: the same, also for tables of ours that were added
    to the application's metadata.
    """
    of = name if type_ == "table" else getattr(getattr(item, "table", None), "name", None)
    return of not in _names(table, inbox)


def _names(table: str, inbox: str | None) -> set[str]:
    of_inbox = [] if inbox is None else inbox_tables(inbox).metadata.sorted_tables
    return {
        *(known.name for known in of_inbox),
        *(known.name for known in tables(table).metadata.sorted_tables),
        f"{table}_alembic_version",
    }
