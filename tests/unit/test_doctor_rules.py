"""
`doctor`: what follows from which facts. No server, no file, no clock.
"""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any

import pytest

from outbox_relay.config import Config, load_config
from outbox_relay.doctor import Area, Severity, ddl, invalid
from outbox_relay.doctor.catalogue import KINDS
from outbox_relay.doctor.examine import Seen, judge
from outbox_relay.doctor.facts import (
    AmqpFacts,
    Between,
    ColumnFacts,
    ConfigurationFacts,
    DatabaseFacts,
    DeadCount,
    FileFacts,
    Grant,
    IndexFacts,
    JsonlFacts,
    KafkaFacts,
    LeaseFacts,
    OpenTransaction,
    Paused,
    RedisFacts,
    Right,
    RightsFacts,
    RowsFacts,
    ServerFacts,
    Setting,
    TableFacts,
    TablesFacts,
    TopicFacts,
    TopicUse,
    Unreachable,
    WakeFacts,
)
from outbox_relay.doctor.rules.server import OLDEST
from outbox_relay.doctor.rules.settings import settings_asked
from outbox_relay.errors import ConfigError
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


@pytest.mark.parametrize("backend", URLS)
def test_nothing_follows_from_healthy_facts(backend: str) -> None:
    """
    Of each kind of database, with each kind of broker.
    """
    away = seen(database=database(backend))
    if backend == "sqlite":
        away = seen(
            database=database(
                backend, lease=lease(lane_rows=1, slot_rows=0, owners={"p": 1}, lanes=1)
            )
        )

    assert codes(config(backend), away) == set()
    for broker in (AmqpFacts(), RedisFacts(role="master", replicas=0, has_log=True), JsonlFacts()):
        away.broker = broker
        assert codes(config(backend), away) == set()


def test_nothing_follows_from_nothing() -> None:
    """
    What could not be looked at is no finding.
    """
    assert codes(config(), Seen()) == set()
    assert codes(config(), Seen(database=DatabaseFacts(backend="mariadb"))) == set()


SQL_SERVER_FAULTS: list[tuple[str, str, dict[str, str]]] = [
    ("mariadb", "binlog-format", {"binlog_format": "STATEMENT"}),
    ("mysql", "binlog-row-image", {"binlog_row_image": "MINIMAL"}),
    ("mysql", "binlog-not-synced", {"sync_binlog": "1000"}),
    ("mariadb", "commit-not-flushed", {"innodb_flush_log_at_trx_commit": "2"}),
    ("mariadb", "commit-not-flushed", {"innodb_flush_log_at_trx_commit": "0"}),
    (
        "mysql",
        "semi-sync-after-commit",
        {
            "rpl_semi_sync_source_enabled": "ON",
            "rpl_semi_sync_source_wait_point": "AFTER_COMMIT",
        },
    ),
    ("mysql", "isolation", {"transaction_isolation": "SERIALIZABLE"}),
    ("mariadb", "isolation", {"tx_isolation": "READ-UNCOMMITTED"}),
    ("mariadb", "idle-timeout", {"wait_timeout": "20"}),
    ("mariadb", "statement-timeout", {"max_statement_time": "0.200000"}),
    ("mysql", "statement-timeout", {"max_execution_time": "200"}),
    ("mysql", "packet-too-small", {"max_allowed_packet": "1048576"}),
    ("mysql", "backslash-escapes", {"sql_mode": "STRICT_TRANS_TABLES,NO_BACKSLASH_ESCAPES"}),
    ("mysql", "connections-scarce", {"max_connections": "5"}),
    ("postgresql", "fsync-off", {"fsync": "off"}),
    ("postgresql", "commit-not-flushed", {"synchronous_commit": "off"}),
    (
        "postgresql",
        "commit-not-flushed",
        {"synchronous_commit": "local", "synchronous_standby_names": "*"},
    ),
    ("postgresql", "isolation", {"default_transaction_isolation": "repeatable read"}),
    ("postgresql", "statement-timeout", {"statement_timeout": "500"}),
    ("postgresql", "autovacuum-off", {"autovacuum": "off"}),
    ("postgresql", "idle-timeout", {"idle_session_timeout": "15000"}),
    ("postgresql", "connections-scarce", {"max_connections": "5"}),
]


