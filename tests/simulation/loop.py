"""
An event loop in virtual time: nothing waits, timers jump, and what is ready runs in an order that
a seed decides.

Each simulated process has a context of its own. Whatever a process schedules carries that context, so
a process can be stopped between any two of its steps: for ever (`kill -9`: not even a `finally` runs)
or for a while (SIGSTOP), while what it asked of database and broker goes on.
"""

from __future__ import annotations

import asyncio
import heapq
import warnings
from asyncio import events
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any


class Process:
    """What can be crashed or frozen between two steps."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.frozen = False
        self.steps = 0
        self.crash_at_step = -1
        self.set_aside: list[asyncio.Handle] = []
        self.context = copy_context()
        self.context.run(CURRENT.set, self)


CURRENT: ContextVar[Process | None] = ContextVar("CURRENT", default=None)


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop of one simulated world. `step` runs one callback."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random.random
        self._now = 0.0
        # A handle of asyncio's, or a call of the world's own.
        self._queue: list[Any] = []
        self._timers: list[tuple[float, int, Any]] = []
        self._count = 0
        self._over = False
        self._begun: list[asyncio.Task[Any]] = []
        self.steps = 0
        self.world = Context()
        self.on_step: Callable[[Any], None] = lambda process: None
        self.failed: BaseException | None = None
        self.set_exception_handler(self._failed)

    def _failed(self, loop: asyncio.AbstractEventLoop, details: dict[str, Any]) -> None:
        error = details.get("exception")
        # When garbage is collected is no part of a scenario.
        unread = "never retrieved" in str(details.get("message"))
        if self.failed is None and error is not None and not unread and not self._over:
            self.failed = error

    # What asyncio asks of a loop

    def time(self) -> float:
        return self._now

    def get_debug(self) -> bool:
        return False

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: object = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, name="task", context=context)
        self._begun.append(task)
        return task

    def call_soon(self, callback, *args, context=None) -> asyncio.Handle:
        handle = events.Handle(callback, args, self, context)
        self._queue.append(handle)
        return handle

    def call_later(self, delay, callback, *args, context=None) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(self, when, callback, *args, context=None) -> asyncio.TimerHandle:
        handle = events.TimerHandle(when, callback, args, self, context)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    # What the world asks of it

    def later(self, delay: float, callback: Callable[..., object], *args: object) -> None:
        """Let the world itself do something after *delay*, whoever asked for it."""
        self._count += 1
        heapq.heappush(self._timers, (self._now + delay, self._count, (callback, args)))

    def step(self) -> bool:
        """Run one callback, moving the time if nothing is ready. False if nothing is left to do."""
        queue = self._queue
        while True:
            if not queue and not self._due():
                return False
            count = len(queue)
            if count > 1:
                at = int(self._random() * count)
                handle, queue[at] = queue[at], queue[-1]
                queue.pop()
            else:
                handle = queue.pop()
            if type(handle) is tuple:
                callback, args = handle
                callback(*args)
                break
            if handle._cancelled:
                continue
            process = handle._context.get(CURRENT)
            if process is None:
                handle._run()
                break
            if process.frozen:
                process.set_aside.append(handle)
            elif process.alive:
                process.steps += 1
                handle._run()
                if process.steps == process.crash_at_step:
                    self.on_step(process)
                break
        self.steps += 1
        return True

    def _due(self) -> bool:
        timers, queue = self._timers, self._queue
        pop = heapq.heappop
        while timers:
            when, _, handle = pop(timers)
            if type(handle) is tuple or not handle._cancelled:
                break
        else:
            return False
        queue.append(handle)
        if when > self._now:
            self._now = when
        while timers and timers[0][0] <= when:
            queue.append(pop(timers)[2])
        return True

    def thaw(self, process: Process) -> None:
        """Let *process* go on: everything that was to wake it meanwhile does so now."""
        process.frozen = False
        self._queue += process.set_aside
        process.set_aside = []

    def kill(self, process: Process) -> None:
        """Stop *process* for ever."""
        process.alive = process.frozen = False
        process.set_aside = []

    def over(self) -> None:
        """Take apart what still waits; nothing that it says any more counts."""
        self._over = True
        with warnings.catch_warnings():
            # What a `finally` begins now has no loop to run on.
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            self._close_tasks()
        self._queue.clear()
        self._timers.clear()
        self._begun.clear()
        self.close()

    def _close_tasks(self) -> None:
        for task in self._begun:
            task._log_destroy_pending = False
            task._log_traceback = False
            coro = task.get_coro()
            for _ in range(6):
                try:
                    coro.close()
                    break
                except BaseException:  # noqa: BLE001 - a `finally` that waits
                    continue
