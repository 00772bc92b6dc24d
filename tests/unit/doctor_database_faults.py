"""
Faults of a database and its tables, each with the code that it has to be said by.
"""

from __future__ import annotations

from outbox_relay.config import Config
from outbox_relay.doctor.examine import Seen
from outbox_relay.doctor.facts import (
    Between,
    DatabaseFacts,
    DeadCount,
    Grant,
    IndexFacts,
    OpenTransaction,
    Paused,
    Right,
    Unreachable,
)
from outbox_relay.schema import SCHEMA_VERSION
from tests.unit.doctor_facts import (
    NAMES,
    changed_column,
    changed_table,
    changed_tables,
    config,
    database,
    healthy_tables,
    lease,
    rights,
    rows,
    seen,
    server,
)

OF_DATABASES: list[tuple[str, Config, Seen]] = [
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
    ("tables-blocked", config(), seen(database=database(silent=("the rows",)))),
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
]