@pytest.mark.parametrize(("backend", "code", "settings"), SQL_SERVER_FAULTS)
def test_a_setting_of_a_server(backend: Any, code: str, settings: dict[str, str]) -> None:
    """
    Said by its name and value, with the statement that sets it.
    """
    facts = seen(database=database(backend, server=server(backend, settings)))
    (finding,) = judge(config(backend), facts)

    assert finding.code == code
    assert finding.commands
    assert any(name in finding.what for name in settings) or code == "connections-scarce"


RIGHT_SETTINGS = [
    ("mariadb", {"innodb_flush_log_at_trx_commit": "3"}),
    ("mariadb", {"log_bin": "OFF", "sync_binlog": "0", "binlog_format": "STATEMENT"}),
    ("mariadb", {"max_allowed_packet": "16777216", "max_statement_time": "0.000000"}),
    ("mysql", {"rpl_semi_sync_master_wait_point": "AFTER_COMMIT"}),
    ("mysql", {"innodb_autoinc_lock_mode": "2"}),
    ("postgresql", {"synchronous_commit": "local", "synchronous_standby_names": ""}),
    ("postgresql", {"synchronous_commit": "remote_apply", "idle_session_timeout": "0"}),
]


@pytest.mark.parametrize(("backend", "settings"), RIGHT_SETTINGS)
def test_settings_that_do_no_harm(backend: Any, settings: dict[str, str]) -> None:
    """
    What looks like a fault and is none.
    """
    facts = seen(database=database(backend, server=server(backend, settings)))

    assert codes(config(backend), facts) == set()


@pytest.mark.parametrize(
    ("source", "statement"),
    [
        ("database", "ALTER DATABASE shop SET synchronous_commit = on"),
        ("user", "ALTER ROLE relay SET synchronous_commit = on"),
        ("database user", "ALTER ROLE relay IN DATABASE shop SET synchronous_commit = on"),
        ("configuration file", "ALTER SYSTEM SET synchronous_commit = on"),
    ],
)
def test_a_setting_of_postgresql_is_mended_where_it_comes_from(source: str, statement: str) -> None:
    """
    A setting of a database wins over one of the server's file.
    """
    settings = {
        "synchronous_commit": Setting(value="off", source=source),
        "current_user": Setting(value="relay"),
        "current_database": Setting(value="shop"),
    }
    facts = seen(database=database("postgresql", server=server("postgresql", settings=None)))
    assert facts.database is not None
    assert facts.database.server is not None
    changed = dataclasses.replace(facts.database.server, settings=settings)
    facts.database = dataclasses.replace(facts.database, server=changed)
    (finding,) = judge(config("postgresql"), facts)

    assert finding.commands[0].text == statement


