"""
For the `env.py` of an application that uses Alembic: leave our tables out of `--autogenerate`.

Without it, Alembic finds tables that the application's metadata does not know, and writes a revision
that drops them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from outbox_relay.inbox_schema import inbox_tables
from outbox_relay.schema import tables

ANY: Final = "*"
"""Of whichever schema: right unless Alembic compares several, with ``include_schemas=True``."""


def include_name(
    name: str | None,
    type_: str,
    parent_names: Mapping[str, str | None],
    *,
    table: str = "outbox",
    inbox: str | None = None,
    schema: str | None = ANY,
) -> bool:
    """
    For ``context.configure(include_name=...)``: False for the outbox' tables and what is in them.

    An outbox of another name: ``functools.partial(include_name, table="shop_events")``. Of a consuming
    service, also leave its inbox out: ``inbox="inbox"``. With ``include_schemas=True`` and a table of
    yours that is called the same in another schema: ``schema="events"``, or None for the default one.

    >>> include_name("outbox_lease", "table", {})
    False
    >>> include_name("outbox", "table", {"schema_name": "yours"}, schema="events")
    True
    """
    of = name if type_ == "table" else parent_names.get("table_name")
    return of not in _names(table, inbox) or not _same(parent_names.get("schema_name"), schema)


def include_object(
    item: Any,
    name: str | None,
    type_: str,
    reflected: bool,
    compare_to: Any,
    *,
    table: str = "outbox",
    inbox: str | None = None,
    schema: str | None = ANY,
) -> bool:
    """
    For ``context.configure(include_object=...)``: the same, also for tables of ours that were added
    to the application's metadata.
    """
    owner = item if type_ == "table" else getattr(item, "table", None)
    of = name if type_ == "table" else getattr(owner, "name", None)
    return of not in _names(table, inbox) or not _same(getattr(owner, "schema", None), schema)


def _same(schema: str | None, wanted: str | None) -> bool:
    return wanted in (ANY, schema)


def _names(table: str, inbox: str | None) -> set[str]:
    of_inbox = [] if inbox is None else inbox_tables(inbox).metadata.sorted_tables
    return {
        *(known.name for known in of_inbox),
        *(known.name for known in tables(table).metadata.sorted_tables),
        f"{table}_alembic_version",
    }
