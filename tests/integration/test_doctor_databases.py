"""
`doctor` on real databases: each planted fault is found, alone, and its own commands mend it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from outbox_relay.doctor import Area, Severity
from outbox_relay.doctor.rules import server as server_rules
from outbox_relay.doctor.rules import tables as table_rules
from outbox_relay.migrate import sql_script
from tests.contract.adopted import create_adopted
from tests.integration.doctoring import GRANTS, Site, planted

MYSQLS = ("mariadb", "mysql")
SERVERS = (*MYSQLS, "postgresql")


@pytest.fixture(scope="module")
def sites() -> dict[str, Site]:
    """One for each kind of server; a fault that is mended leaves it as it was."""
    return {}


@pytest.fixture
async def site(request: pytest.FixtureRequest, sites: dict[str, Site]) -> Site:
    kind = request.param
    if kind not in sites:
        sites[kind] = Site(kind, request.getfixturevalue(kind))
        assert (await sites[kind].doctor()).codes == frozenset()
    return sites[kind]


def on(*kinds: str) -> Any:
    return pytest.mark.parametrize("site", kinds, indirect=True)


SETTINGS_OF_MYSQL = {
    "binlog-not-synced": "SET GLOBAL sync_binlog = 0",
    "commit-not-flushed": "SET GLOBAL innodb_flush_log_at_trx_commit = 2",
    "binlog-format": "SET GLOBAL binlog_format = 'STATEMENT'",
    "binlog-row-image": "SET GLOBAL binlog_row_image = 'MINIMAL'",
    "isolation": "SET GLOBAL TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "idle-timeout": "SET GLOBAL wait_timeout = 30",
    "packet-too-small": "SET GLOBAL max_allowed_packet = 65536",
    "backslash-escapes": "SET GLOBAL sql_mode = CONCAT(@@GLOBAL.sql_mode, ',NO_BACKSLASH_ESCAPES')",
    "server-only-reads": "SET GLOBAL read_only = ON",
}


def globals_of(site: Site, *names: str) -> list[str]:
    """The statements that set them back: what mends a fault is not what was there before."""
    chosen = ", ".join(f"@@GLOBAL.{name}" for name in names)
    with site.connection() as root, root.cursor() as cursor:
        cursor.execute(f"SELECT {chosen}")
        (values,) = cursor.fetchall()
    return [f"SET GLOBAL {name} = {value!r}" for name, value in zip(names, values, strict=True)]


@pytest.fixture
def as_before(site: Site) -> Iterator[None]:
    """Other tests use these servers too."""
    if site.is_postgresql:
        yield
        return
    isolation = "tx_isolation" if site.kind == "mariadb" else "transaction_isolation"
    names = ("sync_binlog", "innodb_flush_log_at_trx_commit", "binlog_format", "wait_timeout")
    back = globals_of(
        site,
        *names,
        "binlog_row_image",
        "max_allowed_packet",
        "sql_mode",
        "max_connections",
        isolation,
    )
    yield
    site.root(*back)


@on(*MYSQLS)
@pytest.mark.usefixtures("as_before")
async def test_settings_of_mysql_are_found_and_their_commands_mend_them(site: Site) -> None:
    """
    Nine at once: each has its finding and its statement.
    """
    found = await planted(site, SETTINGS_OF_MYSQL, list(SETTINGS_OF_MYSQL.values()))

    assert len(found.findings) == len(SETTINGS_OF_MYSQL)


OF_MYSQL = {
    "index-missing": ["ALTER TABLE outbox DROP INDEX outbox_pending_ix"],
    "index-shape": [
        "ALTER TABLE outbox DROP INDEX outbox_pending_ix",
        "CREATE INDEX outbox_pending_ix ON outbox (status)",
    ],
    "column-shape": ["ALTER TABLE outbox MODIFY COLUMN payload BLOB NOT NULL"],
    "table-incomplete": ["ALTER TABLE outbox DROP COLUMN content_type"],
    "lane-column": [
        "ALTER TABLE outbox DROP INDEX outbox_pending_ix",
        "ALTER TABLE outbox DROP COLUMN lane",
        "ALTER TABLE outbox ADD COLUMN lane TINYINT",
        "CREATE INDEX outbox_pending_ix ON outbox (status, id, lane)",
    ],
    "table-engine": ["ALTER TABLE outbox ENGINE = MyISAM"],
    "table-collation": [
        "ALTER TABLE outbox CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"
    ],
}


@on(*MYSQLS)
@pytest.mark.parametrize("code", OF_MYSQL)
async def test_a_fault_of_mysql_is_found_alone_and_its_commands_mend_it(
    site: Site, code: str
) -> None:
    """
    Table, index and columns of MariaDB and MySQL.
    """
    await planted(site, {code}, OF_MYSQL[code])


@on("mariadb")
async def test_a_replica_that_is_waited_for_too_late(site: Site) -> None:
    """
    AFTER_COMMIT: a commit is seen before any replica has it.
    """
    site.root("SET GLOBAL rpl_semi_sync_master_wait_no_slave = OFF")
    faults = [
        "SET GLOBAL rpl_semi_sync_master_enabled = ON",
        "SET GLOBAL rpl_semi_sync_master_wait_point = 'AFTER_COMMIT'",
    ]
    try:
        await planted(site, {"semi-sync-after-commit"}, faults)
    finally:
        site.root(
            "SET GLOBAL rpl_semi_sync_master_enabled = OFF",
            "SET GLOBAL rpl_semi_sync_master_wait_no_slave = ON",
        )


@on(*MYSQLS)
async def test_statements_that_the_server_ends_too_soon(site: Site) -> None:
    """
    MariaDB's and MySQL's limits have different names and units.
    """
    fault = "max_statement_time = 0.5" if site.kind == "mariadb" else "max_execution_time = 500"
    await planted(site, {"statement-timeout"}, [f"SET GLOBAL {fault}"])


@on(*MYSQLS)
async def test_a_clock_that_is_ahead(site: Site) -> None:
    """
    The clock as the relay's session sees it.
    """
    site.root("SET GLOBAL init_connect = 'SET timestamp = UNIX_TIMESTAMP() + 60'")
    try:
        found = await site.doctor()
    finally:
        site.root("SET GLOBAL init_connect = ''")

    assert found.codes == {"clock-skew"}
    assert re.search(r"5\d\.\d s ahead", found.findings[0].what)
    assert (await site.doctor()).codes == frozenset()


@on("mysql")
async def test_ids_that_no_read_can_see(site: Site) -> None:
    """
    INSERT ... SELECT into the outbox, where ids are given out without a lock, and the user may know.
    """
    digests = "performance_schema.events_statements_summary_by_digest"
    site.root(f"GRANT SELECT ON {digests} TO {site.who}", f"TRUNCATE TABLE {digests}")
    insert = (
        "INSERT INTO outbox (event_name, topic, payload, status, produced_at) "
        "SELECT 'e', 'bulk', '{}', 1, UTC_TIMESTAMP(6) FROM outbox_lease LIMIT 1"
    )
    found = await planted(site, {"ids-without-lock"}, [insert])
    site.root(
        "DELETE FROM outbox WHERE topic = 'bulk'", f"REVOKE SELECT ON {digests} FROM {site.who}"
    )
    blind = await site.doctor()

    assert found.skipped == tuple(item for item in blind.skipped if "PROCESS" in item.needs)
    assert any("events_statements_summary_by_digest" in item.needs for item in blind.skipped)


SETTINGS_OF_POSTGRESQL = {
    "commit-not-flushed": "ALTER DATABASE {database} SET synchronous_commit = off",
    "isolation": "ALTER ROLE {user} SET default_transaction_isolation = 'serializable'",
    "statement-timeout": "ALTER ROLE {user} IN DATABASE {database} SET statement_timeout = 500",
    "idle-timeout": "ALTER DATABASE {database} SET idle_session_timeout = '10s'",
    "autovacuum-off": "ALTER SYSTEM SET autovacuum = off",
}


@on("postgresql")
async def test_settings_of_postgresql_are_found_and_mended_where_they_come_from(
    site: Site,
) -> None:
    """
    Of the database, the role, the role in the database, and the server's file.
    """
    names = {"database": site.database.name, "user": site.user}
    faults = [fault.format(**names) for fault in SETTINGS_OF_POSTGRESQL.values()]
    await planted(site, SETTINGS_OF_POSTGRESQL, [*faults, "SELECT pg_reload_conf()"])
    site.root("ALTER SYSTEM RESET autovacuum", "SELECT pg_reload_conf()")


OF_POSTGRESQL = {
    "autovacuum-off": ["ALTER TABLE outbox SET (autovacuum_enabled = false)"],
    "autovacuum-settings": ["ALTER TABLE outbox RESET (autovacuum_vacuum_scale_factor)"],
    "index-missing": ["DROP INDEX outbox_pending_ix"],
    "index-shape": [
        "DROP INDEX outbox_pending_ix",
        "CREATE INDEX outbox_pending_ix ON outbox (status, id, lane)",
    ],
    "column-shape": [
        "ALTER TABLE outbox ALTER COLUMN created_at DROP DEFAULT, ALTER COLUMN event_name TYPE "
        "varchar(100), ALTER COLUMN topic DROP NOT NULL"
    ],
    "table-incomplete": ["ALTER TABLE outbox DROP COLUMN content_type"],
    "lane-column": [
        "DROP INDEX outbox_pending_ix",
        "ALTER TABLE outbox DROP COLUMN lane",
        "ALTER TABLE outbox ADD COLUMN lane smallint",
        "CREATE INDEX outbox_pending_ix ON outbox (status, id, lane) WHERE status <> 1",
    ],
}


@on("postgresql")
@pytest.mark.parametrize("code", OF_POSTGRESQL)
async def test_a_fault_of_postgresql_is_found_alone_and_its_commands_mend_it(
    site: Site, code: str
) -> None:
    """
    Table, index and columns of PostgreSQL.
    """
    names = {"database": site.database.name, "user": site.user}
    await planted(site, {code}, [fault.format(**names) for fault in OF_POSTGRESQL[code]])


@on("postgresql")
async def test_an_index_that_was_never_finished(site: Site) -> None:
    """
    CREATE INDEX CONCURRENTLY that was cut off leaves an index that serves nobody.
    """
    await planted(
        site,
        {"index-missing"},
        [
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'outbox_pending_ix'::regclass",
        ],
    )


@on("postgresql")
async def test_dead_rows_that_pile_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Reads pass them; VACUUM clears them away.
    """
    monkeypatch.setattr(table_rules, "MOST_DEAD_ROWS", 1000)
    await planted(
        site,
        {"dead-rows"},
        [
            "INSERT INTO outbox (event_name, topic, payload, status) "
            "SELECT 'e', 'dead', '', 1 FROM generate_series(1, 3000)",
            "DELETE FROM outbox WHERE topic = 'dead'",
        ],
    )


