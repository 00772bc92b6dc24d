"""What pauses, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outbox_relay.cli.dead_letter_view import harmless
from outbox_relay.relay.pauses import EVERYTHING
from outbox_relay.relay.purge import PURGE

if TYPE_CHECKING:
    from outbox_relay.operations import Pause


def name_of(topic: str) -> str:
    """
    What a row of the control table means.

    >>> name_of("*"), name_of("@purge"), name_of("orders")
    ('all topics', 'the purge', 'orders')
    """
    return {EVERYTHING: "all topics", PURGE: "the purge"}.get(topic, harmless(topic))


def pause_text(pause: Pause) -> str:
    """What pauses, since when and why."""
    since = f"{name_of(pause.topic)} since {pause.paused_at:%Y-%m-%d %H:%M:%S} UTC"
    return f"{since}, {harmless(pause.reason)}" if pause.reason else since