ALONE: list[tuple[str, Config, Seen]] = [
    *(
        (
            code,
            config(),
            seen(
                database=DatabaseFacts(
                    backend="mariadb", unreachable=Unreachable(kind=kind, what="w", mend="m")
                )
            ),
        )
        for kind, code in (
            ("away", "database-unreachable"),
            ("login", "database-login-refused"),
            ("tls", "database-tls-refused"),
            ("missing", "database-missing"),
        )
    ),
    ("server-too-old", config(), seen(database=database(server=server(version=(10, 5, 9))))),
    ("server-only-reads", config(), seen(database=database(server=server(only_reads=True)))),
    ("clock-skew", config(), seen(database=database(server=server(skew_seconds=-3.0)))),
    (
        "long-transaction",
        config(),
        seen(
            database=database(
                server=server(
                    transactions=(OpenTransaction(name="7", seconds=61, user="app", origin="h"),)
                )
            )
        ),
    ),
    (
        "proxy-between",
        config(),
        seen(database=database(server=server(between=Between(greeted_by_another=True)))),
    ),
    (
        "proxy-between",
        config(),
        seen(database=database(server=server(between=Between(product="MaxScale")))),
    ),
    (
        "pooler-mode",
        config("postgresql"),
        seen(
            database=database(
                "postgresql",
                server=server(
                    "postgresql",
                    between=Between(greeted_by_another=True, shares_connections=True),
                ),
            )
        ),
    ),
    (
        "pooler-setting-needless",
        config("postgresql", database__transaction_pooler="true"),
        seen(database=database("postgresql")),
    ),
    (
        "ids-without-lock",
        config("mysql"),
        seen(
            database=database(
                "mysql",
                server=server("mysql", {"innodb_autoinc_lock_mode": "2"}, bulk_inserts=3),
            )
        ),
    ),
    (
        "tables-missing",
        config(),
        seen(
            database=changed_tables(
                version=None, min_reader=None, problem="the outbox tables do not exist: run it"
            )
        ),
    ),
    ("tables-too-new", config(), seen(database=changed_tables(problem="need a relay that reads"))),
    ("tables-outdated", config(), seen(database=changed_tables(version=SCHEMA_VERSION - 1))),
    (
        "table-incomplete",
        config(),
        seen(
            database=changed_tables(
                there={k: v for k, v in healthy_tables("mariadb").items() if "control" not in k}
            )
        ),
    ),
    ("column-shape", config(), seen(database=changed_column("payload", type="blob"))),
    ("column-shape", config(), seen(database=changed_column("topic", nullable=True))),
    ("column-shape", config(), seen(database=changed_column("key", nullable=False))),
    ("column-shape", config(), seen(database=changed_column("created_at", has_default=False))),
    ("column-shape", config(), seen(database=changed_column("id", has_default=False))),
    ("lane-column", config(), seen(database=changed_column("lane", generated=False))),
    ("lane-column", config(), seen(database=changed_tables(wrong_lanes=3))),
    ("index-missing", config(), seen(database=changed_table(indexes={}))),
    (
        "index-missing",
        config("postgresql"),
        seen(
            database=changed_table(
                "postgresql",
                indexes={
                    NAMES.pending_index: IndexFacts(
                        columns=("status", "id", "lane"), where="status <> 1", valid=False
                    )
                },
            )
        ),
    ),
    (
        "index-shape",
        config(),
        seen(
            database=changed_table(
                indexes={NAMES.pending_index: IndexFacts(columns=("id", "status"))}
            )
        ),
    ),
    (
        "index-shape",
        config("postgresql"),
        seen(
            database=changed_table(
                "postgresql",
                indexes={NAMES.pending_index: IndexFacts(columns=("status", "id", "lane"))},
            )
        ),
    ),
    ("table-engine", config(), seen(database=changed_table(engine="MyISAM"))),
    (
        "table-collation",
        config(),
        seen(database=changed_column("topic", collation="utf8mb4_general_ci")),
    ),
    ("table-collation", config(), seen(database=changed_column("topic", collation="latin1_bin"))),
    (
        "autovacuum-off",
        config("postgresql"),
        seen(
            database=changed_table(
                "postgresql",
                options={
                    "autovacuum_enabled": "false",
                    "autovacuum_vacuum_scale_factor": "0.01",
                },
            )
        ),
    ),
    (
        "autovacuum-settings",
        config("postgresql"),
        seen(database=changed_table("postgresql", options={})),
    ),
    (
        "dead-rows",
        config("postgresql"),
        seen(database=changed_table("postgresql", dead_rows=80_000, live_rows=10_000)),
    ),
    (
        "trigger-missing",
        config("postgresql", relay__wake_notify="true"),
        seen(database=changed_tables("postgresql", has_notify_trigger=False)),
    ),
    (
        "tables-missing",
        config("mysql", database__layout="python-cqrs", database__layout_key_path="a.b"),
        seen(database=changed_tables("mysql", missing=("CREATE TABLE outbox_lease (...)",))),
    ),
    (
        "index-missing",
        config("mysql", database__layout="python-cqrs", database__layout_key_path="a.b"),
        seen(database=changed_tables("mysql", missing=("ALTER TABLE outbox ADD INDEX i (a)",))),
    ),
    (
        "rights-missing",
        config(),
        seen(
            database=database(
                rights=rights(rights=(Right(table="outbox", name="DELETE", granted=False),))
            )
        ),
    ),
    (
        "rights-needless",
        config(),
        seen(
            database=database(
                rights=rights(
                    grants=(Grant(target="*.*", names=frozenset({"SUPER"}), covers="server"),)
                )
            )
        ),
    ),
    ("rights-needless", config(), seen(database=database(rights=rights(is_superuser=True)))),
    ("rights-needless", config(), seen(database=database(rights=rights(owns=("outbox",))))),
    ("lease-rows", config(), seen(database=database(lease=lease(slot_rows=60)))),
    ("no-relay", config(), seen(database=database(lease=lease(owners={})))),
    ("lanes-without-owner", config(), seen(database=database(lease=lease(owners={"p": 60})))),
    ("relay-dies", config(), seen(database=database(lease=lease(crash_count=2)))),
    ("relay-behind", config(), seen(database=database(rows=rows(oldest_pending_seconds=301.0)))),
    (
        "topic-paused",
        config(),
        seen(database=database(rows=rows(paused=(Paused(topic="orders", reason="x", seconds=1),)))),
    ),
    (
        "purge-paused",
        config(),
        seen(
            database=database(
                rows=rows(
                    oldest_produced_seconds=1e9,
                    paused=(Paused(topic="@purge", reason="", seconds=1),),
                )
            )
        ),
    ),
    (
        "purge-behind",
        config(),
        seen(database=database(rows=rows(oldest_produced_seconds=8 * 86_400))),
    ),
    (
        "dead-letters",
        config(),
        seen(
            database=database(
                rows=rows(dead=(DeadCount(topic="orders", reason="too_large", rows=2),))
            )
        ),
    ),
    (
        "broker-unreachable",
        config(),
        seen(broker=KafkaFacts(unreachable=Unreachable(kind="away", what="w", mend="m"))),
    ),
    (
        "broker-login-refused",
        config(),
        seen(broker=RedisFacts(unreachable=Unreachable(kind="login", what="w", mend="m"))),
    ),
    ("topics-made-by-themselves", config(), seen(broker=kafka(auto_create=True))),
    ("topic-missing", config(), seen(broker=kafka(TopicFacts(topic="orders", exists=False)))),
    ("topic-unauthorised", config(), seen(broker=kafka(topic(may_write=False)))),
    ("topic-unauthorised", config(), seen(broker=kafka(topic(may_describe=False)))),
    ("topic-without-leader", config(), seen(broker=kafka(topic(leaderless=(1,))))),
    ("topic-not-enough-replicas", config(), seen(broker=kafka(topic(in_sync=(3, 1))))),
    (
        "topic-not-enough-replicas",
        config(),
        seen(broker=kafka(topic({"min.insync.replicas": "4"}))),
    ),
    (
        "topic-one-replica",
        config(),
        seen(broker=kafka(topic({"min.insync.replicas": "1"}, replicas=(1,), in_sync=(1,)))),
    ),
    ("topic-min-isr", config(), seen(broker=kafka(topic({"min.insync.replicas": "1"})))),
    (
        "topic-unclean-election",
        config(),
        seen(broker=kafka(topic({"unclean.leader.election.enable": "true"}))),
    ),
    (
        "topic-compacted-unkeyed",
        config(),
        seen(
            broker=kafka(topic({"cleanup.policy": "compact,delete"})),
            database=database(rows=rows(topics=(TopicUse(topic="orders", unkeyed=1),))),
        ),
    ),
    ("topic-record-limit", config(), seen(broker=kafka(topic({"max.message.bytes": "1000"})))),
    (
        "topic-old-refused",
        config(),
        seen(broker=kafka(topic({"message.timestamp.before.max.ms": "3600000"}))),
    ),
    (
        "topic-append-time",
        config(),
        seen(broker=kafka(topic({"message.timestamp.type": "LogAppendTime"}))),
    ),
    (
        "topic-one-partition",
        config(relay__max_active_relays="2"),
        seen(broker=kafka(topic(replicas=(3,), in_sync=(3,)))),
    ),
    ("exchange-missing", config(), seen(broker=AmqpFacts(exchanges={"x": False, "y": True}))),
    ("queue-missing", config(), seen(broker=AmqpFacts(queues={"q": False}))),
    ("broker-only-reads", config(), seen(broker=RedisFacts(role="slave"))),
    (
        "stream-not-durable",
        config(broker__kind="redis_streams", redis__url="redis://localhost"),
        seen(broker=RedisFacts(role="master", has_log=False)),
    ),
    (
        "stream-evicted",
        config(broker__kind="redis_streams", redis__url="redis://localhost"),
        seen(broker=RedisFacts(has_log=True, policy="allkeys-lru", max_memory=1)),
    ),
    (
        "replicas-too-few",
        config(
            broker__kind="redis_streams", redis__url="redis://localhost", redis__wait_replicas="1"
        ),
        seen(broker=RedisFacts(has_log=False, replicas=0)),
    ),
    (
        "file-not-writable",
        config(broker__kind="jsonl"),
        seen(broker=JsonlFacts(problem="full")),
    ),
    (
        "file-not-synced",
        config(broker__kind="jsonl", jsonl__path="/tmp/e.jsonl", jsonl__fsync="false"),
        seen(broker=JsonlFacts()),
    ),
    ("unsafe-publishing", config(kafka__idempotent="false"), seen()),
    ("no-order", config("mysql", database__layout="python-cqrs"), seen(database=None)),
    (
        "password-in-clear",
        config(broker__kind="amqp", amqp__url="amqp://a:b@rabbit/"),
        seen(broker=AmqpFacts()),
    ),
    (
        "password-in-clear",
        config(
            kafka__security_protocol="SASL_PLAINTEXT",
            kafka__sasl_mechanism="PLAIN",
            kafka__sasl_username="u",
            kafka__sasl_password="p",
        ),
        seen(),
    ),
    (
        "secret-unreadable",
        config(),
        seen(
            files=ConfigurationFacts(
                files=(FileFacts(setting="s", path="/p", is_secret=True, mode=None, problem="p"),)
            )
        ),
    ),
    (
        "secret-open",
        config(),
        seen(
            files=ConfigurationFacts(
                files=(FileFacts(setting="s", path="/p", is_secret=True, mode=0o644),)
            )
        ),
    ),
    (
        "secret-open",
        config(),
        seen(
            files=ConfigurationFacts(
                config_path="/c", config_mode=0o644, secrets_in_config=("the password of x",)
            )
        ),
    ),
    (
        "certificate-expiring",
        config(),
        seen(
            files=ConfigurationFacts(
                files=(
                    FileFacts(
                        setting="s", path="/p", is_secret=False, mode=0o644, not_after_days=-1
                    ),
                )
            )
        ),
    ),
    *(
        (code, config(), seen(wake=(WakeFacts(address="unix:/s", state=state),)))
        for state, code in (
            ("missing", "wake-socket-missing"),
            ("refused", "wake-socket-refused"),
            ("nobody", "wake-nobody-listens"),
        )
    ),
    (
        "wake-hint-lost",
        config(),
        seen(wake=(WakeFacts(address="unix:/s", state="taken", counted=False),)),
    ),
]


