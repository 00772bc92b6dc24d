"""What the store keeps beside the leases of rows that may kill a relay. See `relay.careful`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from outbox_relay.relay.lease import Past, Suspects, Term


class Suspecting(Protocol):
    """A part of the port `Store`. Used only where `Lease.past` is not None."""

    async def past(self, term: Term) -> Past:
        """How the terms before ended, over all lanes of *term*."""

    async def suspect(
        self, first_id: int, last_id: int, lanes: Collection[int], term: Term
    ) -> None:
        """
        Record, durably, that these rows of *lanes* are about to be looked at: if *term* ends without
        a release before `acquit`, the next owner learns of it by `past`.

        Raises LeaseLost if any of *lanes* is not the term's.
        """

    async def acquit(
        self, lanes: Collection[int], term: Term, *, still: Suspects | None = None
    ) -> None:
        """
        The rows of *lanes* that were looked at did no harm, or are given up. *still* are suspects of
        before in the one lane of *lanes*, if there are any.
        """

    async def recovered(self, term: Term) -> None:
        """Begin to count anew: nothing that killed a relay of this term's lanes is left."""
