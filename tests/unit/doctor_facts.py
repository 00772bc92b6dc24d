"""
What `doctor` may have seen: all is well, but for what a test changes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from outbox_relay.config import Config, load_config
from outbox_relay.doctor import ddl
from outbox_relay.doctor.examine import Seen, judge
from outbox_relay.doctor.facts import (
    ColumnFacts,
    ConfigurationFacts,
    DatabaseFacts,
    KafkaFacts,
    LeaseFacts,
    Right,
    RightsFacts,
    RowsFacts,
    ServerFacts,
    Setting,
    TableFacts,
    TablesFacts,
    TopicFacts,
    TopicUse,
    WakeFacts,
)
from outbox_relay.doctor.rules.server import OLDEST
from outbox_relay.schema import LANES, SCHEMA_VERSION, tables

NAMES = tables()
URLS = {
    "mariadb": "mariadb+asyncmy://relay:geheim@db/shop",
    "mysql": "mysql+asyncmy://relay:geheim@db/shop",
    "postgresql": "postgresql+asyncpg://relay:geheim@db/shop",
    "sqlite": "sqlite+aiosqlite:////var/lib/shop.db",
}
CONFIGS = {
    "cleanup.policy": "delete",
    "max.message.bytes": "1048588",
    "message.timestamp.before.max.ms": str(2**63 - 1),
    "message.timestamp.type": "CreateTime",
    "min.insync.replicas": "2",
    "unclean.leader.election.enable": "false",
}
SETTINGS = {
    "postgresql": {"fsync": "on", "synchronous_commit": "on", "autovacuum": "on"},
    "mariadb": {"sync_binlog": "1", "innodb_flush_log_at_trx_commit": "1", "log_bin": "ON"},
    "mysql": {"sync_binlog": "1", "innodb_flush_log_at_trx_commit": "1", "log_bin": "ON"},
    "sqlite": {},
}


def config(backend: str = "mariadb", **settings: str) -> Config:
    flags = {name.replace("__", ".", 1): value for name, value in settings.items()}
    return load_config(
        None, {}, {"database.url": URLS[backend], "kafka.bootstrap_servers": "k:9092"} | flags
    )


def healthy_tables(backend: Any) -> dict[str, TableFacts]:
    """As the catalogue of a server describes what the migrations make."""
    (index,) = NAMES.outbox.indexes
    vacuum = {"autovacuum_vacuum_scale_factor": "0.01"} if backend == "postgresql" else {}
    return {
        table.name: TableFacts(
            columns={c.name: _column(c, backend) for c in table.columns},
            indexes={NAMES.pending_index: ddl.wanted_index(index, backend)}
            if table is NAMES.outbox
            else {},
            engine="InnoDB",
            options=vacuum if table is NAMES.outbox else {},
        )
        for table in NAMES.metadata.sorted_tables
    }


def _column(column: Any, backend: Any) -> ColumnFacts:
    wanted = ddl.wanted_column(column, backend)
    is_number = column.identity is not None
    return dataclasses.replace(wanted, has_default=wanted.has_default or is_number)


def server(backend: Any = "mariadb", settings: Any = None, **changes: Any) -> ServerFacts:
    chosen = SETTINGS[backend] | (settings or {})
    made = ServerFacts(
        backend=backend,
        version=OLDEST[backend],
        version_text="x",
        settings={name: Setting(value=value) for name, value in chosen.items()},
        skew_seconds=0.1,
        connections=5,
        transactions=(),
    )
    return dataclasses.replace(made, **changes)


def lease(**changes: Any) -> LeaseFacts:
    made = LeaseFacts(
        lane_rows=LANES, slot_rows=LANES, owners={"pod-1": LANES}, lanes=LANES, crash_count=0
    )
    return dataclasses.replace(made, **changes)


def rows(**changes: Any) -> RowsFacts:
    made = RowsFacts(pending=0, oldest_pending_seconds=None, oldest_produced_seconds=60.0)
    return dataclasses.replace(made, **changes)


def rights(**changes: Any) -> RightsFacts:
    granted = tuple(Right(table="outbox", name=n, granted=True) for n in ("SELECT", "UPDATE"))
    return dataclasses.replace(RightsFacts(user="relay", rights=granted), **changes)


def database(backend: Any = "mariadb", **changes: Any) -> DatabaseFacts:
    version = SCHEMA_VERSION
    made = DatabaseFacts(
        backend=backend,
        server=server(backend),
        tables=TablesFacts(
            version=version, min_reader=1, there=healthy_tables(backend), wrong_lanes=0
        ),
        rights=rights(),
        lease=lease(),
        rows=rows(topics=(TopicUse(topic="orders", pending=1),)),
    )
    return dataclasses.replace(made, **changes)


def topic(configs: Any = None, **changes: Any) -> TopicFacts:
    made = TopicFacts(
        topic="orders",
        exists=True,
        may_write=True,
        replicas=(3, 3),
        in_sync=(3, 3),
        configs=CONFIGS | (configs or {}),
    )
    return dataclasses.replace(made, **changes)


def kafka(*topics: TopicFacts, **changes: Any) -> KafkaFacts:
    made = KafkaFacts(brokers=3, auto_create=False, topics=topics or (topic(),))
    return dataclasses.replace(made, **changes)


def seen(**changes: Any) -> Seen:
    made = Seen(
        files=ConfigurationFacts(),
        database=database(),
        broker=kafka(),
        wake=(WakeFacts(address="unix:/s", state="taken", counted=True),),
    )
    return dataclasses.replace(made, **changes)


def changed_table(backend: Any = "mariadb", **changes: Any) -> DatabaseFacts:
    """The outbox itself is another."""
    there = healthy_tables(backend)
    there["outbox"] = dataclasses.replace(there["outbox"], **changes)
    made = database(backend)
    assert made.tables is not None
    return dataclasses.replace(made, tables=dataclasses.replace(made.tables, there=there))


def changed_column(name: str, backend: Any = "mariadb", **changes: Any) -> DatabaseFacts:
    columns = dict(healthy_tables(backend)["outbox"].columns)
    columns[name] = dataclasses.replace(columns[name], **changes)
    return changed_table(backend, columns=columns)


def changed_tables(backend: Any = "mariadb", **changes: Any) -> DatabaseFacts:
    made = database(backend)
    assert made.tables is not None
    return dataclasses.replace(made, tables=dataclasses.replace(made.tables, **changes))


def codes(settings: Config, facts: Seen) -> set[str]:
    return {finding.code for finding in judge(settings, facts)}
