"""
``python -m tests.documents.d004_killed URL POINTS``: a process of the application is killed at each
of its points, in turn; then one lives. Prints how many points a dispatch passes.

A point is before and after each statement, and before and after the commit.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import sqlalchemy as sa

from tests.documents.d004_machines import CreateRequestCommand, configure_cqrs


class Points:
    """Counts what is passed, and kills this process at one of them."""

    def __init__(self, kill_at: int) -> None:
        self.passed = 0
        self._kill_at = kill_at

    def passing(self, *_: Any) -> None:
        if self.passed == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.passed += 1

    def watch(self, engine: sa.Engine) -> None:
        sa.event.listen(engine, "before_cursor_execute", self.passing)
        sa.event.listen(engine, "after_cursor_execute", self.passing)
        commit = engine.dialect.do_commit

        def do_commit(connection: Any) -> None:
            self.passing()
            commit(connection)
            self.passing()

        engine.dialect.do_commit = do_commit


async def create(url: str, kill_at: int) -> int:
    """Create one request; how many points that had."""
    application = configure_cqrs(url)
    async with application.engine.connect() as connection:
        await connection.execute(sa.select(1))
    points = Points(kill_at)
    points.watch(application.engine.sync_engine)
    command = CreateRequestCommand(template_id="template-1", machine_count=kill_at % 100 + 1)
    await application.command_bus.dispatch(command)
    await application.engine.dispose()
    return points.passed


def main(url: str, points: int) -> None:
    """Each point has a process of its own."""
    for kill_at in range(points):
        child = os.fork()
        if child == 0:
            asyncio.run(create(url, kill_at))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"nothing happened at point {kill_at}"
        assert os.WTERMSIG(status) == signal.SIGKILL
    print(asyncio.run(create(url, -1)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
