"""Hints about new events: the owner reads at once, a relay that stands by passes them on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from outbox_relay.errors import StoreUnavailable
from outbox_relay.relay.ports import Clock, Observer, Store, Wake

HINT_GAP_SECONDS = 0.002
"""From one read, or one passing on, to the next that a hint asks for: a flood costs no more."""

OWNER_SECONDS = 1.0
"""How long the owner's address is used before the store is asked again."""


class Wakes:
    """Several ways by which hints come in, as one."""

    def __init__(self, *wakes: Wake) -> None:
        self._wakes = wakes
        self.address = max((wake.address for wake in wakes), key=bool, default="")

    def start(self, received: Callable[[bool], None]) -> None:
        """See Wake."""
        for wake in self._wakes:
            wake.start(received)

    def pass_on(self, address: str) -> None:
        """See Wake."""
        for wake in self._wakes:
            wake.pass_on(address)

    def close(self) -> None:
        """See Wake."""
        for wake in self._wakes:
            wake.close()


class Hints:
    """What becomes of the hints that reach this relay. `arrived` is for the reader to clear."""

    def __init__(
        self,
        wake: Wake | None,
        store: Store,
        *,
        clock: Clock,
        observer: Observer,
        owns_all: Callable[[], bool],
    ) -> None:
        self.arrived = asyncio.Event()
        self._wake = wake
        self._store = store
        self._clock = clock
        self._observer = observer
        self._owns_all = owns_all
        self._to_pass_on = asyncio.Event()
        self._owners: frozenset[str] = frozenset()
        self._asked_at = float("-inf")

    @property
    def address(self) -> str:
        """Where other relays reach this one; empty if nowhere."""
        return self._wake.address if self._wake is not None else ""

    def received(self, passed_on: bool) -> None:
        """A hint is here; *passed_on* if a relay sent it. Any number of them count as one."""
        self.arrived.set()
        if not passed_on and not self._owns_all():
            self._to_pass_on.set()

    async def run(self) -> None:
        """Take in hints and pass on what is others' business, for ever."""
        if self._wake is None:
            return
        self._wake.start(self.received)
        while True:
            await self._to_pass_on.wait()
            self._to_pass_on.clear()
            if not self._owns_all():
                for address in await self._addresses():
                    self._wake.pass_on(address)
                    self._observer.hints("passed_on", 1)
            await self._clock.sleep(HINT_GAP_SECONDS)

    def close(self) -> None:
        """Take in no more."""
        if self._wake is not None:
            self._wake.close()

    async def _addresses(self) -> frozenset[str]:
        now = self._clock.now()
        if now - self._asked_at >= OWNER_SECONDS:
            self._asked_at = now
            try:
                self._owners = await self._store.wake_addresses() - {self.address}
            except StoreUnavailable as error:
                self._observer.log("wake_address_unknown", error=str(error))
        return self._owners
