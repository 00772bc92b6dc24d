"""Findings about the database's server: whether it answers, and as whom."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from outbox_relay.config import Config
from outbox_relay.doctor.catalogue import found
from outbox_relay.doctor.facts import (
    THE_LEASE,
    THE_ROWS,
    THE_SERVER,
    THE_TABLES,
    Between,
    DatabaseFacts,
    Grant,
    RightsFacts,
    ServerFacts,
    Unreachable,
)
from outbox_relay.doctor.findings import Finding, sql, toml

OLDEST: Final = {
    "mariadb": (10, 6),
    "mysql": (8, 0, 13),
    "postgresql": (13,),
    "sqlite": (3, 31),
}
"""The oldest releases that are served."""

_NAMES: Final = {
    "mariadb": "MariaDB",
    "mysql": "MySQL",
    "postgresql": "PostgreSQL",
    "sqlite": "SQLite",
}
SKEW_SECONDS: Final = 2.0
SCARCE_SHARE: Final = 0.85
LONG_SECONDS: Final = 60.0
_UNREACHABLE: Final = {
    "away": "database-unreachable",
    "login": "database-login-refused",
    "tls": "database-tls-refused",
    "missing": "database-missing",
}

HARMLESS: Final = frozenset(
    {
        "USAGE",
        "PROCESS",
        "REPLICATION CLIENT",
        "BINLOG MONITOR",
        "SLAVE MONITOR",
        "REPLICA MONITOR",
        "SHOW DATABASES",
        "CONNECT",
    }
)
"""Rights that only let their user look; `doctor` itself sees more with them."""


def of_unreachable(facts: Unreachable) -> Finding:
    """Why nothing of the database could be looked at."""
    return found(_UNREACHABLE[facts.kind], facts.what, facts.mend)


def of_silence(facts: DatabaseFacts) -> list[Finding]:
    """The server takes connections, and does not answer what is asked of it."""
    if facts.server is None:
        if THE_SERVER not in facts.silent:
            return []
        what = "it takes the connection and answers no question in time"
        return [found("database-unreachable", what, "Look at its load, its disk, and its log.")]
    about = [what for what in (THE_TABLES, THE_LEASE, THE_ROWS) if what in facts.silent]
    if not about:
        return []
    return [
        found(
            "tables-blocked",
            f"the server answers, and what is asked of {', '.join(about)} is not answered in time",
            "Find who holds a lock, or what keeps the server busy, and end it (KILL, or "
            "pg_terminate_backend); as a user who sees all sessions:",
            sql(_SESSIONS[facts.backend]) if facts.backend in _SESSIONS else (),
        )
    ]


_ON_MYSQL: Final = (
    "SELECT id, user, host, command, time, state, LEFT(info, 80) AS statement "
    "FROM information_schema.processlist ORDER BY time DESC"
)
_SESSIONS: Final = {
    "mariadb": _ON_MYSQL,
    "mysql": _ON_MYSQL,
    "postgresql": "SELECT pid, usename, state, now() - xact_start AS since, left(query, 80) AS statement, "
    "pg_blocking_pids(pid) AS waits_for FROM pg_stat_activity WHERE xact_start IS NOT NULL "
    "ORDER BY xact_start",
}


def of_server(server: ServerFacts, config: Config) -> list[Finding]:
    """Release, role, clock, connections, and what is in between."""
    return [
        *_version(server),
        *_role(server),
        *_clock(server),
        *_connections(server),
        *_between(server.between, config),
        *_transactions(server),
    ]


def _version(server: ServerFacts) -> Iterator[Finding]:
    oldest = OLDEST[server.backend]
    if server.version < oldest:
        name, wanted = _NAMES[server.backend], ".".join(str(part) for part in oldest)
        yield found(
            "server-too-old",
            f"{name} {server.version_text}; {wanted} is the oldest that is served",
            f"Upgrade the server to {name} {wanted} or later.",
        )


def _role(server: ServerFacts) -> Iterator[Finding]:
    if not server.only_reads:
        return
    if server.backend == "postgresql":
        yield found(
            "server-only-reads",
            "the server is in recovery: it is a standby",
            "Name the primary in database.url; if this is to be the primary, promote it.",
            sql("SELECT pg_promote()"),
        )
    else:
        yield found(
            "server-only-reads",
            "the server's read_only is ON",
            "Name the primary in database.url; if this is to be the primary, let it write.",
            sql("SET GLOBAL read_only = OFF"),
        )


_INIT_CONNECT: Final = " A session's `timestamp`, as init_connect may set it, counts too."


def _clock(server: ServerFacts) -> Iterator[Finding]:
    skew = server.skew_seconds
    if skew is None or abs(skew) <= SKEW_SECONDS:
        return
    yield found(
        "clock-skew",
        f"the database's clock is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} this "
        "machine's",
        "Let NTP (chrony, systemd-timesyncd) set the clocks of both machines; `chronyc tracking` says "
        f"which one is wrong.{_INIT_CONNECT if server.backend in ('mariadb', 'mysql') else ''}",
    )


def _connections(server: ServerFacts) -> Iterator[Finding]:
    most = server.value("max_connections")
    if server.connections is None or most is None:
        return
    if server.connections <= SCARCE_SHARE * int(most):
        return
    wanted = max(2 * int(most), 2 * server.connections)
    what = f"{server.connections} of {most} connections are taken"
    if server.backend == "postgresql":
        yield found(
            "connections-scarce",
            what,
            "Allow more, which needs a restart, or put a pooler before the applications.",
            sql(f"ALTER SYSTEM SET max_connections = {wanted}"),
        )
    else:
        yield found(
            "connections-scarce",
            what,
            "Allow more (and write it into the server's configuration), or let applications keep "
            "smaller pools.",
            sql(f"SET GLOBAL max_connections = {wanted}"),
        )


def _between(between: Between, config: Config) -> Iterator[Finding]:
    pooled = config.database.transaction_pooler
    if config.database.url.startswith("postgresql"):
        if between.shares_connections and not pooled:
            yield found(
                "pooler-mode",
                "a pooler gives each transaction another connection of the server's",
                "Tell the relay, or lead it past the pooler.",
                toml("[database]", "transaction_pooler = true"),
            )
        elif pooled and not between.greeted_by_another:
            yield found(
                "pooler-setting-needless",
                "database.transaction_pooler = true, and the server itself answers",
                "Leave the setting out.",
                toml("[database]", "transaction_pooler = false"),
            )
    elif between.greeted_by_another or between.product:
        yield found(
            "proxy-between",
            f"{between.product or 'a proxy'} answers before the server does",
            "Lead the relay's user to the primary only: no splitting of reads, no sharing of "
            "connections (ProxySQL: mysql_users.transaction_persistent = 1 and no query rule for its "
            "user; MaxScale: readconnroute with router_options=master).",
        )


def _transactions(server: ServerFacts) -> Iterator[Finding]:
    is_postgresql = server.backend == "postgresql"
    for open_ in server.transactions or ():
        if open_.seconds < LONG_SECONDS:
            continue
        if open_.is_prepared:
            what = f"the prepared transaction {open_.name!r} of {open_.user}"
            command = sql("ROLLBACK PREPARED '{}'".format(open_.name.replace("'", "''")))
            mend = "Let its owner commit it or roll it back; by hand this throws its changes away:"
        else:
            origin = f" from {open_.origin}" if open_.origin else ""
            what = f"the transaction of {open_.user}{origin} (connection {open_.name})"
            call = f"SELECT pg_terminate_backend({open_.name})"
            command = sql(call if is_postgresql else f"KILL {open_.name}")
            mend = "Let its program commit; if it does not, this ends it and rolls it back:"
        yield found(
            "long-transaction",
            f"{what} is open for {open_.seconds:.0f} s",
            mend,
            command,
        )


def of_rights(facts: RightsFacts, server: ServerFacts | None) -> list[Finding]:
    """What the relay's user may not, and what it may without need."""
    is_postgresql = server is not None and server.backend == "postgresql"
    return [*_missing_rights(facts), *_needless_rights(facts, is_postgresql=is_postgresql)]


