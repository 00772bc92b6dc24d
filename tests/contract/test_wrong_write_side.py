"""
A deliberately wrong write side, which the tests of I1 must find out: events are kept on the session and
written in its `before_commit`.
"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from outbox_relay import Outbox
from tests.contract import test_write_side
from tests.contract.write_side import running_app


class Buffered(Outbox):
    """Writes late, in a hook that a commit may go round."""

    def add(self, handle: Any, *events: Any, **_: Any) -> Any:
        """Keep *events*."""
        handle.info.setdefault("events", []).extend(events)
        if not event.contains(handle, "before_commit", self._write):
            event.listen(handle, "before_commit", self._write)

    def _write(self, session: Session) -> None:
        events = session.info.pop("events", [])
        if events:
            Outbox.add(self, session, *events)


async def test_events_that_are_written_in_before_commit_are_found_out(sqlite_database) -> None:
    """
    I1. Where the transaction is ended by its connection, the state changes and the event is lost.
    """
    async with running_app(sqlite_database) as app:
        app.outbox = Buffered()
        with pytest.raises(AssertionError):
            await test_write_side.test_commit_of_the_sessions_own_connection(app, "Session")

        assert app.committed() == (["committed"], [])
