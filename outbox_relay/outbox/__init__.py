"""
The write side: what applications import.

`Outbox.insert` makes one pure statement; `Outbox.add` executes it at once on the caller's own
connection. There is no buffer and no hidden state, so an event shares the fate of whatever the
same transaction, or the same SAVEPOINT, has written.
"""

from outbox_relay.handles import AsyncHandle, SyncHandle
from outbox_relay.outbox.encode import Payload
from outbox_relay.outbox.outbox import Outbox

__all__ = ["AsyncHandle", "Outbox", "Payload", "SyncHandle"]
