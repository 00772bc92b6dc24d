"""
A real RabbitMQ server, with a port mapper of Erlang's own for it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aio_pika
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import AMQPError

from tests.services.process import MissingPartError, Service, ServiceFailedError, free_port

USER = PASSWORD = "ob"
HOMES = ("/usr/lib/rabbitmq/bin", "/usr/local/sbin")
ANSWER_SECONDS = 30.0
READY_ANSWER_SECONDS = 3.0

# Its own port mapper: the one of the machine would outlive the session. It is in our process group,
# so it stops, freezes and dies with the server.
SCRIPT = """
epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 &
until epmd -port "$ERL_EPMD_PORT" -names >/dev/null 2>&1; do sleep 0.05; done
exec "$1"
"""

Result = TypeVar("Result")


def find_program(name: str) -> str:
    """The path of a program of RabbitMQ itself: Debian's one in PATH changes to another user."""
    path = next((found for home in HOMES if (found := shutil.which(name, path=home))), None)
    if path is None or shutil.which("epmd") is None:
        raise MissingPartError(
            f"{name} is not installed; run: python -m tests.services.install "
            "(or: apt-get install rabbitmq-server)"
        )
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a queue."""

    exchange: str
    routing_key: str
    body: bytes
    headers: dict[str, Any]
    message_id: str | None
    type: str | None
    content_type: str | None
    delivery_mode: int
    timestamp: int | None
    """Seconds since 1970 UTC."""


class RabbitMQ(Service):
    """One node on 127.0.0.1 with the user ob/ob, who may do everything; its vhost is ``/``."""

    name = "rabbitmq"
    host = "127.0.0.1"

    def __init__(
        self, folder: Path | None = None, *, config: Mapping[str, str] | None = None
    ) -> None:
        find_program("rabbitmq-server")
        super().__init__(folder)
        self.port = free_port()
        self._epmd_port = free_port()
        self._distribution_port = free_port()
        self._config = {**self._settings(), **(config or {})}

    @property
    def url(self) -> str:
        """What a client connects to."""
        return f"amqp://{USER}:{PASSWORD}@{self.host}:{self.port}/"

    def declare_queue(
        self,
        name: str,
        *,
        exchange: str = "",
        routing_key: str | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """A durable queue, bound to *exchange* by *routing_key*: its own name if there is none."""

        async def declare(channel: AbstractChannel) -> None:
            queue = await channel.declare_queue(name, durable=True, arguments=dict(arguments or {}))
            if exchange:
                await queue.bind(exchange, name if routing_key is None else routing_key)

        self._on_a_channel(declare)

    def declare_exchange(self, name: str, kind: str = "topic") -> None:
        """A durable exchange."""
        self._on_a_channel(
            lambda channel: channel.declare_exchange(
                name, aio_pika.ExchangeType(kind), durable=True
            )
        )

    def delete_queue(self, name: str) -> None:
        """Remove the queue with its messages."""
        self._on_a_channel(lambda channel: channel.queue_delete(name))

    def delete_exchange(self, name: str) -> None:
        """Remove the exchange."""
        self._on_a_channel(lambda channel: channel.exchange_delete(name))

    def messages(self, queue: str) -> list[Message]:
        """What is in *queue* now, in order. It stays there."""

        async def look(channel: AbstractChannel) -> list[Message]:
            found = []
            place = await channel.get_queue(queue)
            while (message := await place.get(fail=False)) is not None:
                found.append(_message(message))
            return found

        return self._on_a_channel(look)

    def control(self, *arguments: str) -> str:
        """What ``rabbitmqctl`` prints; it takes a second or two."""
        done = subprocess.run(
            [find_program("rabbitmqctl"), "--node", self._node, "-q", *arguments],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ServiceFailedError(f"rabbitmqctl {arguments}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def write_declarations(self) -> None:
        """
        What a client is told to be declared waits in the buffer of Mnesia's log for up to two seconds. In
        3.10.8 about one of 25 queues was gone after a kill within a tenth of a second.
        """
        self.control("eval", "disk_log:sync(latest_log).")

    def _on_a_channel(self, work: Callable[[AbstractChannel], Awaitable[Result]]) -> Result:
        """Do it on a loop in a thread of its own, so that the caller may have a loop as well."""

        async def connected() -> Result:
            async with asyncio.timeout(ANSWER_SECONDS):
                connection = await aio_pika.connect(self.url)
                async with connection, connection.channel() as channel:
                    return await work(channel)

        return _elsewhere(connected)

    def _settings(self) -> dict[str, str]:
        return {
            "listeners.tcp.1": f"{self.host}:{self.port}",
            "default_user": USER,
            "default_pass": PASSWORD,
            "loopback_users": "none",
            "disk_free_limit.absolute": "1MB",
            "log.console": "true",
            "log.console.level": "info",
            "log.file": "false",
        }

    @property
    def _node(self) -> str:
        return f"ob{self.port}@localhost"

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", ""),
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),  # where the secret of the node is made
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "no-environment"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "no-advanced"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            # Its threads else wait in a loop, which takes the cores from the other services.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def _command(self) -> Sequence[str]:
        environment = [f"{name}={value}" for name, value in self._environment().items()]
        server = find_program("rabbitmq-server")
        return ["env", "-i", *environment, "/bin/sh", "-c", SCRIPT, "rabbitmq", server]

    def _prepare(self) -> None:
        (self.folder / "plugins").write_text("[].\n")
        text = "".join(f"{key} = {value}\n" for key, value in self._config.items())
        (self.folder / "rabbitmq.conf").write_text(text)

    def _is_ready(self) -> bool:
        async def answers() -> bool:
            async with asyncio.timeout(READY_ANSWER_SECONDS):
                connection = await aio_pika.connect(self.url)
                async with connection, connection.channel():
                    return True

        try:
            # aio-pika logs each refused connection, and there are hundreds until the node is up.
            socket.create_connection((self.host, self.port), timeout=1).close()
            return _elsewhere(answers)
        except (OSError, TimeoutError, AMQPError):
            return False


def _elsewhere(work: Callable[[], Awaitable[Result]]) -> Result:
    async def wrapped() -> Result:
        return await work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(wrapped())).result()


def _message(message: aio_pika.abc.AbstractIncomingMessage) -> Message:
    at = message.timestamp
    return Message(
        exchange=message.exchange or "",
        routing_key=message.routing_key or "",
        body=message.body,
        headers=dict(message.headers),
        message_id=message.message_id,
        type=message.type,
        content_type=message.content_type,
        delivery_mode=int(message.delivery_mode or 1),
        timestamp=None if at is None else int(at.timestamp()),
    )