@pytest.mark.parametrize(
    ("code", "settings", "facts"), ALONE, ids=[f"{n}-{case[0]}" for n, case in enumerate(ALONE)]
)
def test_a_fault_is_said_by_its_code_alone(code: str, settings: Config, facts: Seen) -> None:
    """
    With what was seen, why it matters and what to do; never with a password.
    """
    (finding,) = judge(settings, facts)

    assert finding.code == code
    assert finding.what
    assert finding.why
    assert finding.mend.endswith((".", ":", "m"))
    assert "geheim" not in str(finding.as_json())
    assert finding.severity > Severity.OK


def test_every_code_has_a_unit_test() -> None:
    """
    No kind of finding is left without a fact that leads to it.
    """
    tested = {code for code, _, _ in ALONE} | {code for _, code, _ in SQL_SERVER_FAULTS}

    assert KINDS.keys() - tested == {"configuration-invalid"}


def test_settings_that_do_not_load_are_findings() -> None:
    """
    One for each problem.
    """
    found = invalid(ConfigError(["a is wrong", "b is wrong"]))

    assert [finding.what for finding in found.findings] == ["a is wrong", "b is wrong"]
    assert found.severity == Severity.ERROR
    assert found.areas == (Area.CONFIGURATION,)


NOT_FOUND: list[Seen] = [
    seen(database=database(rows=rows(oldest_pending_seconds=299.0))),
    seen(
        database=database(
            server=server(transactions=(OpenTransaction(name="7", seconds=59, user="a"),))
        )
    ),
    seen(database=changed_column("payload", type="longblob")),
    seen(database=changed_column("event_name", type="varchar(400)")),
    seen(database=changed_column("topic", collation="utf8mb4_0900_bin")),
    seen(
        database=changed_table(
            indexes={NAMES.pending_index: IndexFacts(columns=("status", "id", "lane", "topic"))}
        )
    ),
    seen(broker=kafka(topic({"cleanup.policy": "compact"}))),
    seen(broker=kafka(topic(may_write=None, configs=None))),
    seen(database=database(lease=lease(owners={"a": 32, "b": 32}))),
]


