"""
One connection to RabbitMQ at a time: logged in with the secrets of this moment, given up after a failure.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import AMQPError, ChannelInvalidStateError

from outbox_relay.brokers.amqp_errors import detail_of
from outbox_relay.brokers.options import AmqpOptions
from outbox_relay.credentials import read_secret, tls_context
from outbox_relay.errors import BrokerUnavailable, CredentialsError
from outbox_relay.relay.ports import Observer

HEARTBEAT_SECONDS = 10
CONNECTION_ERRORS = (AMQPError, RuntimeError, OSError, EOFError, TimeoutError)
"""What aio-pika raises on a connection or channel that is gone: RuntimeError where it was closed before."""


class AmqpClient:
    """The connection that a broker publishes on."""

    def __init__(self, options: AmqpOptions, observer: Observer) -> None:
        self._options = options
        self._observer = observer
        self._connection: AbstractConnection | None = None
        self._starting: asyncio.Task[AbstractConnection] | None = None
        self._later: set[asyncio.Task[None]] = set()

    @property
    def server(self) -> str:
        """Where it is, for people."""
        parts = urlsplit(self._options.url)
        return f"amqp at {parts.hostname}:{parts.port or (5671 if self._is_tls else 5672)}"

    @property
    def _is_tls(self) -> bool:
        return self._options.url.startswith("amqps:")

    async def connected(self) -> AbstractConnection:
        """
        The connection. All who need one wait for the same log-in.

        Raises BrokerUnavailable, or ChannelInvalidStateError where that was ended.
        """
        if self._connection is not None:
            if lives(self._connection):
                return self._connection
            self.give_up("ended")
        if self._starting is None:
            self._starting = asyncio.create_task(self._connect())
            self._starting.add_done_callback(self._start_ended)
        with cancelled_by_itself():
            return await asyncio.shield(self._starting)

    async def _connect(self) -> AbstractConnection:
        try:
            async with asyncio.timeout(self._options.request_timeout_seconds):
                connection = await aio_pika.connect(
                    self._url(),
                    ssl_context=self._tls(),
                    client_properties={"connection_name": "outbox-relay"},
                    heartbeat=HEARTBEAT_SECONDS,
                )
        except CredentialsError as error:
            raise BrokerUnavailable(str(error)) from error
        except (*CONNECTION_ERRORS, ValueError) as error:
            raise BrokerUnavailable(
                f"{self.server}: {detail_of(error)}: start it, or correct amqp.url"
            ) from error
        self._connection = connection
        return connection

    def _url(self) -> str:
        """With the password of this moment."""
        parts = urlsplit(self._options.url)
        if not self._options.password_file:
            return self._options.url
        password = read_secret("amqp.password_file", self._options.password_file)
        user, _, host = parts.netloc.rpartition("@")
        netloc = f"{user.partition(':')[0]}:{quote(password, safe='')}@{host}"
        return parts._replace(netloc=netloc).geturl()

    def _tls(self) -> Any:
        options = self._options
        if not self._is_tls:
            return None
        return tls_context(
            "amqp",
            ca_file=options.ssl_ca_file,
            cert_file=options.ssl_cert_file,
            key_file=options.ssl_key_file,
            key_password_file=options.ssl_key_password_file,
        )

    def _start_ended(self, task: asyncio.Task[AbstractConnection]) -> None:
        self._starting = None
        if not task.cancelled() and task.exception() is not None:
            self._observer.log("broker_unavailable", error=str(task.exception()))

    def give_up(self, reason: str) -> None:
        """Never use the connection again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._observer.log("producer_rebuilt", reason=reason)
            self._spawn(closed(connection, 1.0))

    def retire(self, channel: AbstractChannel) -> None:
        """Close a channel, beside everything else."""
        self._spawn(closed(channel, self._options.request_timeout_seconds))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def close(self, timeout_seconds: float) -> None:
        """Let go within the time given."""
        connection, self._connection = self._connection, None
        if self._starting is not None:
            self._starting.cancel()
        if connection is not None:
            await closed(connection, timeout_seconds)
        for task in self._later:
            task.cancel()
        if waiting := [*filter(None, [self._starting]), *self._later]:
            await asyncio.wait(waiting, timeout=timeout_seconds)


@contextlib.contextmanager
def cancelled_by_itself() -> Iterator[None]:
    """
    Raise ChannelInvalidStateError for what aiormq cancels where a connection is given up, here or by its
    heartbeat. As a CancelledError it would end the task that publishes, without a word.
    """
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ChannelInvalidStateError("the channel closed") from None


def lives(connection: AbstractConnection) -> bool:
    """Whether it may be used. `is_closed` says only whether we closed it."""
    transport = connection.transport
    return transport is not None and not transport.connection.is_closed


def is_blocked(connection: AbstractConnection) -> bool:
    """Whether the server said that it takes nothing in now, for want of memory or disk."""
    transport = connection.transport
    if transport is None:
        return False
    waiting = transport.ready()
    try:
        waiting.send(None)  # type: ignore[attr-defined]
    except StopIteration:
        return False
    finally:
        waiting.close()  # type: ignore[attr-defined]
    return True


async def closed(thing: AbstractChannel | AbstractConnection, seconds: float) -> None:
    """Close it within the time given, whatever comes of it."""
    with contextlib.suppress(*CONNECTION_ERRORS, asyncio.CancelledError, RuntimeError):
        async with asyncio.timeout(seconds):
            await thing.close()
