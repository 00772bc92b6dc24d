"""
Rows that may kill a relay, beside the leases: see `outbox_relay.relay.careful`.

Their columns are there since version 3 of the tables.
"""

from __future__ import annotations

from collections.abc import Collection

from outbox_relay.errors import LeaseLost
from outbox_relay.relay.lease import Past, Suspects, Term
from outbox_relay.schema import LANES
from outbox_relay.store.channel import Channel
from outbox_relay.store.dialect import Dialect


def numbers(lanes: Collection[int]) -> str:
    """*lanes* as SQL text."""
    return ",".join([str(int(lane)) for lane in sorted(lanes)])


def among(lanes: Collection[int]) -> str:
    """For the end of a statement: rows of *lanes* only."""
    return f" AND lane IN ({numbers(lanes)})"


class SqlSuspects:
    """The part `Suspecting` of the port, over the connection of the leases."""

    def __init__(self, dialect: Dialect, table: str, channel: Channel) -> None:
        p = dialect.placeholder
        self._channel = channel
        # Only a row that was looked at in the term that ended, without a release, is to blame; ids of
        # another server, or what an older release left behind, mean nothing. It comes first: MySQL
        # assigns from left to right.
        self._count = (
            f" SET suspect_count = CASE WHEN nonce = '' OR server <> {p} THEN 0 "
            "WHEN suspect_term = term THEN suspect_count + 1 ELSE suspect_count END, "
        )
        self._past = (
            "SELECT lane, crash_count, suspect_first_id, suspect_last_id, suspect_count "
            f"FROM {table} WHERE nonce = {p} AND lane < {LANES}"
        )
        self._suspect = (
            f"UPDATE {table} SET suspect_count = CASE WHEN suspect_first_id = {p} "
            f"AND suspect_last_id = {p} THEN suspect_count ELSE 0 END, "
            f"suspect_first_id = {p}, suspect_last_id = {p}, suspect_term = term WHERE nonce = {p}"
        )
        self._acquit = (
            f"UPDATE {table} SET suspect_first_id = {p}, suspect_last_id = {p}, suspect_term = 0, "
            f"suspect_count = {p} WHERE nonce = {p}"
        )
        self._recovered = self._acquit.replace(" SET ", " SET crash_count = 0, ", 1)
        self._held = f"SELECT lane FROM {table} WHERE nonce = {p}"

    def take(self, take: str) -> str:
        """The statement *take*, which also counts. Its first parameter is then the server."""
        return take.replace(" SET ", self._count, 1)

    async def past(self, term: Term) -> Past:
        """See Suspecting."""
        rows = (await self._channel.execute(self._past, (term.nonce,))).rows
        suspects = [Suspects(lane, first, last, deaths) for lane, _, first, last, deaths in rows]
        return Past(
            crash_count=max([row[1] for row in rows], default=0),
            suspects=tuple([some for some in suspects if some.deaths]),
        )

    async def suspect(
        self, first_id: int, last_id: int, lanes: Collection[int], term: Term
    ) -> None:
        """See Suspecting."""
        parameters = (first_id, last_id, first_id, last_id, term.nonce)
        answer = await self._channel.execute(self._suspect + among(lanes), parameters)
        if answer.matched < len(lanes):
            held = {row[0] for row in (await self._channel.execute(self._held, (term.nonce,))).rows}
            raise LeaseLost(
                f"lanes were taken from term {term.number}",
                frozenset(lanes) - held if held else frozenset(),
            )

    async def acquit(
        self, lanes: Collection[int], term: Term, *, still: Suspects | None = None
    ) -> None:
        """See Suspecting."""
        suspects = (still.first_id, still.last_id, still.deaths) if still else (0, 0, 0)
        await self._channel.execute(self._acquit + among(lanes), (*suspects, term.nonce))

    async def recovered(self, term: Term) -> None:
        """See Suspecting."""
        parameters = (0, 0, 0, term.nonce)
        await self._channel.execute(self._recovered + among(term.lanes), parameters)
