"""What differs between databases: the few pieces of SQL that `SqlStore` puts together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


def numbered(sql: str) -> str:
    """
    *sql* with the position of each placeholder instead of its ``#``.

    >>> numbered("SELECT $#, $#")
    'SELECT $1, $2'
    """
    first, *others = sql.split("$#")
    return first + "".join([f"${number}{part}" for number, part in enumerate(others, 1)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """
    One database's words. SQL text only; no data ever becomes part of it but integers.

    `seconds_ahead` holds one placeholder, for a number of seconds; `key` is the quoted column. In
    placeholders, # stands for the position.
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
    uuid: str
    """Makes 16 bytes of the column {}, an id of an event."""
    pending_hint: str
    """Names the index {} to read pending rows by."""
    primary_hint: str
    status_by_id: str = "status"
    """The status, where rows are named by their ids and the primary key is the way to them."""
    exact: str = "{}"
    """The text {}, compared byte by byte: spaces at its end count."""
    identity: str
    """One row, one text: which incarnation of the server answers."""
    session: tuple[str, ...]
    """Run on each new connection."""
    dirty_session: tuple[str, ...] | None
    """Run besides on the connection for dirty reads; None if commits cannot overtake one another."""
    holders: str | None = None
    """
    Where nothing reads what is not committed: the largest id of {table} above {at_least}, and who may
    insert.
    """
    each_in_transaction: bool = False
    """Whether each statement has a transaction of its own, begun by asking for the identity."""
    writes_side_by_side: bool = True
    """Whether two connections may write different rows at once."""
    settle_seconds: float
    no_such_table: tuple[int | str, ...]
    """Error codes, SQLSTATEs, or parts of the message, that mean a table or column is missing."""
    connect_args: Mapping[str, Any]
    engine_options: Mapping[str, Any]
    returning_id: str = ""
    """Ends an INSERT so that it answers with the row's id."""
    last_id: str = "SELECT LAST_INSERT_ID()"
    """Asks for the id that this connection gave last, where an INSERT does not answer with it."""
    delete_from: str = "DELETE FROM {}"
    """Begins a DELETE from the table {} by primary key."""
