"""Findings about the settings of the database's server: a table of what each must be, and why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from outbox_relay.config import Config
from outbox_relay.doctor.catalogue import found
from outbox_relay.doctor.facts import ServerFacts, Setting
from outbox_relay.doctor.findings import Command, Finding, sql

ROW_OVERHEAD_BYTES: Final = 65_536
"""What a row has besides its payload, at most, with room for the protocol."""

WAIT_SECONDS: Final = 60
_ON: Final = ("1", "ON", "on")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """
    What `setting` must be. `is_wrong` sees its value and the server; `value` is what mends it.

    `applies` says whether the setting means anything here. `restart` where the server takes it at its
    start only. `mend` is said instead of where to set it; `first` is run before.
    """

    code: str
    setting: str
    is_wrong: Callable[[str, ServerFacts], bool]
    value: str
    applies: Callable[[ServerFacts], bool] = lambda _: True
    restart: bool = False
    mend: str = ""
    first: tuple[Command, ...] = ()


def _always(server: ServerFacts) -> bool:
    return True


def _has_old_name(server: ServerFacts) -> bool:
    return server.value("transaction_isolation") is None


def _logs(server: ServerFacts) -> bool:
    return server.value("log_bin") in _ON


def _waits_after_commit(value: str, server: ServerFacts) -> bool:
    return value.upper() == "AFTER_COMMIT"


def _semi_sync(server: ServerFacts) -> bool:
    return any(
        server.value(name) in _ON
        for name in ("rpl_semi_sync_master_enabled", "rpl_semi_sync_source_enabled")
    )


MYSQL: Final = (
    Wanted(
        code="binlog-format",
        setting="binlog_format",
        is_wrong=lambda value, _: value.upper() == "STATEMENT",
        value="'ROW'",
        applies=_logs,
    ),
    Wanted(
        code="binlog-row-image",
        setting="binlog_row_image",
        is_wrong=lambda value, _: value.upper() in ("MINIMAL", "NOBLOB"),
        value="'FULL'",
        applies=_logs,
    ),
    Wanted(
        code="binlog-not-synced",
        setting="sync_binlog",
        is_wrong=lambda value, _: value != "1",
        value="1",
        applies=_logs,
    ),
    Wanted(
        code="commit-not-flushed",
        setting="innodb_flush_log_at_trx_commit",
        # 3 of MariaDB flushes too.
        is_wrong=lambda value, _: value not in ("1", "3"),
        value="1",
    ),
    *(
        Wanted(
            code="semi-sync-after-commit",
            setting=name,
            is_wrong=_waits_after_commit,
            value="'AFTER_SYNC'",
            applies=_semi_sync,
        )
        for name in ("rpl_semi_sync_master_wait_point", "rpl_semi_sync_source_wait_point")
    ),
    *(
        Wanted(
            code="isolation",
            setting=name,
            is_wrong=lambda value, _: value.upper() in ("SERIALIZABLE", "READ-UNCOMMITTED"),
            value="'READ-COMMITTED'",
            applies=applies,
        )
        # The newer MariaDB knows it by both names.
        for name, applies in (("transaction_isolation", _always), ("tx_isolation", _has_old_name))
    ),
    Wanted(
        code="idle-timeout",
        setting="wait_timeout",
        is_wrong=lambda value, _: int(value) < WAIT_SECONDS,
        value="28800",
    ),
    Wanted(
        code="statement-timeout",
        setting="max_statement_time",
        is_wrong=lambda value, _: 0 < float(value) < 1,
        value="0",
    ),
    Wanted(
        code="statement-timeout",
        setting="max_execution_time",
        is_wrong=lambda value, _: 0 < int(value) < 1000,
        value="0",
    ),
)

POSTGRESQL: Final = (
    Wanted(
        code="server-only-reads",
        setting="default_transaction_read_only",
        is_wrong=lambda value, _: value == "on",
        value="off",
        mend="A hosted server is set so when its disk is full: make room first. Then let it write where "
        "the setting comes from; sessions that begin afterwards do.",
        # Else the statement that mends it is refused too.
        first=sql("SET default_transaction_read_only = off"),
    ),
    Wanted(code="fsync-off", setting="fsync", is_wrong=lambda value, _: value == "off", value="on"),
    Wanted(
        code="commit-not-flushed",
        setting="synchronous_commit",
        is_wrong=lambda value, server: (
            value == "off"
            # A standby that is asked for and not waited for.
            or (value == "local" and bool(server.value("synchronous_standby_names")))
        ),
        value="on",
    ),
    Wanted(
        code="isolation",
        setting="default_transaction_isolation",
        is_wrong=lambda value, _: value in ("serializable", "repeatable read"),
        value="'read committed'",
    ),
    Wanted(
        code="statement-timeout",
        setting="statement_timeout",
        is_wrong=lambda value, _: 0 < int(value) < 1000,
        value="0",
    ),
    Wanted(
        code="autovacuum-off",
        setting="autovacuum",
        is_wrong=lambda value, _: value == "off",
        value="on",
    ),
)


def of_settings(server: ServerFacts, config: Config) -> list[Finding]:
    """What the server is set to, and should not be."""
    if server.backend == "sqlite":
        return []
    wanted = POSTGRESQL if server.backend == "postgresql" else MYSQL
    found_ = [finding for rule in wanted for finding in _judge(rule, server)]
    if server.backend == "postgresql":
        return [*found_, *_idle_sessions(server, config)]
    return [
        *found_,
        *_packet(server, config),
        *_escapes(server),
        *_bulk_inserts(server),
    ]


_HOW_TO_SET: Final = {
    True: "Set it where it comes from; sessions that begin afterwards have it.",
    False: "Set it now, and in the server's configuration, else it is gone at the next start.",
}


def _judge(rule: Wanted, server: ServerFacts) -> Iterator[Finding]:
    setting = server.settings.get(rule.setting)
    if setting is None or not rule.applies(server) or not rule.is_wrong(setting.value, server):
        return
    yield found(
        rule.code,
        f"{rule.setting} = {setting.value}{_origin(setting)}",
        rule.mend or _HOW_TO_SET[server.backend == "postgresql"],
        (*rule.first, *_set(server, rule.setting, rule.value)),
    )


def _origin(setting: Setting) -> str:
    return f" (from the {setting.source})" if setting.source else ""


def _set(server: ServerFacts, name: str, value: str) -> tuple[Command, ...]:
    """The statements that set *name*, where PostgreSQL has it from."""
    if server.backend != "postgresql":
        return sql(f"SET GLOBAL {name} = {value}")
    user, database = server.value("current_user"), server.value("current_database")
    match server.settings[name].source:
        case "database":
            return sql(f"ALTER DATABASE {database} SET {name} = {value}")
        case "user":
            return sql(f"ALTER ROLE {user} SET {name} = {value}")
        case "database user":
            return sql(f"ALTER ROLE {user} IN DATABASE {database} SET {name} = {value}")
    return sql(f"ALTER SYSTEM SET {name} = {value}", "SELECT pg_reload_conf()")


def _idle_sessions(server: ServerFacts, config: Config) -> Iterator[Finding]:
    value = server.value("idle_session_timeout")
    needed = config.relay.sample_seconds
    if value is not None and 0 < int(value) <= 1000 * needed:
        yield found(
            "idle-timeout",
            f"idle_session_timeout = {int(value) / 1000:g} s; relay.sample_seconds = {needed:g}",
            "Let sessions idle for longer than the relay does.",
            _set(server, "idle_session_timeout", "0"),
        )


def largest_payload(config: Config) -> int:
    """The largest payload that can be published at all: others become dead letters."""
    options = getattr(config, config.broker.section)
    limits = [config.relay.max_payload_bytes]
    limits += [
        getattr(options, name)
        for name in ("max_request_bytes", "max_record_bytes")
        if hasattr(options, name)
    ]
    return min(limits)


def _packet(server: ServerFacts, config: Config) -> Iterator[Finding]:
    value = server.value("max_allowed_packet")
    needed = largest_payload(config) + ROW_OVERHEAD_BYTES
    if value is None or int(value) >= needed:
        return
    if int(value) == 16 * 1024 * 1024 <= largest_payload(config) + 1:
        # MariaDB's own default against a broker without a limit of its own: only the very largest.
        return
    wanted = 1024 * -(-needed // 1024)
    yield found(
        "packet-too-small",
        f"max_allowed_packet = {value}, and events of up to {largest_payload(config)} bytes can be "
        "published",
        "Allow larger packets (and write it into the server's configuration); connections that are "
        "open keep the old value.",
        sql(f"SET GLOBAL max_allowed_packet = {wanted}"),
    )


def _escapes(server: ServerFacts) -> Iterator[Finding]:
    mode = server.value("sql_mode")
    if mode is None or "NO_BACKSLASH_ESCAPES" not in mode:
        return
    rest = ",".join(part for part in mode.split(",") if part != "NO_BACKSLASH_ESCAPES")
    yield found(
        "backslash-escapes",
        f"sql_mode = {mode}",
        "Leave it out for the sessions of applications that write events; for all of them:",
        sql(f"SET GLOBAL sql_mode = '{rest}'"),
    )


def _bulk_inserts(server: ServerFacts) -> Iterator[Finding]:
    if server.value("innodb_autoinc_lock_mode") != "2" or not server.bulk_inserts:
        return
    yield found(
        "ids-without-lock",
        f"innodb_autoinc_lock_mode = 2, and the server remembers {server.bulk_inserts} INSERT ... "
        "SELECT into the outbox",
        "Insert in portions of a thousand rows, or write innodb_autoinc_lock_mode = 1 into the "
        "server's configuration and restart it. Then let the server forget what it remembers:",
        sql("TRUNCATE TABLE performance_schema.events_statements_summary_by_digest"),
    )


def settings_asked(backend: str) -> Sequence[str]:
    """The names that the rules look at."""
    rules = POSTGRESQL if backend == "postgresql" else MYSQL
    others = (
        ("synchronous_standby_names", "idle_session_timeout", "max_connections")
        if backend == "postgresql"
        else (
            "log_bin",
            "rpl_semi_sync_master_enabled",
            "rpl_semi_sync_source_enabled",
            "max_allowed_packet",
            "sql_mode",
            "innodb_autoinc_lock_mode",
            "max_connections",
        )
    )
    return sorted({*(rule.setting for rule in rules), *others})
