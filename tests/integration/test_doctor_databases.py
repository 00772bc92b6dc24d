"""
`doctor` on real databases: each planted fault is found, alone, and its own commands mend it.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
import sqlalchemy as sa

from outbox_relay.doctor import Area, Severity
from outbox_relay.doctor.rules import server as server_rules
from outbox_relay.migrate import sql_script
from tests.contract.adopted import create_adopted
from tests.integration.doctoring import GRANTS, SERVERS, Site, on, planted

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


LOCKS = {
    "mariadb": ["LOCK TABLES outbox WRITE"],
    "mysql": ["LOCK TABLES outbox WRITE"],
    "postgresql": ["BEGIN", "LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE"],
}


@on(*SERVERS)
async def test_a_table_that_somebody_locks(site: Site) -> None:
    """
    What the server does answer is told all the same, and the statement that is printed shows the holder.
    """
    holder = site.connection()
    with holder.cursor() as cursor:
        for statement in LOCKS[site.kind]:
            cursor.execute(statement)
    started = time.monotonic()
    found = await site.doctor(database__timeout_seconds="1")
    took = time.monotonic() - started
    [command] = [command.text for item in found.findings for command in item.commands]
    with site.connection() as root, root.cursor() as cursor:
        cursor.execute(command)
        shown = len(cursor.fetchall())
    holder.close()

    assert found.codes == {"tables-blocked"}
    assert found.facts[Area.DATABASE]
    assert shown > 0
    assert took < 20
    assert (await site.doctor()).codes == frozenset()


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
    until = time.monotonic() + 10
    while after.findings and time.monotonic() < until:
        after = await site.doctor()
    with pytest.raises(Exception, match=r"(?i)gone|lost|terminat|closed|killed|timeout"):
        holder.cursor().execute("SELECT 1")
    site.root(f"REVOKE {right} FROM {site.who}")

    assert found.codes == {"long-transaction"}
    assert after.codes == frozenset()
    assert blind.codes == frozenset()
    assert any(right.partition(" ")[0] in item.needs for item in blind.skipped)


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
