"""What the parts of one term share."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from outbox_relay.relay.options import RelayOptions
from outbox_relay.relay.ports import Broker, Clock, Lease, Observer, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The ports, the settings and the lease of a term."""

    store: Store
    broker: Broker
    clock: Clock
    observer: Observer
    random: Random
    options: RelayOptions
    lease: Lease
