"""Writers of the simulation: those of one key lock what it stands for before they insert."""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter
from collections.abc import Callable

from outbox_relay.relay.ports import Row
from outbox_relay.schema import LANES, Codec
from tests.simulation.database import Database
from tests.simulation.oracle import Event
from tests.simulation.scenario import RowPlan, Write


class Writers:
    """Everybody who inserts. `writing` counts the transactions under way."""

    def __init__(
        self,
        database: Database,
        *,
        engine: str,
        hit: Counter[str],
        trace: Callable[..., None],
    ) -> None:
        self.database = database
        self.engine = engine
        self.hit = hit
        self.trace = trace
        self.writing = 0
        self._locks: dict[tuple[str, bytes], asyncio.Lock] = {}
        self._serial = asyncio.Lock()
        self._born = 0
        database.make_event = self._event
        if engine == "sqlite":
            database.writer_is_busy = self._serial.locked

    async def write(self, write: Write) -> None:
        """One transaction."""
        self.writing += 1
        keys = sorted({(row.topic, row.key) for row in write.rows if row.key is not None})
        locks = [self._locks.setdefault(key, asyncio.Lock()) for key in keys]
        if self.engine == "sqlite":
            locks = [self._serial]
        for lock in locks:
            await lock.acquire()
        try:
            await self._insert(write)
        finally:
            for lock in locks:
                lock.release()
            self.writing -= 1

    async def _insert(self, write: Write) -> None:
        database = self.database
        self._born += 1
        name = f"w{self._born}"
        incarnation = database.incarnation
        ids: list[int] = []
        database.open_transactions.add(name)
        for plan in write.rows:
            row_id = database.next_id()
            if write.unseen:
                await asyncio.sleep(write.unseen)
                if database.incarnation != incarnation:
                    return
            database.place(self._event(row_id, plan))
            ids.append(row_id)
        self.trace(
            name,
            "inserts",
            [f"{i}:{p.topic}/{p.key!r}:{p.kind}" for i, p in zip(ids, write.rows, strict=True)],
        )
        if write.unseen:
            self.hit["id not yet seen"] += 1
        if write.open_for > 0.1:
            self.hit["long transaction"] += 1
        await asyncio.sleep(write.open_for)
        if database.incarnation != incarnation:
            return  # its server is gone, and it with it
        if write.commits:
            database.commit(ids)
        else:
            self.hit["rollback"] += 1
            database.roll_back(ids)
        database.open_transactions.discard(name)
        self.trace(name, "commits" if write.commits else "rolls back", ids)

    def _event(self, row_id: int, plan: RowPlan) -> Event:
        event_id = (len(self.database.oracle.events) + 1).to_bytes(16, "big")
        aside = plan.kind == "aside"
        payload = None if aside else b'{"n":%d}' % row_id
        if plan.kind in ("invalid", "large", "unreadable"):
            self.hit[f"row {plan.kind}"] += 1
        row = Row(
            id=row_id,
            topic=plan.topic,
            key=plan.key,
            payload=payload,
            payload_bytes=20_000 if aside else len(payload or b""),
            codec=9 if plan.kind == "unreadable" else int(Codec.RAW),
            headers=None,
            event_id=event_id,
            event_name="event",
            content_type="application/json",
            created_us=self.database.clock.wall_us(),
            requeued_us=None,
            lane=zlib.crc32(event_id if plan.key is None else plan.key) % LANES,
        )
        return Event(row, plan.kind)
