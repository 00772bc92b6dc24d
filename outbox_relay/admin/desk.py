"""What the pages ask and do, over one outbox and the relay of this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from outbox_relay.admin.course import Course
from outbox_relay.admin.options import AdminOptions
from outbox_relay.doctor.findings import Findings
from outbox_relay.errors import ConfigError, OutboxRelayError
from outbox_relay.logs import get_logger
from outbox_relay.metrics import MetricsObserver
from outbox_relay.operations import Access, Standing, read_standing
from outbox_relay.operations.headline import Headline, headline
from outbox_relay.relay.dead_letters import DeadLetters

STANDING_SECONDS: Final = 2.0
"""How old a standing may be that is shown: however many look, the database is asked once."""

FINDINGS_SECONDS: Final = 60.0
ANEW_SECONDS: Final = 5.0
"""The doctor looks no sooner again, whoever asks: any page in the same browser may."""

Examine = Callable[[], Awaitable[Findings]]


@dataclass(frozen=True, slots=True)
class Shown:
    """How the outbox stands, or why nobody can say."""

    standing: Standing | None
    trouble: str | None

    @property
    def headline(self) -> Headline:
        """In one line."""
        return headline(self.standing, self.trouble)


class Desk:
    """Asks the database no more often than pages can show, and logs what is done."""

    def __init__(
        self,
        options: AdminOptions,
        *,
        access: Access,
        letters: DeadLetters,
        observer: MetricsObserver,
        owner: str,
        examine: Examine,
        retention_seconds: float | None,
    ) -> None:
        self.options = options
        self.access = access
        self.letters = letters
        self.observer = observer
        self.owner = owner
        self.course = Course(observer)
        self.logger: Any = get_logger()
        self._examine = examine
        self._retention_seconds = retention_seconds
        self._standing = _Kept(self._read_standing, STANDING_SECONDS)
        self._findings = _Kept(self._read_findings, FINDINGS_SECONDS)

    async def shown(self) -> Shown:
        """How the outbox stands."""
        found: Shown = await self._standing.get()
        return found

    def forget(self) -> None:
        """Something was done: what is shown next is read anew."""
        self._standing.forget()

    async def findings(self, *, anew: bool = False) -> Findings | str:
        """What the doctor finds, at most a minute old; or why it cannot look."""
        if anew:
            self._findings.forget(older_than=ANEW_SECONDS)
        found: Findings | str = await self._findings.get()
        return found

    async def close(self) -> None:
        """Let go of the connections."""
        await self.access.close()
        await self.letters.close()

    async def _read_standing(self) -> Shown:
        try:
            standing = await read_standing(self.access, retention_seconds=self._retention_seconds)
        except OutboxRelayError as error:
            return Shown(None, said(error))
        return Shown(standing, None)

    async def _read_findings(self) -> Findings | str:
        try:
            return await self._examine()
        except OutboxRelayError as error:
            return said(error)


def said(error: OutboxRelayError) -> str:
    """What an error says, on one line."""
    return "; ".join(error.problems) if isinstance(error, ConfigError) else str(error)


class _Kept:
    """A value that is read anew once it is too old, by one reader at a time."""

    def __init__(self, read: Callable[[], Awaitable[Any]], seconds: float) -> None:
        self._read = read
        self._seconds = seconds
        self._lock = asyncio.Lock()
        self._at = float("-inf")
        self._value: Any = None

    async def get(self) -> Any:
        async with self._lock:
            if time.monotonic() - self._at > self._seconds:
                self._value = await self._read()
                self._at = time.monotonic()
            return self._value

    def forget(self, *, older_than: float = 0.0) -> None:
        if time.monotonic() - self._at >= older_than:
            self._at = float("-inf")
