"""
What an operator asks of a running outbox, and does with it: for the command line and for a dashboard.

Functions over an `Access` to the database. None prints, and each statement is bounded: it is safe beside
ten million rows and a relay at work.
"""

from __future__ import annotations

from outbox_relay.operations.access import Access
from outbox_relay.operations.events import EventRow, Page, event, search_events, stored_payload
from outbox_relay.operations.finding import Lookup, find_event
from outbox_relay.operations.life import EventLife, Waiting
from outbox_relay.operations.pausing import (
    ALL_TOPICS,
    THE_PURGE,
    Pause,
    pause,
    paused,
    resume,
)
from outbox_relay.operations.rates import Rate
from outbox_relay.operations.selection import EventFilter
from outbox_relay.operations.standing import (
    Backlog,
    Standing,
    TopicBacklog,
    backlog,
    read_standing,
)

__all__ = [
    "ALL_TOPICS",
    "THE_PURGE",
    "Access",
    "Backlog",
    "EventFilter",
    "EventLife",
    "EventRow",
    "Lookup",
    "Page",
    "Pause",
    "Rate",
    "Standing",
    "TopicBacklog",
    "Waiting",
    "backlog",
    "event",
    "find_event",
    "pause",
    "paused",
    "read_standing",
    "resume",
    "search_events",
    "stored_payload",
]
