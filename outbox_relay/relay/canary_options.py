"""The settings of the canary, section ``[canary]``: the one home of their defaults."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

CANARY_NAME: Final = "outbox_relay.canary"
"""The name of events that the relay writes itself, to see that they arrive."""

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryOptions:
    """An event of the relay's own that shows whether events arrive, section ``[canary]``."""

    topic: str = ""
    """Topic that the canary is published to; it must exist. Best one of its own, since consumers see it. Empty: no canary. The relay's user needs INSERT on the outbox for it."""

    every_seconds: float = 60.0
    """How often one is written, by one relay of a table."""

    def problems(self) -> list[str]:
        """What is wrong with these settings, one line each, named by key."""
        if self.topic and not _TOPIC.fullmatch(self.topic):
            return [
                f"canary.topic = {self.topic!r} must be a topic's name: up to 249 of A-Z a-z 0-9 . _ -"
            ]
        if not 1.0 <= self.every_seconds <= 3600.0:
            return [f"canary.every_seconds = {self.every_seconds} must be from 1 to 3600"]
        return []
