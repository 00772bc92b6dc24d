"""
All of it on one machine: the store, its relay and the invoices, each a process of its own.

They end with whoever started them, `kill -9` included.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError

from examples.bookstore.events import TOPIC
from examples.bookstore.invoices.__main__ import DEAD_LETTERS
from outbox_relay.demo.broker import EmbeddedBroker
from outbox_relay.demo.processes import Child, ChildEnded

PARTITIONS: Final = 4
_STOP_SECONDS: Final = 15.0
_READY_SECONDS: Final = 60.0

_RELAY: Final = """\
[database]
url = "{database_url}"

[kafka]
bootstrap_servers = "{bootstrap_servers}"
# With the lease below: a relay that was killed is followed within seconds.
publish_deadline_seconds = 4.0
request_timeout_seconds = 2.0

[relay]
lease_seconds = 5.0
wake_address = "unix:{wake}"

[http]
enabled = false

[log]
format = "json"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where everything is. Without `bootstrap_servers` there is an embedded broker."""

    folder: Path
    port: int
    database_url: str
    invoices_url: str
    bootstrap_servers: str = ""
    session_seconds: float = 10.0


class Local:
    """The processes; each may be killed and started again."""

    def __init__(self, place: Place, *, jwt_secret: str | None = None) -> None:
        self.place = place
        self.jwt_secret = jwt_secret or secrets.token_hex(32)
        folder = place.folder
        self._config = folder / "relay.toml"
        self._wake = folder / "wake.sock"
        self._broker = EmbeddedBroker(TOPIC, log=folder / "broker.log")
        config = ("--config", str(self._config))
        self._migration = Child(
            "migration", "-m", "outbox_relay", "migrate", *config, log=folder / "migrate.log"
        )
        self.relay = Child("relay", "-m", "outbox_relay", "run", *config, log=folder / "relay.log")
        self.invoices = Child(
            "invoices", "-m", "examples.bookstore.invoices", log=folder / "invoices.log"
        )
        self.web = Child(
            *("store", "-m", "examples.bookstore.web", "--port", str(place.port)),
            log=folder / "store.log",
        )

    async def start(self) -> None:
        """Start everything; returns when the store answers. Raises ChildEnded."""
        if not self.place.bootstrap_servers:
            await self._broker.start()
            self.place = replace(self.place, bootstrap_servers=self._broker.bootstrap_servers)
        else:
            await create_topics(self.place.bootstrap_servers)
        self._configure()
        await self._migration.start()
        if await self._migration.wait() != 0:
            raise ChildEnded(f"outbox-relay migrate failed:\n{self._migration.last_words()}")
        for child in (self.relay, self.invoices, self.web):
            await child.start()
        await self._until_the_store_answers()

    def check(self) -> None:
        """Raise ChildEnded if a process has ended by itself."""
        for child in (self._broker, self.relay, self.invoices, self.web):
            child.check()

    async def stop(self) -> None:
        """End the store, then the relay once it has published, then the rest."""
        for child in (self.web, self.relay, self.invoices):
            if child.is_started:
                await child.terminate(timeout_seconds=_STOP_SECONDS)
        await self._broker.kill()

    def _configure(self) -> None:
        place = self.place
        self._config.write_text(
            _RELAY.format(
                database_url=place.database_url,
                bootstrap_servers=place.bootstrap_servers,
                wake=self._wake.as_posix(),
            )
        )
        os.environ.update(
            BOOKSTORE_DATABASE_URL=place.database_url,
            BOOKSTORE_JWT_SECRET=self.jwt_secret,
            BOOKSTORE_WAKE=f"unix:{self._wake.as_posix()}",
            INVOICES_DATABASE_URL=place.invoices_url,
            INVOICES_BOOTSTRAP_SERVERS=place.bootstrap_servers,
            INVOICES_SESSION_SECONDS=str(place.session_seconds),
        )

    async def _until_the_store_answers(self) -> None:
        async with asyncio.timeout(_READY_SECONDS):
            while True:
                self.check()
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.place.port)
                except OSError:
                    await asyncio.sleep(0.05)
                    continue
                writer.close()
                return


async def create_topics(bootstrap_servers: str) -> None:
    """Make the topics that are missing, as somebody in charge of the cluster would."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        for name, partitions in ((TOPIC, PARTITIONS), (DEAD_LETTERS, 1)):
            topic = NewTopic(name, num_partitions=partitions, replication_factor=1)
            answer = await admin.create_topics([topic])
            [(_, code, *_)] = answer.topic_errors
            if code not in (0, TopicAlreadyExistsError.errno):
                raise RuntimeError(f"the topic {name} cannot be made: {answer.topic_errors}")
    finally:
        await admin.close()
