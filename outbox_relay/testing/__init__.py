"""
For tests, ours and yours: an outbox in memory, a broker that records, a clock that you move.

`InMemoryStore` and `RecordingBroker` pass the same contract suites as the real ones.
"""

from outbox_relay.testing.broker import Published, RecordingBroker, Watcher, record
from outbox_relay.testing.clock import FakeClock, settle
from outbox_relay.testing.store import InMemoryStore, Transaction

__all__ = [
    "FakeClock",
    "InMemoryStore",
    "Published",
    "RecordingBroker",
    "Transaction",
    "Watcher",
    "record",
    "settle",
]
