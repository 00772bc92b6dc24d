"""`outbox-relay run`: the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from outbox_relay._version import __version__
from outbox_relay.cli.exits import Exit, errors_as_exits, fail, require, require_driver
from outbox_relay.cli.options import ConfigOption, SetOption, load
from outbox_relay.config import Config
from outbox_relay.errors import ConfigError
from outbox_relay.native import native

if TYPE_CHECKING:
    from outbox_relay.admin.server import Dashboard
    from outbox_relay.http.server import HttpServer
    from outbox_relay.wiring import Relay

SPANS_SECONDS: Final = 1.0
"""How long the last spans may take to their collector."""


def run(
    config: ConfigOption = None,
    until_empty: Annotated[
        bool, typer.Option("--until-empty", help="Publish what is there, then exit with 0.")
    ] = False,
    flags: SetOption = None,
) -> None:
    """
    Relay events until SIGTERM or SIGINT.

    Stops within relay.stop_seconds + 1 s and exits with 0; a second signal leaves at once. Waits
    for a database or a broker that is away, and for tables that do not fit yet.
    """
    from outbox_relay.cli.stopping import StopSignals

    signals = StopSignals()
    signals.start()
    with errors_as_exits():
        settings = load(config, flags)
        require_driver(settings.database.url)
        if settings.tracing.enabled:
            require("opentelemetry", extra="otel", purpose="tracing.enabled")
        if settings.admin.enabled:
            require("jinja2", extra="admin", purpose="admin.enabled")
    from outbox_relay.wiring import run_loop

    run_loop(_serve(settings, signals, until_empty=until_empty))


async def _serve(settings: Config, signals: Any, *, until_empty: bool) -> NoReturn:
    from outbox_relay.cli.stopping import leave
    from outbox_relay.liveness import watch_loop
    from outbox_relay.logs import configure_logs, get_logger
    from outbox_relay.systemd import Systemd
    from outbox_relay.wiring import build, tidy

    configure_logs(settings.log)
    logger = get_logger()
    try:
        relay = build(settings)
    except ConfigError as error:
        fail(Exit.FAILED, *error.problems)
    loop = asyncio.get_running_loop()
    systemd = Systemd(os.environ, pid=os.getpid())

    def stop() -> None:
        systemd.tell("STOPPING=1")
        loop.call_soon_threadsafe(relay.producer.stop)

    signals.on_stop(stop, stop_seconds=settings.relay.stop_seconds)
    loops = "python" if native is None else "c"
    logger.info("started", version=__version__, until_empty=until_empty, hot_loops=loops)
    _warn_of_spans(settings, logger)
    listeners = _listen(relay, logger)
    # As on /readyz: whatever the database and the broker are doing, the relay waits for them.
    systemd.tell("READY=1")
    beside = [
        asyncio.create_task(watch_loop(relay.observer.metrics)),
        asyncio.create_task(systemd.keep_telling(relay.observer)),
        asyncio.create_task(tidy()),
    ]
    code = Exit.OK
    try:
        await relay.producer.run(until_empty=until_empty)
    except Exception:
        logger.exception("relay_failed")
        code = Exit.FAILED
    systemd.tell("STOPPING=1")
    for task in beside:
        task.cancel()
    for listener in reversed(listeners):
        await listener.close()
    await _flush_spans(settings)
    leave(code)


def _warn_of_spans(settings: Config, logger: Any) -> None:
    """Say it where tracing is asked for and nobody takes the spans."""
    if settings.tracing.enabled:
        from outbox_relay.tracing import has_provider

        if not has_provider():
            logger.warning("tracing_without_provider", mend="start it by opentelemetry-instrument")


async def _flush_spans(settings: Config) -> None:
    """What ended just now goes to the collector too, if that answers."""
    if settings.tracing.enabled:
        from outbox_relay.tracing import flush

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SPANS_SECONDS):
                await asyncio.to_thread(flush, SPANS_SECONDS)


def _listen(relay: Relay, logger: Any) -> list[HttpServer | Dashboard]:
    """Serve metrics and dashboard, and say where."""
    listeners: list[HttpServer | Dashboard] = []
    for name, listener in (("http", relay.http), ("admin", relay.admin)):
        if listener is not None:
            listener.start()
            listeners.append(listener)
            host, port = listener.address
            logger.info(f"{name}_listening", host=host, port=port)
    if relay.wake is not None:
        listening, published = relay.wake.addresses, relay.wake.address
        logger.info("wake_listening", addresses=listening, published=published)
    return listeners
