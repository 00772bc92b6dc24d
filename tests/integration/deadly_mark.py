"""
`outbox-relay run` that dies by SIGKILL after the broker's acks and before a mark: the file to run.

Arguments: how many marks it lives to make, then those of the command.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from outbox_relay.cli.app import app
from outbox_relay.relay.lease import Term
from outbox_relay.store.sql import SqlStore

marking = SqlStore.mark_produced
marks = [int(sys.argv.pop(1))]


async def mark(self: SqlStore, ids: Sequence[int], term: Term) -> None:
    """As the store does, so many times."""
    if marks[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    marks[0] -= 1
    await marking(self, ids, term)


SqlStore.mark_produced = mark  # type: ignore[method-assign]

if __name__ == "__main__":
    app()