EVERYWHERE = {
    "rights-missing": "REVOKE DELETE ON {begin}outbox FROM {who}",
    "lease-rows": "DELETE FROM outbox_lease WHERE lane IN (7, 70)",
    "purge-paused": "INSERT INTO outbox_control (topic, reason) VALUES ('@purge', 'backup')",
    "purge-behind": "INSERT INTO outbox (event_name, topic, payload, status, produced_at) "
    "VALUES ('e', 'orders', '', 1, '2020-01-01 00:00:00')",
}


@on(*SERVERS)
@pytest.mark.parametrize("code", EVERYWHERE)
async def test_a_fault_of_any_server_is_found_alone_and_its_commands_mend_it(
    site: Site, code: str
) -> None:
    """
    Rights, the rows of the lease, and the purge.
    """
    begin = "" if site.is_postgresql else f"{site.database.name}."
    await planted(site, {code}, [EVERYWHERE[code].format(begin=begin, who=site.who)])


NEEDLESS = {
    "mariadb": ["GRANT ALL ON {db}.* TO {who}", "GRANT SUPER ON *.* TO {who}"],
    "mysql": ["GRANT DROP, CREATE ON {db}.* TO {who}", "GRANT INSERT ON {db}.outbox TO {who}"],
    "postgresql": ["GRANT INSERT, TRUNCATE ON outbox TO {who}"],
}


