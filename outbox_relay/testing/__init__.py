"""
For tests, ours and yours: an outbox in memory, a broker that records, a clock that you move, and what
your application has outboxed.

`InMemoryStore` and `RecordingBroker` pass the same contract suites as the real ones.
`outbox_relay.testing.pytest_plugin` has fixtures; nothing else here needs pytest.
"""

from outbox_relay.testing.broker import Published, RecordingBroker, Watcher, record
from outbox_relay.testing.clock import FakeClock, settle
from outbox_relay.testing.crashes import Crashed, crash_at
from outbox_relay.testing.outboxed import Outboxed, WrittenEvent
from outbox_relay.testing.relaying import MemoryRelay, NotDrained, memory_broker
from outbox_relay.testing.store import InMemoryStore, Transaction

__all__ = [
    "Crashed",
    "FakeClock",
    "InMemoryStore",
    "MemoryRelay",
    "NotDrained",
    "Outboxed",
    "Published",
    "RecordingBroker",
    "Transaction",
    "Watcher",
    "WrittenEvent",
    "crash_at",
    "memory_broker",
    "record",
    "settle",
]
