"""
`doctor`: what follows from which facts. No server, no file, no clock.
"""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any

import pytest

from outbox_relay.cli.doctor import together
from outbox_relay.config import Config
from outbox_relay.doctor import Area, Severity, invalid
from outbox_relay.doctor.catalogue import KINDS
from outbox_relay.doctor.examine import Seen, judge
from outbox_relay.doctor.facts import (
    AmqpFacts,
    DatabaseFacts,
    IndexFacts,
    JsonlFacts,
    OpenTransaction,
    Paused,
    RedisFacts,
    Setting,
    TopicFacts,
)
from outbox_relay.doctor.rules.settings import settings_asked
from outbox_relay.errors import ConfigError
from tests.unit.doctor_database_faults import OF_DATABASES
from tests.unit.doctor_facts import (
    NAMES,
    URLS,
    changed_column,
    changed_table,
    codes,
    config,
    database,
    kafka,
    lease,
    rows,
    seen,
    server,
    topic,
)
from tests.unit.doctor_other_faults import OF_BROKERS, OF_SETTINGS


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


ALONE = [*OF_DATABASES, *OF_BROKERS, *OF_SETTINGS]


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
    assert [finding.severity for finding in lone] == [Severity.NOTE]
    assert once == []


def test_who_relayed_last_is_named() -> None:
    """
    There somebody looks first: at its log, and whether it hangs.
    """
    gone = lease(owners={}, last_owner="pod-7", ended_seconds=44.0)
    [finding] = judge(config(), seen(database=database(lease=gone, rows=rows(pending=3))))

    assert finding.what == "nobody holds the lease; 3 events wait; pod-7 had it, until 44 s ago"


def test_a_server_that_says_nothing_is_not_called_well() -> None:
    """
    It took the connection: without rows and tables nothing is known, and that is an error.
    """
    mute = judge(config(), seen(database=database(server=None, silent=("the server",))))
    locked = judge(
        config(),
        seen(database=database(tables=None, lease=None, rows=None, silent=("the tables",))),
    )

    assert [finding.code for finding in mute] == ["database-unreachable"]
    assert [finding.code for finding in locked] == ["tables-blocked"]


def test_topics_that_lack_the_same_broker_are_told_together() -> None:
    """
    On the screen; a program gets each of them. The worst comes first, whatever its area.
    """
    topics = [topic(topic=f"t{number}", leaderless=(1,), away=(2,)) for number in range(7)]
    found = judge(
        config(),
        seen(
            broker=kafka(*topics),
            database=database(rows=rows(paused=(Paused(topic="x", reason="", seconds=1),))),
        ),
    )
    shown = together(found)

    assert [(len(alike), alike[0].code) for alike in shown] == [
        (7, "topic-without-leader"),
        (1, "topic-paused"),
    ]
    assert shown[0][0].mend == "Start broker 2, which holds replicas and is away."
    assert shown[0][0].what == "topic t0: 1 of 2 partitions has no leader: number 1"


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