def _missing_rights(facts: RightsFacts) -> Iterator[Finding]:
    for table in dict.fromkeys(right.table for right in facts.rights):
        names = [r.name for r in facts.rights if r.table == table and not r.granted]
        if names:
            yield found(
                "rights-missing",
                f"{facts.user} may not {', '.join(names)} on {table}",
                "Grant it, as a user who may:",
                sql(f"GRANT {', '.join(names)} ON {table} TO {facts.user}"),
            )


def _needless_rights(facts: RightsFacts, *, is_postgresql: bool) -> Iterator[Finding]:
    needed = _needed(facts)
    if facts.is_superuser:
        yield found(
            "rights-needless",
            f"{facts.user} is a superuser",
            "Let the relay log in as a user of its own, with these rights alone:",
            sql(*needed),
        )
        return
    if facts.owns:
        yield found(
            "rights-needless",
            f"{facts.user} owns {', '.join(facts.owns)}: it may change and drop them",
            "Give the tables to whoever migrates, and the relay its rights:",
            sql(*(f"ALTER TABLE {table} OWNER TO CURRENT_USER" for table in facts.owns), *needed),
        )
    for grant in facts.grants:
        names = sorted(grant.names - HARMLESS)
        if not names:
            continue
        # The rights on the tables first: nothing is refused in between.
        again = () if is_postgresql or grant.covers == "table" else needed
        yield found(
            "rights-needless",
            f"{facts.user} has {', '.join(names)} on {grant.target}",
            "Take them away; what the relay needs stays, or is given for its tables:",
            sql(*again, f"REVOKE {', '.join(names)} ON {grant.target} FROM {facts.user}"),
        )


def _needed(facts: RightsFacts) -> list[str]:
    tables: dict[str, list[str]] = {}
    for right in facts.rights:
        tables.setdefault(right.table, []).append(right.name)
    return [
        f"GRANT {', '.join(names)} ON {table} TO {facts.user}" for table, names in tables.items()
    ]


def grants_beyond(
    grants: tuple[Grant, ...], needed: dict[str, frozenset[str]]
) -> tuple[Grant, ...]:
    """
    Of *grants*, what goes beyond the rights that are *needed* on each table, by its target.

    >>> grants_beyond((Grant(target="t", names=frozenset({"SELECT", "DROP"}), covers="table"),),
    ...               {"t": frozenset({"SELECT"})})[0].names
    frozenset({'DROP'})
    """
    found_: list[Grant] = []
    for grant in grants:
        names = grant.names - HARMLESS
        if grant.covers == "table":
            names -= needed.get(grant.target, frozenset())
        if names:
            found_.append(Grant(target=grant.target, names=names, covers=grant.covers))
    return tuple(found_)
