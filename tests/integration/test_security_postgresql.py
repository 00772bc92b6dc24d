"""
Log-in and encryption towards a real PostgreSQL: what works, what is refused and how it is said.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from pathlib import Path

import pytest

from outbox_relay.errors import StoreUnavailable
from outbox_relay.migrate import migrate
from outbox_relay.store import DatabaseOptions, open_store
from tests.integration.log_in import logs_in, refusal
from tests.services.certificates import Authority
from tests.services.database import Database
from tests.services.secure import CERTIFICATE_ONLY, SSL_ONLY, SecurePostgreSQL


class User:
    """A user with the password `first` and an empty database."""

    def __init__(self, server: SecurePostgreSQL, *groups: str) -> None:
        self.server = server
        self.name = f"u{uuid.uuid4().hex[:12]}"
        server.create_user(self.name, "first", *groups)
        self.database = server.create_database().name
        server.root(f"ALTER DATABASE {self.database} OWNER TO {self.name}")

    def url(self, password: str = "") -> str:
        secret = f":{password}" if password else ""
        place = f"127.0.0.1:{self.server.port}/{self.database}"
        return f"postgresql+asyncpg://{self.name}{secret}@{place}"


@pytest.fixture
def authority(secure_postgresql: SecurePostgreSQL) -> str:
    return str(secure_postgresql.authority.certificate.cert)


async def test_a_user_who_must_encrypt_logs_in(secure_postgresql, authority: str) -> None:
    """
    hostssl only: with database.ssl the store and `migrate` get in. Without it asyncpg encrypts where the
    server does, and verifies nothing; where that is switched off too, the text says what to do.
    """
    url = User(secure_postgresql, SSL_ONLY).url("first")
    plain = await refusal(DatabaseOptions(url=f"{url}?ssl=disable"))
    encrypted = DatabaseOptions(url=url, ssl=True, ssl_ca_file=authority)

    assert "whether it needs database.ssl = true" in plain
    assert await logs_in(DatabaseOptions(url=url))
    assert await logs_in(encrypted)
    assert await asyncio.to_thread(migrate, encrypted) != []


async def test_the_connection_is_encrypted(secure_postgresql, authority: str) -> None:
    """
    By the server's own word, for every connection of the store.
    """
    user = User(secure_postgresql)
    options = DatabaseOptions(url=user.url("first"), ssl=True, ssl_ca_file=authority)
    await asyncio.to_thread(migrate, options)
    store = open_store(options)
    await store.acquire("relay", wake_address="", lease_seconds=15)
    await store.max_id()
    with secure_postgresql.root_connection() as root:
        found = root.execute(
            "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = %s",
            (user.name,),
        ).fetchall()
    await store.close()

    assert found == [(True,), (True,)]


async def test_a_user_who_needs_a_certificate_logs_in(secure_postgresql, authority: str) -> None:
    """
    clientcert=verify-ca: the relay shows its own certificate.
    """
    own = secure_postgresql.authority.sign(f"relay-{uuid.uuid4().hex[:6]}")
    url = User(secure_postgresql, CERTIFICATE_ONLY).url("first")
    without = DatabaseOptions(url=url, ssl=True, ssl_ca_file=authority)
    with_one = DatabaseOptions(
        url=url,
        ssl=True,
        ssl_ca_file=authority,
        ssl_cert_file=str(own.cert),
        ssl_key_file=str(own.key),
    )

    assert "check the user" in await refusal(without)
    assert await logs_in(with_one)


@pytest.mark.parametrize("case", ["another authority", "the system's authorities", "another name"])
async def test_a_server_that_cannot_be_verified_is_refused(
    secure_postgresql, authority: str, tmp_path: Path, case: str
) -> None:
    """
    Certificate and host name are always verified, and the text says what to check.
    """
    url = User(secure_postgresql).url("first")
    if case == "another authority":
        authority = str(Authority(tmp_path, "other").certificate.cert)
    elif case == "the system's authorities":
        authority = ""
    else:
        url = url.replace("127.0.0.1", "127.1")
    said = await refusal(DatabaseOptions(url=url, ssl=True, ssl_ca_file=authority))

    assert "database.ssl_ca_file must hold the authority" in said
    assert "first" not in said


async def test_a_server_without_tls_is_refused(postgresql_database: Database) -> None:
    """
    Nothing is sent in the clear when encryption is asked for.
    """
    said = await refusal(DatabaseOptions(url=postgresql_database.async_url, ssl=True))

    assert "rejected SSL upgrade" in said
    assert "let the server serve TLS" in said
    assert ":ob@" not in said


async def test_a_changed_password_file_is_read_again(secure_postgresql, tmp_path: Path) -> None:
    """
    The password is rotated and every connection ends: the same store goes on.
    """
    user = User(secure_postgresql)
    file = tmp_path / "password"
    file.write_text("first\n")
    options = DatabaseOptions(url=user.url(), password_file=str(file))
    await asyncio.to_thread(migrate, options)
    store = open_store(options)
    await store.check_schema()

    secure_postgresql.set_password(user.name, "second")
    secure_postgresql.drop_connections(user.name)
    with pytest.raises(StoreUnavailable):
        await store.check_schema()
    with pytest.raises(StoreUnavailable) as raised:
        await store.check_schema()
    file.write_text("second\n")
    await store.check_schema()
    await store.close()

    assert "password_file" in str(raised.value)
    assert "first" not in str(raised.value)


async def test_a_command_gives_the_password(secure_postgresql, tmp_path: Path) -> None:
    """
    It runs again for each connection, so a short-lived password is always the newest.
    """
    user = User(secure_postgresql)
    file = tmp_path / "password"
    file.write_text("first\n")
    program = f"print(open({str(file)!r}).read(), end='')"
    options = DatabaseOptions(url=user.url(), password_command=(sys.executable, "-c", program))

    assert await logs_in(options)
    secure_postgresql.set_password(user.name, "second")
    assert "check the user" in await refusal(options)
    file.write_text("second")
    assert await logs_in(options)
