"""
The statement of `Outbox.insert`: an ordinary INSERT, which costs less where it is only executed.

SQLAlchemy makes a bound parameter of each value of a statement, and reads them all again to find out
whether it has compiled such a statement before: five times the work of a statement that gets its row
as parameters. So the values are made when somebody asks for them (compiles it, adds RETURNING);
executed as it is, its row goes as parameters of one statement that is the same for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import ref

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.sql.dml import Insert

from outbox_relay.outbox import guard
from outbox_relay.wake import Sender


class OutboxInsert(Insert):
    """An INSERT, of *row* if given. Its connection's next commit is followed by a hint, if *wake* is."""

    inherit_cache = True

    def __init__(
        self, table: sa.Table, row: Mapping[str, Any] | None, plain: Insert, wake: Sender | None
    ) -> None:
        super().__init__(table)
        self._row = row
        self._plain = plain
        self._wake = wake
        # A copy has the attributes of its original; only this tells them apart.
        self._original = ref(self)

    # What SQLAlchemy's own statement sets in `values`.
    @property
    def _values(self) -> Any:
        made = self.__dict__.get("_made_values")
        if made is None and self._row is not None:
            made = self.__dict__["_made_values"] = self._plain.values(self._row)._values
        return made

    @_values.setter
    def _values(self, values: Any) -> None:
        self.__dict__["_made_values"] = values

    def _execute_on_connection(
        self, connection: Connection, distilled_params: Any, execution_options: Any
    ) -> Any:
        # What SQLAlchemy calls on each statement. Were it called otherwise one day, only hints
        # would be missing, and it would cost more.
        execute = super()._execute_on_connection
        if self._row is not None and not distilled_params and self._original() is self:
            execute, distilled_params = self._plain._execute_on_connection, [self._row]
        result = execute(connection, distilled_params, execution_options)
        if self._wake is not None:
            guard.tell_after_commit(connection, self._wake)
        return result
