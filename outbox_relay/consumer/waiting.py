"""
Waits with an end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any


async def bounded(work: Coroutine[Any, Any, object], seconds: float) -> None:
    """Await *work*, but not for longer: a client without its broker may never end."""
    task = asyncio.ensure_future(work)
    await asyncio.wait({task}, timeout=seconds)
    task.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await task


async def wait_until(stopping: asyncio.Event, seconds: float) -> None:
    """Wait for *stopping*, or for so long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stopping.wait()
