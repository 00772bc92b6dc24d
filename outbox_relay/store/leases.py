"""
The lease table: who is active, and whose the lanes are.

Rows 0 to 63 are the lanes. Rows 64 to 127 are the slots: an active relay holds one beside its lanes,
under the same nonce, so that one statement renews all that it holds, and so that a relay without a
lane is known to the others. Tables of version 1 and SQLite have no slots: there whoever is active
has every lane.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from outbox_relay.errors import LeaseLost, SchemaMismatch, ServerReadOnly, StoreUnavailable
from outbox_relay.relay.lease import ALL_LANES, Lease, Sharing, Term, choose
from outbox_relay.schema import LANES, Tables
from outbox_relay.store.channel import Channel
from outbox_relay.store.dialect import Dialect
from outbox_relay.store.suspects import SqlSuspects, among, numbers


class LeaseSql:
    """The SQL of one lease table in one dialect."""

    def __init__(self, dialect: Dialect, table: str) -> None:
        d, p = dialect, dialect.placeholder
        self._d = d
        self._table = table
        self.one_lane = False
        """Whether the table has a single lane, which stands for all."""
        self.fence_of_all = self._fence("lane < 64", LANES)
        # Not COUNT(CASE ...): beside COUNT(*), MySQL 8.0.15 counts the NULLs too.
        self.standing = (
            f"SELECT SUM(CASE WHEN lane < {LANES} THEN 1 ELSE 0 END), "
            f"SUM(CASE WHEN lane < {LANES} AND expires_at > {d.now} THEN 1 ELSE 0 END), "
            f"SUM(CASE WHEN lane >= {LANES} THEN 1 ELSE 0 END), "
            f"SUM(CASE WHEN lane >= {LANES} AND lane < {LANES} + {{:d}} "
            f"AND expires_at <= {d.now} THEN 1 ELSE 0 END) FROM {table}"
        )
        self.rows = (
            f"SELECT lane, nonce, CASE WHEN expires_at > {d.now} THEN 1 ELSE 0 END FROM {table}"
        )
        # MySQL assigns from left to right: what looks at the old nonce and server comes first.
        self.take = (
            f"UPDATE {table} SET "
            f"crash_count = CASE WHEN nonce = '' THEN 0 ELSE crash_count + 1 END, "
            f"noted_id = CASE WHEN server = {p} THEN noted_id ELSE 0 END, "
            f"term = term + 1, owner = {p}, nonce = {p}, expires_at = {d.seconds_ahead}, "
            f"wake_address = {p}, server = {p} WHERE expires_at <= {d.now}"
        )
        self.taken = f"SELECT lane, term, noted_id, crash_count FROM {table} WHERE nonce = {p}"
        self.held = (
            f"SELECT lane, CASE WHEN expires_at > {d.now} THEN 1 ELSE 0 END FROM {table} "
            f"WHERE nonce = {p}"
        )
        self.wake = (
            f"SELECT DISTINCT wake_address FROM {table} "
            f"WHERE expires_at > {d.now} AND wake_address <> ''"
        )
        self.renew = (
            f"UPDATE {table} SET expires_at = {d.seconds_ahead}, noted_id = {p} WHERE nonce = {p}"
        )
        self.release = (
            f"UPDATE {table} SET owner = '', nonce = '', wake_address = '', crash_count = 0, "
            f"expires_at = '1970-01-01 00:00:00.000000' WHERE nonce = {p}"
        )

    def fence(self, term: Term) -> str:
        """
        The condition that all lanes of *term* are its own. Takes the nonce.

        Not correlated, so evaluated once a statement. By primary key: InnoDB locks what it reads here,
        and another relay's lanes are none of our business.
        """
        if self.one_lane:
            return self._fence("lane = 0", 1)
        if len(term.lanes) == LANES:
            return self.fence_of_all
        return self._fence(f"lane IN ({numbers(term.lanes)})", len(term.lanes))

    def _fence(self, which: str, count: int) -> str:
        d = self._d
        return (
            f"(SELECT COUNT(*) FROM {self._table} {d.primary_hint} "
            f"WHERE nonce = {d.placeholder} AND expires_at > {d.now} AND {which}) = {count}"
        )


class Leases:
    """What `SqlStore` does with the lease table, on a connection of its own."""

    def __init__(self, dialect: Dialect, table: str, channel: Channel, names: Tables) -> None:
        self.sql = LeaseSql(dialect, table)
        self._dialect = dialect
        self._channel = channel
        self._names = names
        self._as: tuple[str, str, str] = ("", "", "")
        self.suspects = SqlSuspects(dialect, table, channel)
        self.keeps_suspects = False
        """Whether the table has the columns, as far as is known."""

    async def acquire(
        self, owner: str, *, wake_address: str, lease_seconds: float, slots: int
    ) -> Lease | None:
        """See Store."""
        sql, execute = self.sql, self._channel.execute
        counts = (await execute(sql.standing.format(slots))).rows[0]
        lanes, held, slots_there, slots_free = [int(count or 0) for count in counts]
        if not lanes:
            raise SchemaMismatch(
                f"{self._names.lease.name} has no lanes: empty {self._names.version.name} and run "
                "`outbox-relay migrate`, which completes the tables"
            )
        if (slots_there and not slots_free) or (not slots_there and held):
            return None
        sql.one_lane = lanes == 1
        slot: int | None = None
        wanted: Collection[int] = range(lanes)
        if slots_there:
            slot, wanted = self._free((await execute(sql.rows)).rows, slots)
            if slot is None:
                return None
        server = (await execute(self._dialect.identity)).rows[0][0]
        if server is None:
            raise ServerReadOnly("the server only reads: name the primary")
        nonce = secrets.token_hex(16)
        self._as = (server, owner, wake_address)
        await self._take(nonce, [*wanted, *([] if slot is None else [slot])], lease_seconds)
        rows = (await execute(sql.taken, (nonce,))).rows
        if slot is None and not rows:
            return None
        if slot is not None and slot not in {row[0] for row in rows}:
            # Another relay took the place at the same moment.
            await execute(sql.release, (nonce,))
            return None
        lease = self._lease_of(rows, nonce, server, shared=slot is not None)
        if not self.keeps_suspects:
            return lease
        return replace(lease, past=await self.suspects.past(lease.term))

    @staticmethod
    def _free(rows: Sequence[Any], slots: int) -> tuple[int | None, frozenset[int]]:
        """The first free slot, and a fair share of the free lanes for whoever takes it."""
        free = {lane for lane, _, lives in rows if not lives}
        places = [lane for lane in sorted(free) if LANES <= lane < LANES + slots]
        if not places:
            return None, frozenset()
        taken = [lane for lane, _, lives in rows if lives and lane >= LANES]
        sharing = Sharing(
            members=len(taken) + 1,
            rank=sum(lane < places[0] for lane in taken),
            handed_back=frozenset(free & ALL_LANES),
            run_out=frozenset(),
        )
        return places[0], choose(sharing, held=0, run_out_too=False)

    async def _take(self, nonce: str, lanes: Collection[int], lease_seconds: float) -> None:
        server, owner, wake_address = self._as
        parameters: tuple[Any, ...] = (server, owner, nonce, lease_seconds, wake_address, server)
        if self.keeps_suspects:
            sql, parameters = self.suspects.take(self.sql.take), (server, *parameters)
        else:
            sql = self.sql.take
        await self._channel.execute(sql + among(lanes), parameters)

    def _lease_of(self, rows: Sequence[Any], nonce: str, server: str, *, shared: bool) -> Lease:
        ours = [row for row in rows if row[0] < LANES]
        term = max(row[1] for row in rows)
        noted_id, crash_count = (max([row[i] for row in ours], default=0) for i in (2, 3))
        return Lease(
            # SQLite has one lane; its owner holds them all.
            term=Term(
                term,
                nonce,
                ALL_LANES if self.sql.one_lane else frozenset([row[0] for row in ours]),
            ),
            server=server,
            noted_id=noted_id,
            crash_count=crash_count,
            shared=shared,
        )

    async def look(self, lease: Lease) -> Sharing:
        """See Store."""
        rows = (await self._channel.execute(self.sql.rows)).rows
        nonce = lease.term.nonce
        held = {lane for lane, whose, _ in rows if whose == nonce}
        self._require(lease, held)
        living = sorted(lane for lane, _, lives in rows if lives and lane >= LANES)
        own = next(lane for lane, whose, _ in rows if whose == nonce and lane >= LANES)
        free = [(lane, whose) for lane, whose, lives in rows if not lives and lane < LANES]
        return Sharing(
            members=len({*living, own}),
            rank=sum(lane < own for lane in living),
            handed_back=frozenset([lane for lane, whose in free if not whose]),
            run_out=frozenset([lane for lane, whose in free if whose not in ("", nonce)]),
            own=frozenset(held & ALL_LANES),
        )

    def _require(self, lease: Lease, held: set[int]) -> None:
        """Raise LeaseLost unless *held* are all that *lease* names."""
        lost = frozenset() if self.sql.one_lane else lease.lanes - held
        no_slot = lease.shared and not any(lane >= LANES for lane in held)
        if not held or no_slot or lost:
            raise LeaseLost(
                f"another relay took lanes from term {lease.term.number}",
                frozenset() if no_slot else lost,
            )

    async def take(
        self, lease: Lease, lanes: frozenset[int], *, lease_seconds: float
    ) -> frozenset[int]:
        """See Store."""
        await self._take(lease.term.nonce, lanes, lease_seconds)
        rows = (await self._channel.execute(self.sql.held, (lease.term.nonce,))).rows
        return lanes & {lane for lane, _ in rows}

    async def give(self, lease: Lease, lanes: frozenset[int]) -> None:
        """See Store."""
        sql = self.sql.release + among(lanes)
        await self._channel.execute(sql, (lease.term.nonce,))

    async def renew(self, lease: Lease, *, noted_id: int, lease_seconds: float) -> None:
        """See Store."""
        nonce = lease.term.nonce
        parameters = (lease_seconds, noted_id, nonce)
        matched = (await self._channel.execute(self.sql.renew, parameters)).matched
        expected = (1 if self.sql.one_lane else len(lease.lanes)) + lease.shared
        if matched < expected:
            rows = (await self._channel.execute(self.sql.held, (nonce,))).rows
            self._require(lease, {lane for lane, _ in rows})

    async def release(self, lease: Lease) -> None:
        """See Store."""
        await self._channel.execute(self.sql.release, (lease.term.nonce,))

    async def wake_addresses(self) -> frozenset[str]:
        """See Store."""
        return frozenset(row[0] for row in (await self._channel.execute(self.sql.wake)).rows)

    async def check(self, term: Term, channel: Channel) -> None:
        """Raise unless *term* has its lanes: rows that did not match were then settled before."""
        rows = (await channel.execute(self.sql.held, (term.nonce,))).rows
        lost = term.lanes - {lane for lane, _ in rows}
        if not rows or (lost and not self.sql.one_lane):
            raise LeaseLost(
                f"another relay took lanes from term {term.number}", lost if rows else frozenset()
            )
        if not all(lives for _, lives in rows):
            raise StoreUnavailable(
                f"the lease of term {term.number} ran out and is not yet renewed"
            )
