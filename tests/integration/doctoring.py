"""
What the tests of `doctor` share: a database with its relay's user, planted faults, and the commands
that findings print, run as they are printed.
"""

from __future__ import annotations

import asyncio
import shlex
import subprocess
import sys
import uuid
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from outbox_relay import Outbox
from outbox_relay.config import Config, load_config
from outbox_relay.doctor import Area, Command, Finding, Findings, examine
from outbox_relay.migrate import migrate
from outbox_relay.store import DatabaseOptions
from tests.integration.command import environment

PASSWORD = "its-password"
NOWHERE = "127.0.0.1:1"
MYSQLS = ("mariadb", "mysql")
SERVERS = (*MYSQLS, "postgresql")
GRANTS = {
    "outbox": "SELECT, UPDATE, DELETE",
    "outbox_lease": "SELECT, UPDATE",
    "outbox_control": "SELECT",
    "outbox_version": "SELECT",
}


class Site:
    """A database whose tables are there, and a user with the relay's rights alone."""

    def __init__(self, kind: str, server: Any, *, migrated: bool = True) -> None:
        self.kind = kind
        self.server = server
        self.database = server.create_database()
        self.user = f"relay_{uuid.uuid4().hex[:8]}"
        self.is_postgresql = kind == "postgresql"
        if self.is_postgresql:
            self.who = self.user
            self.root(f"CREATE ROLE {self.user} LOGIN PASSWORD '{PASSWORD}'")
        else:
            self.who = f"'{self.user}'@'%'"
            self.root(f"CREATE USER {self.who} IDENTIFIED BY '{PASSWORD}'")
        if migrated:
            migrate(DatabaseOptions(url=self.database.async_url))
            self.grant()

    def grant(self) -> None:
        """The rights of the guide."""
        begin = "" if self.is_postgresql else f"{self.database.name}."
        self.root(
            *(f"GRANT {names} ON {begin}{table} TO {self.who}" for table, names in GRANTS.items())
        )

    def forget_user(self) -> None:
        """It belongs to the whole server, which other tests use too."""
        if self.is_postgresql:
            self.root(f"DROP OWNED BY {self.user}", f"DROP ROLE {self.user}")
        else:
            self.root(f"DROP USER {self.who}")

    @property
    def url(self) -> str:
        """With the relay's user."""
        url = make_url(self.database.async_url).set(username=self.user, password=PASSWORD)
        return url.render_as_string(hide_password=False)

    def connection(self) -> Any:
        """With every right, for the caller to close."""
        return self.server.root_connection(self.database.name)

    def root(self, *statements: str) -> None:
        """Run them with every right."""
        connection = self.connection()
        with connection:
            for statement in statements:
                with connection.cursor() as cursor:
                    cursor.execute(statement)

    def write(self, count: int = 1, *, topic: str = "orders", key: str | None = "k") -> None:
        """Events of an application."""
        engine = sa.create_engine(self.database.sync_url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            for number in range(count):
                Outbox().add(connection, {"n": number}, name="e", topic=topic, key=key)
        engine.dispose()

    def config(self, **settings: str) -> Config:
        """The settings; keys have __ for the dot."""
        flags = {name.replace("__", ".", 1): value for name, value in settings.items()}
        return load_config(
            None, {}, {"database.url": self.url, "kafka.bootstrap_servers": NOWHERE} | flags
        )

    async def doctor(self, *only: Area, **settings: str) -> Findings:
        """What is found of the database, unless told otherwise."""
        return await examine(self.config(**settings), only=only or (Area.DATABASE,))

    async def mend(self, found: Collection[Finding]) -> None:
        """Run what the findings print: SQL with every right, lines of a shell as they are."""
        for finding in found:
            await asyncio.to_thread(self._run, finding.commands)

    def _run(self, commands: Sequence[Command]) -> None:
        self.root(*(command.text for command in commands if command.kind == "sql"))
        for command in commands:
            if command.kind == "shell":
                self.run(command.text)

    def run(self, line: str) -> None:
        """A line of a shell, by the user who owns the tables."""
        url = make_url(self.database.async_url).render_as_string(hide_password=False)
        run_line(
            line,
            OUTBOX_RELAY_DATABASE__URL=url,
            OUTBOX_RELAY_KAFKA__BOOTSTRAP_SERVERS=NOWHERE,
        )


def run_line(line: str, **variables: str) -> None:
    """One line of a shell that begins with `outbox-relay`, by the program of this tree."""
    program, *words = shlex.split(line)
    assert program == "outbox-relay"
    command = [sys.executable, "-m", "outbox_relay", *words]
    subprocess.run(command, check=True, capture_output=True, env=environment(**variables))


async def planted(
    site: Site, codes: Collection[str], faults: Sequence[str], **settings: str
) -> Findings:
    """
    With the faults, their codes are found and no other; after their own commands nothing is.

    Nothing was found before: the last test here, or the site's first look, has seen to that.
    """
    # Else MySQL 8.0.15 would let nobody change the table.
    first = ["SET SESSION sql_mode = ''"] if site.kind == "mysql" else []
    await asyncio.to_thread(site.root, *first, *faults)
    found = await site.doctor(**settings)
    await site.mend(found.findings)
    after = await site.doctor(**settings)

    assert found.codes == set(codes)
    assert all(finding.commands for finding in found.findings)
    assert after.codes == frozenset()
    return found


@pytest.fixture(scope="module")
def sites() -> Iterator[dict[str, Site]]:
    """One for each kind of server; a fault that is mended leaves it as it was."""
    made: dict[str, Site] = {}
    yield made
    for site in made.values():
        site.forget_user()


@pytest.fixture
async def site(request: pytest.FixtureRequest, sites: dict[str, Site]) -> Site:
    """That of the server which `on` names; nothing is found of it."""
    kind = request.param
    if kind not in sites:
        sites[kind] = Site(kind, request.getfixturevalue(kind))
        assert (await sites[kind].doctor()).codes == frozenset()
    return sites[kind]


def on(*kinds: str) -> Any:
    """The test runs on each of these servers."""
    return pytest.mark.parametrize("site", kinds, indirect=True)


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
