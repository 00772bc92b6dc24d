"""
The stage: the parts of the demo in one folder, how they start and how they end.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from pathlib import Path
from typing import Final

from outbox_relay.demo.account import Account, balance
from outbox_relay.demo.billing import Billing
from outbox_relay.demo.books import OutboxCounts, committed_events, count_outbox
from outbox_relay.demo.broker import EmbeddedBroker
from outbox_relay.demo.consumer import CountingConsumer
from outbox_relay.demo.processes import Child, ChildEnded
from outbox_relay.demo.progress import PartState, Progress
from outbox_relay.demo.relay import migrate, relay, write_config
from outbox_relay.demo.screen import Screen
from outbox_relay.demo.shop import TOPIC
from outbox_relay.demo.traffic import ShopProcess, create_engine, create_shop_tables

ORDERS_PER_SECOND: Final = 150.0
_TAKEOVER_SECONDS: Final = 20.0
_SHOW_SECONDS: Final = 0.25
_BACKLOG_SAMPLES: Final = 44
_RATE_SAMPLES: Final = 9


class Stage:
    """Shop, database, relay, broker and consumer, and what is known of them."""

    def __init__(self, folder: Path, *, seconds: float, screen: Screen) -> None:
        self.progress = Progress(total_seconds=seconds)
        self._screen = screen
        self._database = folder / "shop.db"
        self._config = folder / "config.toml"
        self._migration_log = folder / "migrate.log"
        self._started_at: float | None = None
        self._next_sample_at = 0.0
        self._commits: deque[tuple[float, int]] = deque(maxlen=_RATE_SAMPLES)
        self.broker = EmbeddedBroker(TOPIC, log=folder / "broker.log")
        self.relay = relay(self._config, log=folder / "relay.log")
        self.shop = ShopProcess(
            self._database, orders_per_second=ORDERS_PER_SECOND, log=folder / "shop.log"
        )
        self.billing = Billing(folder / "billing.db")
        self.consumer = CountingConsumer(TOPIC, self.billing)
        self._engine = create_engine(self._database)
        for part in ("shop", "database", "relay", "broker", "consumer"):
            self.progress.parts[part] = "waiting"

    def set(self, part: str, state: PartState, note: str = "") -> None:
        """From now on *part* is in *state*; *note* says so in words."""
        self.progress.parts[part] = state
        if note:
            self.progress.note(note)

    async def open(self) -> None:
        """Start everything; time begins to count when the shop takes orders."""
        self.progress.note("starting the broker, the relay and the shop")
        self._screen.show(self.progress)
        await self.broker.start()
        self.set("broker", "running")
        write_config(
            self._config, database=self._database, bootstrap_servers=self.broker.bootstrap_servers
        )
        await migrate(self._config, log=self._migration_log)
        await create_shop_tables(self._engine)
        self.set("database", "running")
        await self.billing.open()
        await self.consumer.start(self.broker.bootstrap_servers)
        self.set("consumer", "running")
        await self.relay.start()
        self.set("relay", "running")
        await self.shop.start()
        self._started_at = time.monotonic()
        self.set("shop", "running", "the shop takes orders, the relay publishes their events")

    async def until(self, share: float) -> None:
        """Wait for this *share* of the demo's time."""
        await asyncio.sleep(share * self.progress.total_seconds - self._elapsed())

    async def watch(self) -> None:
        """Keep the screen up to date. Raises ChildEnded when a process dies of itself."""
        while True:
            for child in self._children():
                child.check()
            await self.refresh()
            await asyncio.sleep(_SHOW_SECONDS)

    async def refresh(self) -> OutboxCounts:
        """Bring the numbers up to date and show them."""
        counts = await count_outbox(self._engine)
        progress = self.progress
        progress.elapsed_seconds = self._elapsed()
        progress.committed = self.shop.committed
        progress.rolled_back = self.shop.rolled_back
        progress.backlog, progress.acked = counts.backlog, counts.produced
        progress.delivered = len(self.consumer.event_ids)
        progress.duplicates = self.consumer.duplicates
        progress.latencies = tuple(self.consumer.latencies)
        self._commits.append((progress.elapsed_seconds, progress.committed))
        progress.commits_per_second = _slope(self._commits)
        if progress.elapsed_seconds >= self._next_sample_at:
            self._next_sample_at += progress.total_seconds / _BACKLOG_SAMPLES
            progress.backlogs.append(counts.backlog)
        self._screen.show(progress)
        return counts

    async def takeover(self) -> None:
        """Wait until the relay that runs now has produced something. Raises ChildEnded if never."""
        produced_before = (await count_outbox(self._engine)).produced
        deadline = time.monotonic() + _TAKEOVER_SECONDS
        while time.monotonic() < deadline:
            if (await count_outbox(self._engine)).produced > produced_before:
                return
            await asyncio.sleep(_SHOW_SECONDS)
        raise ChildEnded(f"the new relay produced nothing; its log:\n{self.relay.last_words()}")

    async def drain(self, *, timeout_seconds: float) -> None:
        """Wait until the relay has produced everything, but not for ever."""
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            if (await self.refresh()).backlog == 0:
                return
            await asyncio.sleep(_SHOW_SECONDS)

    async def account(self) -> Account:
        """The account, once the shop is closed and the consumer has read everything."""
        return balance(
            await committed_events(self._engine),
            self.consumer.delivered,
            rolled_back=self.shop.rolled_back,
            booked=await self.billing.bookings(),
            dropped=self.billing.dropped,
        )

    async def close(self) -> None:
        """End whatever still runs."""
        # The consumer first: without a broker to say goodbye to, it takes its time.
        await self.consumer.stop()
        for child in self._children():
            await child.kill()
        await self.billing.close()
        await self._engine.dispose()

    def _children(self) -> tuple[Child, ...]:
        return (self.shop, self.relay, self.broker)

    def _elapsed(self) -> float:
        return 0.0 if self._started_at is None else time.monotonic() - self._started_at


def _slope(points: deque[tuple[float, int]]) -> float:
    (first_at, first), (last_at, last) = points[0], points[-1]
    return (last - first) / (last_at - first_at) if last_at > first_at else 0.0
