"""
What a transaction costs the client. Standard library only, as `child`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable


async def measure_transactions(
    transaction: Callable[[], Awaitable[None]], count: int
) -> dict[str, float]:
    """CPU of this process for one transaction, and the median time of one, in microseconds."""
    times = []
    cpu = time.process_time()
    for _ in range(count):
        started = time.perf_counter()
        await transaction()
        times.append((time.perf_counter() - started) * 1e6)
    used = time.process_time() - cpu
    return {"client_cpu_us": used / count * 1e6, "client_us": statistics.median(times)}
