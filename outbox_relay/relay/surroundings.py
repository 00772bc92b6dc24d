"""What the parts of one term share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random

from outbox_relay.relay.canary_options import CanaryOptions
from outbox_relay.relay.lease import Holding, Lease
from outbox_relay.relay.options import RelayOptions
from outbox_relay.relay.ports import Clock, MessageBroker, Observer, Store
from outbox_relay.relay.tracing import Tracing


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The ports, the settings and the lease of a term. `hinted` is set when there may be rows."""

    store: Store
    broker: MessageBroker
    clock: Clock
    observer: Observer
    random: Random
    options: RelayOptions
    holding: Holding
    hinted: asyncio.Event = field(default_factory=asyncio.Event)
    canary: CanaryOptions = field(default_factory=CanaryOptions)
    tracing: Tracing | None = None

    @property
    def lease(self) -> Lease:
        """The lease as it stands now."""
        return self.holding.lease
