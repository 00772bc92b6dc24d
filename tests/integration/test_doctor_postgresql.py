"""
`doctor` on PostgreSQL: each planted fault is found, alone, and its own commands mend it.
"""

from __future__ import annotations

from typing import Any

import pytest

from outbox_relay.doctor import Area
from outbox_relay.doctor.rules import server as server_rules
from outbox_relay.doctor.rules import tables as table_rules
from tests.integration.doctoring import Site, on, planted

SETTINGS_OF_POSTGRESQL = {
    "commit-not-flushed": "ALTER DATABASE {database} SET synchronous_commit = off",
    "isolation": "ALTER ROLE {user} SET default_transaction_isolation = 'serializable'",
    "server-only-reads": "ALTER DATABASE {database} SET default_transaction_read_only = on",
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


@on("postgresql")
async def test_a_relay_that_owns_its_tables(site: Site) -> None:
    """
    It could drop them.
    """
    await planted(site, {"rights-needless"}, [f"ALTER TABLE outbox OWNER TO {site.who}"])


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
