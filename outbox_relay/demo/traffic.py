"""
The shop's process: customers who give commands at a steady rate. One command in ten fails.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import uuid
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from outbox_relay.demo import shop
from outbox_relay.demo.processes import Child
from outbox_relay.demo.shop import CancelOrder, Customer, PaymentRefused, PlaceOrder

CUSTOMERS: Final = 40
_WORKERS: Final = 3
_FAILING: Final = 0.1
_CANCELLING: Final = 0.15
_REPORT_SECONDS: Final = 0.2
_chance: Final = random.Random()  # noqa: S311 - it chooses customers, not secrets
_RUN: Final = (
    "import sys; from outbox_relay.demo.traffic import main; main(sys.argv[1], float(sys.argv[2]))"
)


class ShopProcess(Child):
    """The shop in a process of its own; `committed` and `rolled_back` are what it last reported."""

    def __init__(self, database: Path, *, orders_per_second: float, log: Path) -> None:
        super().__init__("shop", "-c", _RUN, str(database), str(orders_per_second), log=log)
        self.committed = 0
        self.rolled_back = 0

    async def follow(self) -> None:
        """Take in its reports until it has closed; then the counts are final."""
        while line := await self.read_line():
            counts = json.loads(line)
            self.committed, self.rolled_back = counts["committed"], counts["rolled_back"]


def create_engine(database: Path) -> AsyncEngine:
    """An engine for the shop's database, patient while another process writes."""
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{database.as_posix()}", connect_args={"timeout": 30}
    )

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _: object) -> None:
        # With a write-ahead log a commit needs no fsync to survive a kill; only a power cut could
        # undo it, and the demo shows none. A slow disk then shows the relay, not itself.
        connection.execute("PRAGMA synchronous=NORMAL")

    return engine


async def create_shop_tables(engine: AsyncEngine) -> None:
    """The shop's tables and its customers."""
    async with engine.begin() as connection:
        await connection.run_sync(shop.Base.metadata.create_all)
    async with async_sessionmaker(engine).begin() as session:
        session.add_all(Customer(id=number) for number in range(1, CUSTOMERS + 1))


class Traffic:
    """Gives commands to the handlers and counts what became of them."""

    def __init__(self, engine: AsyncEngine, *, orders_per_second: float) -> None:
        self._sessions = async_sessionmaker(engine, expire_on_commit=False)
        self._pause_seconds = _WORKERS / orders_per_second
        self.closed = asyncio.Event()
        self.committed = 0
        self.rolled_back = 0

    async def run(self) -> None:
        """Give commands until closed; finish those that are open."""
        async with asyncio.TaskGroup() as group:
            for first in range(1, _WORKERS + 1):
                group.create_task(self._serve(range(first, CUSTOMERS + 1, _WORKERS)))
            group.create_task(self._report())
        self._print_counts()

    async def _serve(self, customers: range) -> None:
        open_orders: list[tuple[int, uuid.UUID]] = []
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self.closed.is_set():
            if open_orders and _chance.random() < _CANCELLING:
                await self._cancel(open_orders)
            else:
                await self._place(_chance.choice(customers), open_orders)
            # A slow disk slows the shop down; it does not make it rush for long afterwards.
            due = max(due + self._pause_seconds, loop.time() - 1)
            await asyncio.sleep(max(due - loop.time(), 0))

    async def _place(self, customer_id: int, open_orders: list[tuple[int, uuid.UUID]]) -> None:
        command = PlaceOrder(customer_id, Decimal(_chance.randint(100, 99_999)) / 100)
        order_id = await self._transact(shop.place_order, command)
        if order_id is not None:
            open_orders.append((customer_id, order_id))

    async def _cancel(self, open_orders: list[tuple[int, uuid.UUID]]) -> None:
        command = CancelOrder(*open_orders.pop(_chance.randrange(len(open_orders))))
        await self._transact(shop.cancel_order, command)

    async def _transact(
        self, handler: Callable[[AsyncSession, Any], Awaitable[Any]], command: object
    ) -> Any:
        try:
            async with self._sessions.begin() as session:
                result = await handler(session, command)
                if _chance.random() < _FAILING:
                    raise PaymentRefused
        except PaymentRefused:
            self.rolled_back += 1
            return None
        self.committed += 1
        return result

    async def _report(self) -> None:
        while not self.closed.is_set():
            self._print_counts()
            await asyncio.sleep(_REPORT_SECONDS)

    def _print_counts(self) -> None:
        counts = {"committed": self.committed, "rolled_back": self.rolled_back}
        sys.stdout.write(json.dumps(counts) + "\n")
        sys.stdout.flush()


def main(database: str, orders_per_second: float) -> None:
    """Take orders until SIGTERM."""
    asyncio.run(_take_orders(Path(database), orders_per_second))


async def _take_orders(database: Path, orders_per_second: float) -> None:
    engine = create_engine(database)
    traffic = Traffic(engine, orders_per_second=orders_per_second)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, traffic.closed.set)
    await traffic.run()
    await engine.dispose()
