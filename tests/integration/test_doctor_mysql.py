"""
`doctor` on MariaDB and MySQL: each planted fault is found, alone, and its own commands mend it.
"""

from __future__ import annotations

import re

import pytest

from tests.integration.doctoring import MYSQLS, Site, on, planted

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
