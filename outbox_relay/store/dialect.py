"""What differs between databases: the few pieces of SQL that `SqlStore` puts together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """
    One database's words. SQL text only; no data ever becomes part of it but integers.

    `seconds_ahead` holds one placeholder, for a number of seconds; `key` is the quoted column.
    """

    name: str
    placeholder: str
    key: str
    now: str
    seconds_ahead: str
    microseconds: str
    """Turns the column {} into microseconds since 1970."""
    blob: str
    """Makes bytes of the column {}."""
    pending_hint: str
    """Names the index {} to read pending rows by."""
    primary_hint: str
    identity: str
    """One row, one text: which incarnation of the server answers."""
    session: tuple[str, ...]
    """Run on each new connection."""
    dirty_session: tuple[str, ...] | None
    """Run besides on the connection for dirty reads; None if commits cannot overtake one another."""
    settle_seconds: float
    no_such_table: tuple[int | str, ...]
    """Error codes, or parts of the message, that mean a table or column is missing."""
    connect_args: Mapping[str, Any]
    engine_options: Mapping[str, Any]
    delete_from: str = "DELETE FROM {}"
    """Begins a DELETE from the table {} by primary key."""
