"""The database's server: what it is, how it is set, who holds it up, what stands between."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from outbox_relay.doctor.facts import Backend, Between, OpenTransaction, ServerFacts, Setting
from outbox_relay.doctor.findings import Area, Skipped
from outbox_relay.doctor.look.connection import Questions, let_go
from outbox_relay.doctor.rules.settings import settings_asked

_NUMBER: Final = re.compile(r"\d+(?:\.\d+)*")
_MICROSECONDS: Final = {
    "mysql": "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))",
    "mariadb": "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))",
    "postgresql": "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint",
}
_OPEN_ON_MYSQL: Final = (
    "SELECT t.trx_mysql_thread_id, TIMESTAMPDIFF(MICROSECOND, t.trx_started, SYSDATE(6)) / 1e6, p.USER, "
    "p.HOST "
    "FROM information_schema.INNODB_TRX t LEFT JOIN information_schema.PROCESSLIST p "
    "ON p.ID = t.trx_mysql_thread_id WHERE t.trx_mysql_thread_id <> 0 "
    "ORDER BY t.trx_started LIMIT 5"
)
_OPEN_ON_POSTGRESQL: Final = (
    "SELECT pid::text, EXTRACT(EPOCH FROM clock_timestamp() - xact_start)::float8, usename, "
    "COALESCE(NULLIF(application_name, ''), client_addr::text, ''), false FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid() "
    "AND xact_start IS NOT NULL UNION ALL "
    "SELECT gid, EXTRACT(EPOCH FROM clock_timestamp() - prepared)::float8, owner, '', true "
    "FROM pg_prepared_xacts WHERE database = current_database() "
    "ORDER BY 2 DESC LIMIT 5"
)
_HIDDEN_ON_POSTGRESQL: Final = (
    "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() "
    "AND backend_type IS NULL AND usename <> current_user"
)
_BULK: Final = (
    "SELECT COALESCE(SUM(COUNT_STAR), 0) FROM performance_schema.events_statements_summary_by_digest "
    "WHERE DIGEST_TEXT LIKE 'INSERT %%' AND DIGEST_TEXT LIKE '%% SELECT %%' AND DIGEST_TEXT REGEXP %s"
)


async def look_at_server(questions: Questions, *, table: str, url_backend: str) -> ServerFacts:
    """Raises Refused if it does not even say what it is."""
    if url_backend == "sqlite":
        ((text,),) = await questions.rows("SELECT sqlite_version()")
        return ServerFacts(backend="sqlite", version=numbers(text), version_text=text)
    if url_backend == "postgresql":
        server = await _postgresql(questions)
    else:
        server = await _mysql(questions, table)
    skew = await questions.ask("the clock", lambda: _skew(questions, server.backend))
    between = await questions.ask("what is in between", lambda: _between(questions, server))
    return replace(server, skew_seconds=skew, between=between or Between())


def numbers(text: str) -> tuple[int, ...]:
    """
    The numbers of a version.

    >>> numbers("10.11.14-MariaDB-0+deb12u2")
    (10, 11, 14)
    """
    found = _NUMBER.search(text)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def skew(asked_at: float, answered_at: float, server_at: float) -> float:
    """
    How far the server is ahead, as far as that is sure: it may have answered at any time in between.

    >>> skew(10.0, 11.0, 10.4), skew(10.0, 11.0, 13.0), skew(10.0, 11.0, 5.0)
    (0.0, 2.0, -5.0)
    """
    return max(0.0, server_at - answered_at) + min(0.0, server_at - asked_at)


async def _skew(questions: Questions, backend: Backend) -> float:
    asked_at = time.time()
    ((micros,),) = await questions.rows(_MICROSECONDS[backend])
    return skew(asked_at, time.time(), int(micros) / 1e6)


async def _mysql(questions: Questions, table: str) -> ServerFacts:
    ((text, comment),) = await questions.rows("SELECT VERSION(), @@version_comment")
    backend: Backend = "mariadb" if "mariadb" in f"{text} {comment}".lower() else "mysql"
    names = ", ".join(f"'{name}'" for name in settings_asked(backend))
    rows = await questions.rows(f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})")
    settings = {name: Setting(value=value) for name, value in rows}
    ((only_reads,),) = await questions.rows("SELECT @@global.read_only")
    ((_, connections),) = await questions.rows("SHOW GLOBAL STATUS LIKE 'Threads_connected'")
    return ServerFacts(
        backend=backend,
        version=numbers(text),
        version_text=text,
        settings=settings,
        only_reads=bool(only_reads),
        connections=int(connections),
        transactions=await questions.ask(
            "long transactions",
            lambda: _open_on_mysql(questions),
            needs="the right PROCESS",
        ),
        bulk_inserts=await _bulk_inserts(questions, table, settings),
    )


async def _open_on_mysql(questions: Questions) -> tuple[OpenTransaction, ...]:
    return tuple(
        OpenTransaction(
            name=str(number), seconds=float(seconds), user=user or "?", origin=host or ""
        )
        for number, seconds, user, host in await questions.rows(_OPEN_ON_MYSQL)
    )


async def _bulk_inserts(
    questions: Questions, table: str, settings: Mapping[str, Setting]
) -> int | None:
    mode = settings.get("innodb_autoinc_lock_mode")
    if mode is None or mode.value != "2":
        return None
    pattern = f"^INSERT (IGNORE )?INTO (`[^`]+` ?\\. ?)?`{table.replace('$', '[$]')}` "

    async def ask() -> int:
        ((count,),) = await questions.rows(_BULK, (pattern,))
        return int(count)

    found: int | None = await questions.ask(
        "INSERT ... SELECT into the outbox, which matters with innodb_autoinc_lock_mode = 2",
        ask,
        needs="SELECT on performance_schema.events_statements_summary_by_digest",
    )
    return found


async def _postgresql(questions: Questions) -> ServerFacts:
    names = ", ".join(f"'{name}'" for name in settings_asked("postgresql"))
    rows = await questions.rows(
        f"SELECT name, setting, source FROM pg_settings WHERE name IN ({names})"
    )
    settings = {name: Setting(value=value, source=source) for name, value, source in rows}
    ((text, recovering, user, database, count, hidden),) = await questions.rows(
        "SELECT current_setting('server_version'), pg_is_in_recovery(), quote_ident(current_user), "
        "quote_ident(current_database()), (SELECT COUNT(*) FROM pg_stat_activity WHERE datid IS NOT NULL), "
        f"({_HIDDEN_ON_POSTGRESQL})"
    )
    settings["current_user"] = Setting(value=user)
    settings["current_database"] = Setting(value=database)
    if hidden:
        questions.skipped.append(
            Skipped(
                area=Area.DATABASE,
                what="transactions of other users, but for prepared ones",
                needs=f"GRANT pg_read_all_stats TO {user}",
            )
        )
    return ServerFacts(
        backend="postgresql",
        version=numbers(text),
        version_text=text,
        settings=settings,
        only_reads=bool(recovering),
        connections=int(count),
        transactions=await questions.ask("long transactions", lambda: _open(questions)),
    )


async def _open(questions: Questions) -> tuple[OpenTransaction, ...]:
    return tuple(
        OpenTransaction(
            name=name, seconds=seconds, user=user or "?", origin=origin, is_prepared=prepared
        )
        for name, seconds, user, origin, prepared in await questions.rows(_OPEN_ON_POSTGRESQL)
    )


async def _between(questions: Questions, server: ServerFacts) -> Between:
    if server.backend == "postgresql":
        found: Between = await questions.within(lambda first: _pooler(questions, first))
        return found
    ((answering, comment),) = await questions.rows("SELECT CONNECTION_ID(), @@version_comment")
    greeted = await questions.within(_greeted_on_mysql)
    product = next(
        (
            name
            for name in ("ProxySQL", "MaxScale")
            if name.lower() in f"{comment} {server.version_text}".lower()
        ),
        "",
    )
    # The greeting has room for 32 bits of the number.
    is_another = greeted != int(answering) % 2**32
    return Between(greeted_by_another=is_another, product=product)


async def _greeted_on_mysql(connection: AsyncConnection) -> int:
    raw = await connection.get_raw_connection()
    driver: Any = raw.driver_connection
    return int(driver.thread_id())


async def _pooler(questions: Questions, first: AsyncConnection) -> Between:
    """
    Whether somebody else greeted us, and whether our connections meet on one of the server's.

    A pooler that gives each transaction a connection gives the next one the connection that was given
    back last, or all of them in turn: either way one of these questions shows it.
    """
    raw = await first.get_raw_connection()
    driver: Any = raw.driver_connection
    greeted = int(driver.get_server_pid())
    before = await _backend(first)
    if before == greeted:
        return Between()
    second = await questions.open()
    try:
        await second.execution_options(isolation_level="READ COMMITTED")
        beside = await _backend(second)  # its transaction stays open
        after = await _backend(first)
    finally:
        await let_go(second)
    return Between(
        greeted_by_another=True, shares_connections=before != after or beside in (before, after)
    )


async def _backend(connection: AsyncConnection) -> int:
    return int((await connection.exec_driver_sql("SELECT pg_backend_pid()")).scalar_one())