@on(*SERVERS)
async def test_rights_that_nobody_needs(site: Site) -> None:
    """
    They are named, and taken away by what is printed; those that are needed stay.
    """
    faults = [line.format(db=site.database.name, who=site.who) for line in NEEDLESS[site.kind]]
    found = await planted(site, {"rights-needless"}, faults)

    assert found.severity == Severity.NOTE


@on("postgresql")
async def test_a_relay_that_owns_its_tables(site: Site) -> None:
    """
    It could drop them.
    """
    await planted(site, {"rights-needless"}, [f"ALTER TABLE outbox OWNER TO {site.who}"])


@on(*SERVERS)
async def test_a_transaction_that_stays_open(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Who it is, for how long, and what ends it; without the right to know, that is said.
    """
    monkeypatch.setattr(server_rules, "LONG_SECONDS", 0.05)
    holder = site.connection()
    with holder.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO outbox (event_name, topic, payload) VALUES ('e', 'held', '')")
    blind = await site.doctor()
    right = "pg_read_all_stats" if site.is_postgresql else "PROCESS ON *.*"
    site.root(f"GRANT {right} TO {site.who}")
    until = time.monotonic() + 10
    found = await site.doctor()
    while not found.findings and time.monotonic() < until:
        found = await site.doctor()
    await site.mend(found.findings)
    after = await site.doctor()
    while after.findings and time.monotonic() < until:
        after = await site.doctor()
    with pytest.raises(Exception, match=r"(?i)gone|lost|terminat|closed|killed|timeout"):
        holder.cursor().execute("SELECT 1")
    site.root(f"REVOKE {right} FROM {site.who}")

    assert found.codes == {"long-transaction"}
    assert after.codes == frozenset()
    assert blind.codes == frozenset()
    assert any(right.partition(" ")[0] in item.needs for item in blind.skipped)


@on("postgresql")
async def test_a_prepared_transaction_that_nobody_ends(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    It survives every restart, and any user sees it.
    """
    monkeypatch.setattr(server_rules, "LONG_SECONDS", 0.0)
    with site.connection() as connection:
        connection.execute("BEGIN")
        connection.execute("INSERT INTO outbox (event_name, topic, payload) VALUES ('e', 'p', '')")
        connection.execute("PREPARE TRANSACTION 'it''s left'")
    found = await site.doctor()
    ours = [finding for finding in found.findings if "prepared" in finding.what]
    await site.mend(ours)
    after = await site.doctor()

    assert [finding.code for finding in ours] == ["long-transaction"]
    assert not [finding for finding in after.findings if "prepared" in finding.what]


@on(*MYSQLS)
@pytest.mark.usefixtures("as_before")
async def test_connections_that_run_out(site: Site) -> None:
    """
    Before the last one is taken.
    """
    site.root("SET GLOBAL max_connections = 10")
    held = [site.connection() for _ in range(8)]
    try:
        found = await site.doctor()
        await site.mend(found.findings)
        after = await site.doctor()
    finally:
        for connection in held:
            connection.close()

    assert found.codes == {"connections-scarce"}
    assert after.codes == frozenset()


@pytest.mark.parametrize("kind", SERVERS)
async def test_tables_that_are_missing_old_or_too_new(
    request: pytest.FixtureRequest, kind: str
) -> None:
    """
    `outbox-relay migrate` mends the first two; a table that is gone needs its backup.
    """
    site = Site(kind, request.getfixturevalue(kind), migrated=False)
    admin = {"database__url": site.database.async_url}
    missing = await site.doctor(**admin)
    script = "\n".join(
        line for line in sql_script(kind, to=2).splitlines() if not line.startswith("--")
    )
    site.root(*(statement for statement in script.split(";\n") if statement.strip()))
    if site.is_postgresql:
        site.root(*(f"ALTER TABLE {table} OWNER TO ob" for table in GRANTS))
    old = await site.doctor(**admin)
    await site.mend([finding for finding in old.findings if finding.code == "tables-outdated"])
    mended = await site.doctor(**admin)
    site.root("UPDATE outbox_version SET min_reader = 99")
    new = await site.doctor(**admin)
    site.root("UPDATE outbox_version SET min_reader = 1", "DROP TABLE outbox_control")
    gone = await site.doctor(**admin)

    assert missing.codes - {"rights-needless"} == {"tables-missing"}
    assert old.codes - {"rights-needless"} == {"tables-outdated"}
    assert mended.codes - {"rights-needless"} == frozenset()
    assert new.codes - {"rights-needless"} == {"tables-too-new"}
    assert "table-incomplete" in gone.codes


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_database_that_refuses_or_is_away(
    request: pytest.FixtureRequest, kind: str
) -> None:
    """
    Each says what it is; the other areas are looked at all the same.
    """
    server = request.getfixturevalue(kind)
    url = server.create_database().async_url
    found = {
        name: await Site.doctor(
            _Nowhere(),
            Area.DATABASE,
            Area.BROKER,
            database__url=changed,  # type: ignore[arg-type]
        )
        for name, changed in {
            "database-login-refused": url.replace("ob:ob@", "ob:wrong@"),
            "database-missing": url.rpartition("/")[0]
            + "/"
            + ("ob_none" if "mysql" in url else "none"),
            "database-unreachable": url.replace(str(server.port), "1"),
            "database-tls-refused": f"{url}#ssl",
        }.items()
    }

    for code, said in found.items():
        assert said.codes == {code, "broker-unreachable"}
        assert "ob:wrong" not in str(said.as_json())


class _Nowhere:
    """Only the settings of a site."""

    url = ""

    def config(self, **settings: str) -> Any:
        url = settings.pop("database__url")
        if url.endswith("#ssl"):
            settings["database__ssl"] = "true"
        return Site.config(self, **settings, database__url=url.removesuffix("#ssl"))  # type: ignore[arg-type]


@on("postgresql")
async def test_a_pooler_that_nobody_told_the_relay_of(site: Site, pgbouncer: Any) -> None:
    """
    It is found by what it does, and the printed setting mends it; without a pooler that is needless.
    """
    pooled = pgbouncer.database(site.database).async_url
    wrong = await site.doctor(database__url=pooled)
    told = await site.doctor(database__url=pooled, database__transaction_pooler="true")
    needless = await site.doctor(database__transaction_pooler="true")

    (finding,) = [item for item in wrong.findings if item.code == "pooler-mode"]
    assert [command.text for command in finding.commands] == [
        "[database]",
        "transaction_pooler = true",
    ]
    assert told.codes - {"rights-needless"} <= {"rights-missing"}
    assert needless.codes == {"pooler-setting-needless"}


@on("postgresql")
async def test_notifications_that_nobody_sends(site: Site) -> None:
    """
    The trigger is part of the table, and its absence is not seen anywhere else.
    """
    settings = {"relay__wake_notify": "true"}
    found = await site.doctor(Area.WAKE, **settings)
    await site.mend(found.findings)
    after = await site.doctor(Area.WAKE, **settings)
    site.root("DROP TRIGGER outbox_notify ON outbox")

    assert found.codes == {"trigger-missing"}
    assert after.codes == frozenset()


@pytest.fixture(scope="module", autouse=True)
def _users_go(sites: dict[str, Site]) -> Iterator[None]:
    """They belong to the whole server, which other tests use too."""
    yield
    for site in sites.values():
        if site.is_postgresql:
            site.root(f"DROP OWNED BY {site.user}", f"DROP ROLE {site.user}")
        else:
            site.root(f"DROP USER {site.who}")


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
async def test_a_table_of_python_cqrs(request: pytest.FixtureRequest, kind: str) -> None:
    """
    What a relay needs beside it is missing until it is prepared; then its index, its rights, its rows.
    """
    site = Site(kind, request.getfixturevalue(kind), migrated=False)
    engine = sa.create_engine(site.database.sync_url)
    create_adopted(engine)
    engine.dispose()
    admin = {
        "database__url": site.database.async_url,
        "database__layout": "python-cqrs",
        "database__layout_key_path": "k",
    }
    areas = (Area.CONFIGURATION, Area.DATABASE, Area.RELAY)
    missing = await site.doctor(*areas, **admin)
    await site.mend([item for item in missing.findings if item.code != "rights-needless"])
    prepared = await site.doctor(*areas, **admin)
    needed = {item.code: item for item in prepared.findings}["rights-needless"]
    ours = [command.text for command in needed.commands if command.text.startswith("GRANT")]
    site.root(*(line.rpartition(" TO ")[0] + f" TO {site.who}" for line in ours))
    small = await site.doctor(*areas, **(admin | {"database__url": site.url}))
    site.root("DROP TABLE outbox_dead")
    gone = await site.doctor(*areas, **admin)
    keyless = await site.doctor(*areas, **(admin | {"database__layout_key_path": ""}))

    assert missing.codes - {"rights-needless"} <= {"tables-missing", "index-missing"}
    assert missing.codes - {"rights-needless"}
    assert prepared.codes == {"rights-needless", "no-relay"}
    assert small.codes == {"no-relay"}
    assert gone.codes - {"rights-needless"} == {"tables-missing", "no-relay"}
    assert "no-order" in keyless.codes
