"""
Connections to Redis, each with one conversation at a time, given up after a failure.

What redis-py does beside that is switched off: it repeats commands by itself, and would publish a batch
twice where nobody knows of it. A call that was cancelled leaves answers on the wire which the next one
would take for its own, so such a connection is closed and never used again.
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

try:
    from redis.asyncio import ConnectionPool
    from redis.asyncio.connection import AbstractConnection
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError, ResponseError
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise ImportError(
        "publishing to Redis needs the package redis: pip install 'outbox-relay[redis]'"
    ) from error

from outbox_relay.brokers.options import RedisOptions
from outbox_relay.brokers.redis_errors import detail_of, known, unexpected
from outbox_relay.credentials import read_secret, tls_context
from outbox_relay.errors import BrokerUnavailable, CredentialsError
from outbox_relay.relay.known import Meaning
from outbox_relay.relay.ports import Observer

MOST_CONNECTIONS = 8
"""Topics share them by their names, so that one that waits for replicas holds up few others."""

CLIENT_ERRORS = (RedisError, OSError, EOFError, TimeoutError)
Command = Sequence[bytes | str | int]


class RedisClient:
    """The connections of one broker."""

    def __init__(self, options: RedisOptions, observer: Observer) -> None:
        self._options = options
        self._observer = observer
        self._places: dict[int, _Place] = {}

    @property
    def server(self) -> str:
        """Where it is, for people."""
        parts = urlsplit(self._options.url)
        if parts.scheme == "unix":
            return f"redis at {parts.path}"
        return f"redis at {parts.hostname}:{parts.port or 6379}"

    def place(self, topic: str | None) -> _Place:
        """The connection that serves *topic*, always the same one; None for questions of our own."""
        number = -1 if topic is None else zlib.crc32(topic.encode()) % MOST_CONNECTIONS
        if number not in self._places:
            self._places[number] = _Place(self)
        return self._places[number]

    def open(self) -> AbstractConnection:
        """A connection that is not connected yet. Reads all files now; raises CredentialsError."""
        options = self._options
        arguments: dict[str, Any] = {
            "retry": Retry(NoBackoff(), 0),
            "socket_connect_timeout": options.request_timeout_seconds,
            "socket_timeout": None,
            "health_check_interval": 0,
            "protocol": 2,
            "client_name": "outbox-relay",
        }
        if options.password_file:
            arguments["password"] = read_secret("redis.password_file", options.password_file)
        if options.url.startswith("rediss:"):
            arguments |= self._tls()
        pool = ConnectionPool.from_url(options.url, **arguments)
        connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
        return connection

    def _tls(self) -> dict[str, Any]:
        options = self._options
        # Said here what is wrong with the files, and in our words; redis-py reads them once more.
        tls_context(
            "redis",
            ca_file=options.ssl_ca_file,
            cert_file=options.ssl_cert_file,
            key_file=options.ssl_key_file,
            key_password_file=options.ssl_key_password_file,
        )
        found: dict[str, Any] = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
        if options.ssl_ca_file:
            found["ssl_ca_certs"] = options.ssl_ca_file
        if options.ssl_cert_file:
            found["ssl_certfile"] = options.ssl_cert_file
            found["ssl_keyfile"] = options.ssl_key_file or options.ssl_cert_file
        if options.ssl_key_password_file:
            found["ssl_password"] = read_secret(
                "redis.ssl_key_password_file", options.ssl_key_password_file
            )
        return found

    def count(self, error: BaseException) -> None:
        """Count it, if it is in no table."""
        word = unexpected(error)
        if word is not None:
            self._observer.log("unexpected_error", source="redis", error=word)

    def gave_up(self, reason: str) -> None:
        """A connection is used no more."""
        self._observer.log("producer_rebuilt", reason=reason)

    async def answers(self, probe: Command) -> bool:
        """Whether the server takes *probe*, within the time for one answer."""
        try:
            async with asyncio.timeout(self._options.request_timeout_seconds):
                [answer] = await self.place(None).ask([probe])
        except BrokerUnavailable as error:
            self._observer.log("broker_unavailable", error=str(error))
            return False
        except CLIENT_ERRORS:
            return False
        if isinstance(answer, BaseException):
            row = known(answer)
            # A user with few rights, or an old server that does not know the command, has answered.
            return row is None or row.meaning is not Meaning.PAUSE_ALL
        return True

    async def close(self, timeout_seconds: float) -> None:
        """Let go within the time given."""
        places = list(self._places.values())
        self._places.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await asyncio.gather(*(place.close() for place in places))


class _Place:
    """One connection at a time, and who may speak on it."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._lock = asyncio.Lock()
        self._connection: AbstractConnection | None = None
        self.number = 0
        """Which connection it is: what an earlier one wrote, `WAIT` knows nothing of."""

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """
        The answer to each command, in one round trip; an error of the server is returned, not raised.

        Raises BrokerUnavailable if nobody lets us in, and what the connection says when it breaks.
        """
        async with self._lock:
            connection = await self._connected()
            try:
                packed = connection.pack_commands(commands)
                await connection.send_packed_command(packed, check_health=False)
                answers = [await _answer(connection) for _ in commands]
            except BaseException:
                await self._give_up("unknown")
                raise
            rows = [known(a) for a in answers if isinstance(a, BaseException)]
            if any(row is not None and row.meaning is Meaning.PAUSE_ALL for row in rows):
                # Such as a replica: the name may lead to the new master by now.
                await self._give_up("rejected")
            return answers

    async def _connected(self) -> AbstractConnection:
        if self._connection is not None and self._connection.is_connected:
            return self._connection
        self._connection = None
        server = self._client.server
        try:
            connection = self._client.open()
            await connection.connect()  # type: ignore[no-untyped-call]
        except CredentialsError as error:
            raise BrokerUnavailable(str(error)) from error
        except (*CLIENT_ERRORS, ValueError) as error:
            self._client.count(error)
            raise BrokerUnavailable(
                f"{server}: {detail_of(error)}: start it, or correct redis.url"
            ) from error
        self._connection = connection
        self.number += 1
        return connection

    async def _give_up(self, reason: str) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._client.gave_up(reason)
            with contextlib.suppress(*CLIENT_ERRORS):
                await connection.disconnect(nowait=True)

    async def close(self) -> None:
        """Also while somebody waits for an answer on it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*CLIENT_ERRORS):
                await connection.disconnect(nowait=True)


async def _answer(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error
