"""The relay's settings, section ``[relay]``: the one home of their defaults."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from outbox_relay.schema import LANES
from outbox_relay.wake import parse_wake_address

MAY_BE_ZERO = ("retention_seconds", "dead_letter_retention_seconds")
MOST_RETENTION_SECONDS = 100 * 366 * 86_400
"""A century: further back some databases cannot reckon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayOptions:
    """How the relay reads, publishes, marks and stops. Times are in seconds."""

    in_flight_rows: int = 6000
    """Most rows read and not yet marked. Also the most duplicates that a crash can cause."""

    in_flight_bytes: int = 64 * 1024 * 1024
    """Most stored payload bytes of rows read and not yet marked."""

    chunk_rows: int = 2000
    """Most rows that one SELECT returns. At most half of in_flight_rows, so that reading and publishing overlap; a third lets marking overlap too."""

    batch_bytes: int = 262_144
    """Most bytes of one produce batch, uncompressed. A larger record travels alone."""

    max_payload_bytes: int = 16_777_215
    """A payload that inflates to more becomes a dead letter, so that a zip bomb cannot take the memory."""

    poll_seconds: float = 1.0
    """Longest pause between two reads while nothing is there to relay. After an event it begins at 0.01 and grows."""

    wake_address: str = ""
    """Where hints about new events come in: unix:/path, udp:host:port (0.0.0.0 for all addresses), or both with a comma between. Empty: the relay polls."""

    wake_published: str = ""
    """Where other relays reach this one with hints, udp:host:port. Empty: the udp address of wake_address, with this machine's own address for 0.0.0.0."""

    wake_notify: bool = False
    """Whether the relay also listens for PostgreSQL's NOTIFY on a connection of its own, which a trigger of the table sends. PostgreSQL only, and not through a pooler with transaction_pooler."""

    sweep_rows_per_second: int = 2000
    """Rows a second that the search for late rows below the cursor may look at."""

    max_active_relays: int = 1
    """How many relays of one table relay at the same time, 1 to 64: they share the keys, and the others stand by. The same for all relays of a table."""

    lease_seconds: float = 15.0
    """How long a relay may act without renewing. Must exceed publish_deadline_seconds of the broker's section, else two relays publish the same event."""

    standby_seconds: float = 0.7
    """How often a relay that stands by looks whether it is needed, and an active one whether others came or went."""

    stop_seconds: float = 10.0
    """Budget of a stop: what is in flight is settled within it, and the process leaves whatever broker and database do."""

    backoff_max_seconds: float = 60.0
    """Longest pause before a topic or partition in trouble is tried again; starts at 0.2 and doubles, with jitter."""

    sample_seconds: float = 15.0
    """How often the backlog is measured for the metrics."""

    on_dead_letter: Literal["skip", "hold_key"] = "skip"
    """What a dead letter does to later events of its topic and key: skip lets them go on; hold_key keeps them back until it is requeued or discarded."""

    retention_seconds: float = 604_800.0
    """How long a produced row is kept, from the broker's ack on; then it is purged. 0 deletes it on the ack, which is the fastest."""

    dead_letter_retention_seconds: float = 0.0
    """How long a dead letter is kept before it is purged, with a log line for each. 0 keeps it until somebody discards it."""

    def problems(self) -> list[str]:
        """What is wrong with these settings, one line each, named by key."""
        found = [
            f"relay.{field.name} = {getattr(self, field.name)} must be greater than 0"
            for field in dataclasses.fields(self)
            if field.name not in MAY_BE_ZERO
            and not isinstance(getattr(self, field.name), str | bool)
            and getattr(self, field.name) <= 0
        ]
        found += [
            f"relay.{name} = {getattr(self, name)} must be from 0 to {MOST_RETENTION_SECONDS}"
            for name in MAY_BE_ZERO
            if not 0 <= getattr(self, name) <= MOST_RETENTION_SECONDS
        ]
        for text, key in ((self.wake_address, "address"), (self.wake_published, "published")):
            found += [f"relay.wake_{key}: {problem}" for problem in _wake_problems(text, key)]
        if self.max_active_relays > LANES:
            found.append(
                f"relay.max_active_relays = {self.max_active_relays} must be at most {LANES}: "
                "there are as many lanes"
            )
        if self.chunk_rows * 2 > self.in_flight_rows:
            found.append(
                f"relay.chunk_rows = {self.chunk_rows} must be at most half of "
                f"relay.in_flight_rows = {self.in_flight_rows}"
            )
        if self.on_dead_letter not in ("skip", "hold_key"):
            found.append('relay.on_dead_letter must be one of "skip", "hold_key"')
        return found


def _wake_problems(text: str, key: str) -> list[str]:
    found = []
    for part in text.split(",") if text else ():
        try:
            address = parse_wake_address(part, any_port=key == "address")
        except ValueError as error:
            found.append(str(error))
        else:
            if key == "published" and address.path:
                found.append(
                    f"{part!r}: no other machine reaches a socket's path: use udp:host:port"
                )
    if key == "published" and "," in text:
        found.append("one address only")
    return found
