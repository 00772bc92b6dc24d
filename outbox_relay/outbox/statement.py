"""The statement of `Outbox.insert` where a hint is to follow: it learns its connection when executed."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.sql.dml import Insert

from outbox_relay.outbox import guard
from outbox_relay.wake import Sender


class WakingInsert(Insert):
    """An INSERT whose connection's next commit is followed by a hint."""

    inherit_cache = True
    _wake: Sender

    def _execute_on_connection(self, connection: Connection, *args: Any, **kwargs: Any) -> Any:
        # What SQLAlchemy calls on each statement. Were it called otherwise one day, only hints
        # would be missing.
        result = super()._execute_on_connection(connection, *args, **kwargs)
        guard.tell_after_commit(connection, self._wake)
        return result


def waking_insert(table: sa.Table, wake: Sender) -> WakingInsert:
    """``insert(table)``, after whose commit *wake* sends."""
    statement = WakingInsert(table)
    statement._wake = wake
    return statement
