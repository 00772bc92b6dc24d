"""
The composition root: the only file that names concrete classes.

Adapters are imported when they are built, so that a command loads only what it needs.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar, assert_never

from sqlalchemy.engine import make_url

from outbox_relay.config import Config
from outbox_relay.errors import ConfigError
from outbox_relay.relay.hints import Wakes
from outbox_relay.relay.producer import EventProducer

if TYPE_CHECKING:
    from outbox_relay.admin.server import Dashboard
    from outbox_relay.audit.ports import AuditedTable, AuditedTopics
    from outbox_relay.brokers.options import KafkaOptions
    from outbox_relay.http.server import HttpServer
    from outbox_relay.metrics import MetricsObserver
    from outbox_relay.operations.purging import Purger
    from outbox_relay.relay.dead_letters import DeadLetters
    from outbox_relay.relay.options import RelayOptions
    from outbox_relay.relay.ports import MessageBroker, Observer, Wake
    from outbox_relay.relay.tracing import Tracing
    from outbox_relay.store.options import DatabaseOptions
    from outbox_relay.wake_listener import WakeListener


Result = TypeVar("Result")

TIDY_SECONDS: Final = 30.0

MESSAGING_SYSTEMS: Final = {
    "kafka": "kafka",
    "amqp": "rabbitmq",
    "redis_streams": "redis",
    "redis_pubsub": "redis",
    "jsonl": "jsonl",
}
"""What OpenTelemetry calls the brokers, as ``messaging.system``; two of them it does not know."""


def run_loop(main: Coroutine[object, object, Result]) -> Result:
    """
    Run *main* as the relay's process does: on uvloop where it is installed.

    Rows and records hold no cycles, and looking for some in thousands of them took a tenth of the
    relay's CPU: the collector runs when `tidy` says so, and else seldom.
    """
    gc.set_threshold(100_000, 20, 20)
    try:
        import uvloop  # noqa: PLC0415 - an optional 5 to 10 %
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)


async def tidy(*, every_seconds: float = TIDY_SECONDS) -> None:
    """
    Collect cycles for ever, every now and then.

    Clients that are given up, errors and what they hold are cycles. Rows come and go without adding to
    the collector's count, so that by itself it would let a hundred thousand of them gather.
    """
    # What is there now stays: it need not be looked at each time.
    gc.collect()
    gc.freeze()
    while True:
        await asyncio.sleep(every_seconds)
        gc.collect()


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """What `outbox-relay run` runs."""

    producer: EventProducer
    observer: MetricsObserver
    http: HttpServer | None
    wake: WakeListener | None
    admin: Dashboard | None


def build(config: Config) -> Relay:
    """
    All parts, joined. Nothing is connected yet, but the HTTP port and the addresses for hints are
    taken.

    Call it on the loop that will run them. Raises ConfigError if one of them cannot be taken.
    """
    observer = build_observer(config)
    wake = build_wake(config.relay, observer)
    producer = build_producer(config, observer, wake)
    http = None
    try:
        http = build_http(config, producer, observer)
        admin = build_dashboard(config, producer, observer)
    except ConfigError:
        if http is not None:
            http.release()
        if wake is not None:
            wake.close()
        raise
    return Relay(producer=producer, observer=observer, http=http, wake=wake, admin=admin)


def build_observer(config: Config) -> MetricsObserver:
    """Who counts and logs."""
    from prometheus_client import disable_created_metrics  # noqa: PLC0415

    from outbox_relay.metrics import Metrics, MetricsObserver  # noqa: PLC0415

    # Else a time beside each counter, which nobody asks for.
    disable_created_metrics()  # type: ignore[no-untyped-call]

    url = make_url(config.database.url)
    metrics = Metrics(database=url.get_backend_name(), driver=url.get_driver_name())
    metrics.in_flight_rows_limit.set(config.relay.in_flight_rows)
    metrics.in_flight_bytes_limit.set(config.relay.in_flight_bytes)
    metrics.certificates.files = certificates(config)
    return MetricsObserver(metrics)


def certificates(config: Config) -> dict[str, str]:
    """The certificates that the settings name, by setting: those of the database and of the broker."""
    sections = {
        "database": config.database,
        config.broker.section: getattr(config, config.broker.section),
    }
    return {
        f"{section}.{name}": path
        for section, options in sections.items()
        for name in ("ssl_ca_file", "ssl_cert_file")
        if (path := getattr(options, name, ""))
    }


def build_wake(
    options: RelayOptions, observer: MetricsObserver | None = None
) -> WakeListener | None:
    """Where hints come in; None where they are switched off."""
    if not options.wake_address:
        return None
    from outbox_relay.wake_listener import WakeListener  # noqa: PLC0415

    return WakeListener(options.wake_address, published=options.wake_published, observer=observer)


def build_producer(
    config: Config, observer: MetricsObserver, wake: WakeListener | None = None
) -> EventProducer:
    """The relay over the database and the broker that *config* names."""
    from outbox_relay.store import open_store  # noqa: PLC0415

    return EventProducer(
        open_store(config.database, observer=observer),
        build_broker(config, observer),
        options=config.relay,
        wire=config.wire,
        publish_deadline_seconds=config.publish_deadline_seconds,
        observer=observer,
        wake=_all_wakes(config, observer, wake),
        canary=config.canary,
        tracing=build_tracing(config),
    )


def build_tracing(config: Config) -> Tracing | None:
    """Who makes spans; None where nobody asks for them."""
    if not config.tracing.enabled:
        return None
    from outbox_relay.tracing import RelayTracing  # noqa: PLC0415

    return RelayTracing(system=MESSAGING_SYSTEMS[config.broker.kind])


def build_broker(config: Config, observer: Observer) -> MessageBroker:
    """The broker of ``broker.kind``. Its client library alone is loaded."""
    match config.broker.kind:
        case "kafka":
            from outbox_relay.brokers.kafka import KafkaBroker  # noqa: PLC0415

            return KafkaBroker(config.kafka, observer=observer)
        case "amqp":
            from outbox_relay.brokers.amqp import AmqpBroker  # noqa: PLC0415

            return AmqpBroker(config.amqp, observer=observer)
        case "redis_streams":
            from outbox_relay.brokers.redis_streams import RedisStreamsBroker  # noqa: PLC0415

            return RedisStreamsBroker(config.redis, observer=observer)
        case "redis_pubsub":
            from outbox_relay.brokers.redis_pubsub import RedisPubSubBroker  # noqa: PLC0415

            return RedisPubSubBroker(config.redis, observer=observer)
        case "jsonl":
            from outbox_relay.brokers.jsonl import JsonlBroker  # noqa: PLC0415

            return JsonlBroker(config.jsonl, observer=observer)
        case _:
            assert_never(config.broker.kind)


def _all_wakes(config: Config, observer: MetricsObserver, wake: WakeListener | None) -> Wake | None:
    if not config.relay.wake_notify:
        return wake
    from outbox_relay.store.notify import NotifyListener  # noqa: PLC0415

    notify = NotifyListener(config.database, observer=observer)
    return notify if wake is None else Wakes(wake, notify)


def build_dead_letters(options: DatabaseOptions) -> DeadLetters:
    """What `outbox-relay dead-letters` works on."""
    from outbox_relay.migrate import database_engine  # noqa: PLC0415
    from outbox_relay.schema import tables  # noqa: PLC0415
    from outbox_relay.store.dead_letters import SqlDeadLetters  # noqa: PLC0415

    if options.layout == "python-cqrs":
        from outbox_relay.store.adopt_dead_letters import AdoptedDeadLetters  # noqa: PLC0415

        return AdoptedDeadLetters(database_engine(options), options)
    return SqlDeadLetters(
        database_engine(options),
        tables(options.table, schema=options.schema or None),
        timeout_seconds=options.connect_timeout_seconds + options.timeout_seconds,
    )


def build_purger(options: DatabaseOptions) -> Purger:
    """What `outbox-relay purge` works on."""
    from outbox_relay.store.sql import SqlStore  # noqa: PLC0415

    return SqlStore(options)


def build_audited_table(options: DatabaseOptions) -> AuditedTable:
    """The table that `outbox-relay audit` reads. Connects when it is first asked."""
    from outbox_relay.audit.ports import State, TableRow  # noqa: PLC0415
    from outbox_relay.store.auditing import SqlAuditedTable  # noqa: PLC0415

    return SqlAuditedTable(options, make_row=TableRow._make, make_state=State._make)


def build_audited_topics(options: KafkaOptions) -> AuditedTopics:
    """The topics that it reads."""
    from outbox_relay.audit.ports import Batch, RecordsRemoved, Span  # noqa: PLC0415
    from outbox_relay.brokers.kafka_reading import KafkaAuditedTopics  # noqa: PLC0415

    return KafkaAuditedTopics(options, make_span=Span, make_batch=Batch, removed=RecordsRemoved)


def build_http(
    config: Config, producer: EventProducer, observer: MetricsObserver
) -> HttpServer | None:
    """Metrics and health of *producer*; None where they are switched off."""
    if not config.http.enabled:
        return None
    from outbox_relay.http.app import build_app  # noqa: PLC0415
    from outbox_relay.http.server import HttpServer, listen  # noqa: PLC0415

    app = build_app(observer, stopping=lambda: producer.stopping)
    return HttpServer(app, listen(config.http))


def build_dashboard(
    config: Config, producer: EventProducer, observer: MetricsObserver
) -> Dashboard | None:
    """The dashboard beside *producer*; None where it is switched off."""
    if not config.admin.enabled:
        return None
    from outbox_relay.admin.desk import Desk  # noqa: PLC0415
    from outbox_relay.admin.server import Dashboard  # noqa: PLC0415
    from outbox_relay.doctor import examine  # noqa: PLC0415
    from outbox_relay.operations import Access  # noqa: PLC0415

    desk = Desk(
        config.admin,
        access=Access(config.database),
        letters=build_dead_letters(config.database),
        observer=observer,
        owner=producer.owner,
        examine=lambda: examine(config),
        retention_seconds=config.relay.retention_seconds,
    )
    return Dashboard(desk)
