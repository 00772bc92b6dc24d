"""
A relay under measurement: what `outbox-relay run` runs, with the settings given as JSON.

It says "ready" when all is loaded, begins at the first word, and says what it used when the table is
empty (`until_empty`) or when it was told to stop.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from benchmarks.child import Stopwatch, say, wait_for_word
from outbox_relay.config import Config, load_config
from outbox_relay.liveness import watch_loop
from outbox_relay.logs import configure_logs
from outbox_relay.wiring import build, run_loop


async def relay(config: Config, *, until_empty: bool) -> dict[str, float]:
    """Run until empty or told to stop; what it used."""
    made = build(config)
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, made.producer.stop)
    used = Stopwatch()
    if made.http is not None:
        made.http.start()
    watching = asyncio.create_task(watch_loop(made.observer.metrics))
    await made.producer.run(until_empty=until_empty)
    found = used.read()
    loop.remove_reader(sys.stdin)
    watching.cancel()
    if made.http is not None:
        await made.http.close()
    return found


def profiled(work: Any, path: str) -> Any:
    """*work*'s result, with a profile of it written to *path*."""
    import cProfile

    with cProfile.Profile() as profiler:
        found = run_loop(work)
    profiler.dump_stats(path)
    return found


def main() -> None:
    """See the module."""
    argument = json.loads(sys.argv[1])
    config = load_config(None, {}, argument["settings"])
    configure_logs(config.log)
    say(ready=True)
    if wait_for_word():
        work = relay(config, until_empty=argument["until_empty"])
        path = os.environ.get("PROFILE")
        say(**(profiled(work, path) if path else run_loop(work)))


if __name__ == "__main__":
    main()
