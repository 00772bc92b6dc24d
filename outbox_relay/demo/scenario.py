"""
The scenario: what happens when, and how it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from outbox_relay.demo.account import Account
from outbox_relay.demo.processes import ChildEnded
from outbox_relay.demo.screen import LiveScreen, PlainScreen, Screen, account_table, verdict
from outbox_relay.demo.stage import Stage

# Shares of the demo's time.
_BROKER_AWAY: Final = 0.24
_BROKER_BACK: Final = 0.40
_RELAY_KILLED: Final = 0.56
_RELAY_REPLACED: Final = 0.60
_SHOP_CLOSES: Final = 0.92

_DRAIN_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 8.0
_CONSUMER_SECONDS: Final = 20.0


def run_demo(
    *,
    seconds: float = 25.0,
    plain: bool = False,
    keep: bool = False,
    console: Console | None = None,
) -> int:
    """
    Run the demo for about *seconds*. 0 if the account balances, 1 if not, 130 after Ctrl-C.

    Leaves no process behind, and no file unless it failed or *keep* is set. *plain* prints lines
    instead of a live screen; so does a console that is not a terminal.
    """
    console = console or Console()
    screen = PlainScreen(console) if plain or not console.is_terminal else LiveScreen(console)
    folder = Path(tempfile.mkdtemp(prefix="outbox-relay-demo-"))
    code = 130
    try:
        with _library_logs_in(folder / "consumer.log"):
            code = asyncio.run(_main(folder, seconds=seconds, screen=screen, console=console))
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("interrupted")
    finally:
        if keep or code == 1:
            console.print(f"database, configuration and logs are in {folder}", soft_wrap=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return code


async def _main(folder: Path, *, seconds: float, screen: Screen, console: Console) -> int:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    stage = Stage(folder, seconds=seconds, screen=screen)
    try:
        with screen:
            account = await _perform(stage)
    except (ChildEnded, TimeoutError) as error:
        console.print(Text(f"The demo cannot go on: {error}"), style="red", soft_wrap=True)
        return 1
    finally:
        await stage.close()
    console.print()
    console.print(account_table(account, ascii_only=console.options.ascii_only))
    console.print(verdict(account))
    return 0 if account.balanced else 1


async def _perform(stage: Stage) -> Account:
    """The whole play, with its background. Raises ChildEnded if a process dies of itself."""
    await stage.open()
    watching = asyncio.create_task(stage.watch())
    playing = asyncio.create_task(_play(stage))
    try:
        await asyncio.wait((watching, playing), return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            watching.result()  # it ends only by raising
        return await playing
    finally:
        await _cancel(watching, playing)


async def _play(stage: Stage) -> Account:
    reading = asyncio.create_task(stage.consumer.read())
    following = asyncio.create_task(stage.shop.follow())
    try:
        await _trouble(stage)
        await _close_the_shop(stage, following)
        await _finish(stage, reading)
        return await stage.account()
    finally:
        await _cancel(reading, following)


async def _trouble(stage: Stage) -> None:
    await stage.until(_BROKER_AWAY)
    stage.broker.freeze()
    stage.set("broker", "frozen", "the broker is taken away (SIGSTOP); the shop does not notice")
    await stage.until(_BROKER_BACK)
    stage.broker.thaw()
    stage.set("broker", "running", "the broker is back (SIGCONT); the relay catches up")
    await stage.until(_RELAY_KILLED)
    await stage.relay.kill()
    stage.set("relay", "killed", "the relay is killed (kill -9)")
    await stage.until(_RELAY_REPLACED)
    await stage.relay.start()
    stage.set("relay", "running", "a new relay waits for the dead one's lease to end")
    await stage.takeover()
    stage.progress.note("the new relay has taken over")


async def _close_the_shop(stage: Stage, following: asyncio.Task[None]) -> None:
    await stage.until(_SHOP_CLOSES)
    code = await stage.shop.terminate(timeout_seconds=_STOP_SECONDS)
    if code != 0:
        raise ChildEnded(f"the shop did not close as asked; its log:\n{stage.shop.last_words()}")
    await following
    stage.set("shop", "stopped", "the shop closes; the relay finishes the backlog")


async def _finish(stage: Stage, reading: asyncio.Task[None]) -> None:
    await stage.drain(timeout_seconds=_DRAIN_SECONDS)
    code = await stage.relay.terminate(timeout_seconds=_STOP_SECONDS)
    if code != 0:
        raise ChildEnded(
            f"the relay did not stop as asked (exit code {code}); "
            f"its log:\n{stage.relay.last_words()}"
        )
    stage.set("relay", "stopped", "the relay stops (SIGTERM); the consumer reads to the end")
    stage.consumer.finish()
    await asyncio.wait_for(reading, _CONSUMER_SECONDS)
    stage.set("consumer", "stopped", "everything is read; the account follows")
    stage.progress.finished = True
    await stage.refresh()


async def _cancel(*tasks: asyncio.Task[object]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def _library_logs_in(path: Path) -> Iterator[None]:
    """Send the consumer's complaints about a missing broker to *path*, not across the screen."""
    logger = logging.getLogger("aiokafka")
    handler = logging.FileHandler(path, delay=True)
    propagate = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
        handler.close()
