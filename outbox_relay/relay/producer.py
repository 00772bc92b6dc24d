"""`EventProducer`: the long-running relay. Stands by, takes a term, relays, hands back."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from random import Random

from outbox_relay.errors import (
    ConfigError,
    LeaseLost,
    SchemaMismatch,
    ServerChanged,
    StoreUnavailable,
)
from outbox_relay.relay.canary_options import CanaryOptions
from outbox_relay.relay.decide import Backoff, TrustWindow
from outbox_relay.relay.envelope import make_encoder
from outbox_relay.relay.hints import Hints
from outbox_relay.relay.keeper import look_seconds
from outbox_relay.relay.lease import Holding, Lease
from outbox_relay.relay.options import RelayOptions
from outbox_relay.relay.ports import Clock, MessageBroker, Observer, Store, Wake
from outbox_relay.relay.surroundings import Surroundings
from outbox_relay.relay.term import TermRun
from outbox_relay.relay.tracing import Tracing
from outbox_relay.relay.waiting import Cause, Late
from outbox_relay.relay.watching import Silent
from outbox_relay.relay.wire import WireOptions
from outbox_relay.schema import LANES

SCHEMA_RETRY_SECONDS = 5.0
STANDBY_SCHEMA_SECONDS = 10.0
LAST_WORDS_SECONDS = 1.0
"""Kept of the budget of a stop for closing connections."""


class SystemClock:
    """The machine's clock: CLOCK_BOOTTIME where there is one, since it counts suspension."""

    _clock_id = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

    def now(self) -> float:
        """Seconds since the machine started, suspension included."""
        return time.clock_gettime(self._clock_id)

    def wall_us(self) -> int:
        """Microseconds since 1970 UTC."""
        return time.time_ns() // 1000

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        """Wait for *event*, at most *seconds*."""
        try:
            async with asyncio.timeout(seconds):
                return await event.wait()
        except TimeoutError:
            return event.is_set()


