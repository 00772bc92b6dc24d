"""
Waits with an end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

CANCEL_SECONDS: Final = 1.0
"""How long what was cancelled may take to end."""


async def bounded(work: Coroutine[Any, Any, object], seconds: float) -> None:
    """Await *work*, but not for longer: a client without its broker may never end."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        # Also where the caller is cancelled: a client that is half closed would outlive it.
        task.cancel()
    await asyncio.wait({task}, timeout=CANCEL_SECONDS)
    if task.done() and not task.cancelled():
        task.exception()  # of no interest any more


async def wait_until(stopping: asyncio.Event, seconds: float) -> None:
    """Wait for *stopping*, or for so long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stopping.wait()
