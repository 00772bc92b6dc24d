"""`EventProducer` of the documents: the relay, over a repository's database and a broker's address."""

from __future__ import annotations

import logging
from typing import Any, Protocol

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox_relay.errors import ConfigError
from outbox_relay.outbox.repository import SqlAlchemyOutboxedEventRepository
from outbox_relay.relay import producer as relay
from outbox_relay.relay.options import RelayOptions
from outbox_relay.relay.ports import MessageBroker
from outbox_relay.relay.watching import Silent
from outbox_relay.relay.wire import WireOptions
from outbox_relay.store.options import DatabaseOptions

logger = logging.getLogger("outbox_relay.relay")


class RelayedBroker(Protocol):
    """A message broker that the relay can publish to."""

    def relay_broker(self) -> MessageBroker:
        """The same broker behind the relay's port."""


class EventProducer:
    """
    Publishes what a repository's outbox holds: at least once, in order per key, none lost.

    It is the relay of ``outbox-relay run``, inside this process; that command has metrics, health
    and a graceful stop besides, and is what to run beside several applications.

    * repository: says the database and the table. A driver's own arguments, such as TLS, are for
      *database*
    * message_broker: says the broker
    * options, wire: as `[relay]` and `[wire]`
    """

    def __init__(
        self,
        repository: SqlAlchemyOutboxedEventRepository,
        message_broker: RelayedBroker,
        *,
        database: DatabaseOptions | None = None,
        options: RelayOptions | None = None,
        wire: WireOptions | None = None,
    ) -> None:
        if not callable(getattr(message_broker, "relay_broker", None)):
            raise ConfigError(
                [
                    f"a relay cannot publish to a {type(message_broker).__name__}: take a "
                    "KafkaMessageBroker or an AMQPMessageBroker, or run `outbox-relay run`"
                ]
            )
        self._database = database_of(repository) if database is None else database
        self._message_broker = message_broker
        self._options = options
        self._wire = wire
        self._producer: relay.EventProducer | None = None

    async def periodically_task(self) -> None:
        """
        Publish until `stop` is called, or this task is cancelled. Lives through outages.

        Other relays of the same table stand by meanwhile, or this one does.
        """
        await self._run(until_empty=False)

    async def produce_all(self) -> None:
        """Publish what is there now, and return."""
        await self._run(until_empty=True)

    def stop(self) -> None:
        """Settle what is under way, then let `periodically_task` return."""
        if self._producer is not None:
            self._producer.stop()

    async def _run(self, *, until_empty: bool) -> None:
        from outbox_relay.store import open_store  # noqa: PLC0415 - loads the database's driver

        observer = _LoggingObserver()
        # Of the broker's own options: a lease that is trusted for less than a batch may take would let
        # two relays publish it.
        deadline = getattr(self._message_broker, "publish_deadline_seconds", None)
        limits = {} if deadline is None else {"publish_deadline_seconds": deadline}
        self._producer = relay.EventProducer(
            open_store(self._database, observer=observer),
            self._message_broker.relay_broker(),
            options=self._options,
            wire=self._wire,
            observer=observer,
            **limits,
        )
        await self._producer.run(until_empty=until_empty)


def database_of(repository: SqlAlchemyOutboxedEventRepository) -> DatabaseOptions:
    """
    Where *repository* writes.

    Raises ConfigError if its sessions do not say so, or where nobody else could connect.
    """
    engine = _engine(repository.session_factory)
    if engine is None:
        raise ConfigError(
            ["the session factory names no engine: say EventProducer(..., database=...)"]
        )
    url = engine.url
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise ConfigError(["a database in memory has one connection: a relay cannot read it"])
    table = repository.outbox.table
    return DatabaseOptions(
        url=url.render_as_string(hide_password=False),
        table=table.name,
        schema=table.schema or "",
    )


def _engine(factory: Any) -> AsyncEngine | Engine | None:
    bind = getattr(factory, "kw", {}).get("bind") or getattr(factory(), "bind", None)
    if isinstance(bind, Connection):
        bind = bind.engine
    return bind if isinstance(bind, AsyncEngine | Engine) else None


class _LoggingObserver(Silent):
    """What the relay has to say, in the application's own log."""

    def log(self, event: str, **fields: object) -> None:
        logger.info("%s %s", event, fields)

    def schema(self, problem: str | None) -> None:
        if problem is not None:
            logger.error("%s", problem)