@pytest.mark.parametrize("facts", NOT_FOUND)
def test_what_is_no_fault(facts: Seen) -> None:
    """
    Just below a limit, wider than needed, or not known.
    """
    assert codes(config(), facts) == set()


def test_severity_goes_by_what_is_at_stake() -> None:
    """
    Nobody relays: an error only while something waits. One broker: a note, since nothing else can be.
    """
    idle = judge(config(), seen(database=database(lease=lease(owners={}))))
    waiting = judge(config(), seen(database=database(lease=lease(owners={}), rows=rows(pending=1))))
    lone = judge(
        config(),
        seen(
            broker=kafka(
                topic({"min.insync.replicas": "1"}, replicas=(1,), in_sync=(1,)), brokers=1
            )
        ),
    )
    once = judge(config(), seen(database=database(lease=lease(crash_count=1))))

    assert [finding.severity for finding in idle] == [Severity.WARNING]
    assert [finding.severity for finding in waiting] == [Severity.ERROR]
    assert [finding.severity for finding in (*lone, *once)] == [Severity.NOTE] * 2


def test_a_name_that_anybody_wrote_is_quoted() -> None:
    """
    The command is copied by an administrator: a name must not become part of it.
    """
    name = "--all '; rm -rf ~"
    facts = seen(database=database(rows=rows(paused=(Paused(topic=name, reason="", seconds=1),))))
    (resume,) = judge(config(), facts)
    (create,) = judge(config(), seen(broker=kafka(TopicFacts(topic="a; rm -rf ~", exists=False))))

    assert shlex.split(resume.commands[0].text) == ["outbox-relay", "resume", "--", name]
    assert "--topic 'a; rm -rf ~' " in create.commands[0].text


def test_old_mysql_changes_its_tables_in_one_session_with_zero_dates() -> None:
    """
    8.0.13 to 8.0.23 refuse each ALTER TABLE for a default that the table has already.
    """
    facts = changed_table("mysql", indexes={})
    (old,) = judge(config("mysql"), seen(database=facts))
    new_server = server("mysql", version=(8, 0, 24))
    (new,) = judge(config("mysql"), seen(database=dataclasses.replace(facts, server=new_server)))

    assert [command.text.partition(" ")[0] for command in old.commands] == ["SET", "ALTER", "SET"]
    assert [command.text.partition(" ")[0] for command in new.commands] == ["ALTER"]


def test_every_setting_that_a_rule_looks_at_is_asked_for() -> None:
    """
    A rule over a setting that is never read would find nothing, for ever.
    """
    for backend in ("mysql", "postgresql"):
        used = {
            name for kind, _, names in SQL_SERVER_FAULTS for name in names if _same(kind, backend)
        }
        assert used <= set(settings_asked(backend))


def _same(kind: str, backend: str) -> bool:
    return (kind == "postgresql") == (backend == "postgresql")