class EventProducer:
    """
    Reads the outbox, publishes its events and marks them as produced: at least once, in order per
    key, none lost. One `run` at a time; any number of relays may run beside one another, of which
    `max_active_relays` are active and the others stand by.

    ``await EventProducer(store, broker).run()`` returns after `stop`.
    """

    def __init__(
        self,
        store: Store,
        broker: MessageBroker,
        *,
        options: RelayOptions | None = None,
        wire: WireOptions | None = None,
        publish_deadline_seconds: float = 10.0,
        owner: str | None = None,
        observer: Observer | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
        wake: Wake | None = None,
        canary: CanaryOptions | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._options = options or RelayOptions()
        problems = self._options.problems()
        if self._options.lease_seconds <= publish_deadline_seconds:
            problems.append(
                f"relay.lease_seconds = {self._options.lease_seconds} must be greater than "
                f"publish_deadline_seconds = {publish_deadline_seconds}: a batch of ours "
                "could be under way when another relay takes the lease"
            )
        if problems:
            raise ConfigError(problems)
        self._store = store
        self._broker = broker
        self._wire = wire or WireOptions()
        self._deadline_seconds = publish_deadline_seconds
        self._owner = owner or f"{socket.gethostname()}:{os.getpid()}"
        self._observer = observer or Silent()
        self._clock = clock or SystemClock()
        self._random = random or Random()  # noqa: S311 - jitter, not a secret
        self._stop = asyncio.Event()
        self._stop_by: float | None = None
        self._canary = canary or CanaryOptions()
        self._tracing = tracing
        self._away_us: int | None = None
        self._term: TermRun | None = None
        self._holding: Holding | None = None
        self._schema_due = float("-inf")
        self._hints = Hints(
            wake,
            store,
            clock=self._clock,
            observer=self._observer,
            owns_all=lambda: self._term is not None and len(self._owned) == LANES,
        )

    @property
    def _owned(self) -> frozenset[int]:
        return self._holding.lease.lanes if self._holding is not None else frozenset()

    @property
    def owner(self) -> str:
        """Its name, as the lease rows have it."""
        return self._owner

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    @property
    def active(self) -> bool:
        """Whether this relay holds lanes now."""
        return self._term is not None and bool(self._owned)

    def stop(self) -> None:
        """
        Begin to stop: settle and mark what is under way, hand the lanes back, within stop_seconds.

        Call it on the loop's thread, such as from a signal handler of the loop.
        """
        if self._stop_by is None:
            self._stop_by = self._clock.now() + self._options.stop_seconds
            self._observer.log("stopping", stop_seconds=self._options.stop_seconds)
        self._stop.set()
        if self._term is not None:
            self._term.stop()

    async def run(self, *, until_empty: bool = False) -> None:
        """
        Relay until `stop`; with *until_empty* until nothing that can be published is left.

        Lives through every outage of database and broker, and waits for a table that does not fit.
        """
        work = asyncio.create_task(self._run(until_empty))
        stopped = asyncio.create_task(self._stop.wait())
        hints = asyncio.create_task(self._hints.run())
        try:
            await asyncio.wait([work, stopped], return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                budget = (self._stop_by or 0.0) - self._clock.now() - LAST_WORDS_SECONDS
                await asyncio.wait([work], timeout=max(0.0, budget))
            if work.done():
                work.result()
            else:
                self._observer.log("stop_budget_spent")
        finally:
            stopped.cancel()
            hints.cancel()
            self._hints.close()
            work.cancel()
            await asyncio.wait([work], timeout=LAST_WORDS_SECONDS / 4)
            await self._close()

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(LAST_WORDS_SECONDS / 2):
                await self._broker.close(timeout_seconds=LAST_WORDS_SECONDS / 4)
                if self._holding is not None:
                    # The budget is spent, but nothing of ours is on its way any more.
                    await self._store.release(self._holding.lease)
        except (TimeoutError, StoreUnavailable):
            self._observer.log("close_timed_out")
        await self._store.close()
        self._observer.log("stopped")

    async def _run(self, until_empty: bool) -> None:
        backoff = Backoff(initial_seconds=0.2, max_seconds=5.0)
        failures = 0
        while not self._stop.is_set():
            self._observer.cycle()
            try:
                if self._clock.now() >= self._schema_due:
                    await self._check_schema()
                done = await self._one_term(until_empty)
            except SchemaMismatch as error:
                self._schema_due = float("-inf")
                self._observer.schema(str(error))
                self._observer.log("schema_mismatch", error=str(error))
                await self._clock.wait(self._stop, SCHEMA_RETRY_SECONDS)
            except (LeaseLost, ServerChanged) as error:
                self._observer.log("term_over", error=str(error))
                # The tables are looked at in the next term: before it the store still knows the old
                # server, would refuse the new one for ever, and no term would ever begin.
                self._schema_due = self._clock.now() + STANDBY_SCHEMA_SECONDS
                await self._clock.wait(self._stop, self._random.random())
            except StoreUnavailable as error:
                failures += 1
                self._observer.log("store_unavailable", error=str(error))
                if self._away_us is None:
                    self._away_us = self._clock.wall_us()
                self._observer.waiting({Cause.DATABASE: Late(0, self._away_us)})
                delay = backoff.delay_seconds(failures, jitter=self._random.random())
                await self._clock.wait(self._stop, delay)
            else:
                failures = 0
                if done and until_empty:
                    return

    async def _check_schema(self) -> None:
        await self._store.check_schema()
        self._observer.schema(None)
        self._schema_due = self._clock.now() + STANDBY_SCHEMA_SECONDS

    async def _one_term(self, until_empty: bool) -> bool:
        """Take a term if the lanes are free, and relay. Whether there is nothing left to do."""
        if self._holding is not None:
            # The last term broke off: nobody, we neither, should wait for the end of its lease.
            broken, self._holding = self._holding, None
            await self._store.release(broken.lease)
        started = self._clock.now()
        lease = await self._store.acquire(
            self._owner,
            wake_address=self._hints.address,
            lease_seconds=self._options.lease_seconds,
            slots=self._options.max_active_relays,
        )
        self._observer.timed("lease", self._clock.now() - started)
        if self._away_us is not None:
            self._away_us = None
            self._observer.waiting({})
        if lease is None:
            return await self._stand_by(until_empty)
        self._observer.log(
            "lease_acquired",
            term=lease.term.number,
            lanes=len(lease.lanes),
            crash_count=lease.crash_count,
        )
        self._observer.lanes(len(lease.lanes), self._options.lease_seconds)
        holding = self._holding = Holding(lease)
        # While it stood by, it asked seldom; and a term that is over may have met other tables.
        self._schema_due = float("-inf")
        try:
            await self._fit_or_release(lease)
            await self._relay(holding, started, until_empty)
            self._holding = None
        except LeaseLost:
            self._holding = None
            # Perhaps a part only: the rest is free at once, also for ourselves.
            await self._store.release(holding.lease)
            raise
        except ServerChanged:
            self._holding = None
            raise
        finally:
            self._term = None
            self._observer.lanes(0, 0.0)
        return True

    async def _fit_or_release(self, lease: Lease) -> None:
        try:
            await self._check_schema()
        except SchemaMismatch:
            await self._store.release(lease)
            self._holding = None
            raise
        self._schema_due = float("-inf")

    async def _relay(self, holding: Holding, started: float, until_empty: bool) -> None:
        self._term = TermRun(
            Surroundings(
                store=self._store,
                broker=self._broker,
                clock=self._clock,
                observer=self._observer,
                random=self._random,
                options=self._options,
                holding=holding,
                hinted=self._hints.arrived,
                canary=self._canary,
                tracing=self._tracing,
            ),
            encoder=make_encoder(self._wire, max_payload_bytes=self._options.max_payload_bytes),
            trust=TrustWindow(
                lease_seconds=self._options.lease_seconds,
                publish_deadline_seconds=self._deadline_seconds,
                renewed_at=started,
            ),
        )
        if self._stop.is_set():
            self._term.stop()
        await self._term.run(until_empty=until_empty)

    async def _stand_by(self, until_empty: bool) -> bool:
        if until_empty and (await self._store.sample(cap=1)).rows == 0:
            return True
        pause = look_seconds(self._options.standby_seconds, self._random.random())
        await self._clock.wait(self._stop, pause)
        return False
