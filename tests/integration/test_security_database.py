"""
Log-in and encryption towards a real MariaDB: what works, what is refused and how it is said.
"""

from __future__ import annotations

import asyncio
import sys
import uuid

import pytest

from outbox_relay.errors import SchemaMismatch, StoreUnavailable
from outbox_relay.migrate import migrate
from outbox_relay.store import DatabaseOptions, open_store
from tests.integration.log_in import logs_in, refusal
from tests.services.certificates import Authority

HELLO = "print('first-password')"


@pytest.fixture
def user(secure_mariadb):
    """A user with the password `first`, who needs no encryption."""
    name = f"u{uuid.uuid4().hex[:12]}"
    secure_mariadb.create_user(name, "first")
    return name


@pytest.fixture
def address(secure_mariadb, user):
    """host:port/database with the user's name, without a password."""
    database = secure_mariadb.create_database()
    return f"mysql+asyncmy://{user}@127.0.0.1:{secure_mariadb.port}/{database.name}"


def with_password(address: str, password: str) -> str:
    return address.replace("@", f":{password}@")


@pytest.fixture
def authority(secure_mariadb):
    return str(secure_mariadb.authority.certificate.cert)


async def test_a_user_who_must_encrypt_logs_in(secure_mariadb, address, user, authority):
    """
    REQUIRE SSL: with database.ssl the store and `migrate` get in, without it neither does.
    """
    secure_mariadb.root(f"ALTER USER '{user}'@'%' REQUIRE SSL")
    url = with_password(address, "first")
    plain = await refusal(DatabaseOptions(url=url))
    encrypted = DatabaseOptions(url=url, ssl=True, ssl_ca_file=authority)

    assert "whether it needs database.ssl = true" in plain
    assert await logs_in(encrypted)
    assert migrate(encrypted) != []


async def test_a_user_who_needs_a_certificate_logs_in(secure_mariadb, address, user, authority):
    """
    REQUIRE X509: the relay shows its own certificate.
    """
    secure_mariadb.root(f"ALTER USER '{user}'@'%' REQUIRE X509")
    own = secure_mariadb.authority.sign("relay")
    url = with_password(address, "first")
    options = DatabaseOptions(
        url=url,
        ssl=True,
        ssl_ca_file=authority,
        ssl_cert_file=str(own.cert),
        ssl_key_file=str(own.key),
    )

    assert "check the user" in await refusal(
        DatabaseOptions(url=url, ssl=True, ssl_ca_file=authority)
    )
    assert await logs_in(options)


@pytest.mark.parametrize("case", ["another authority", "the system's authorities", "another name"])
async def test_a_server_that_cannot_be_verified_is_refused(address, authority, tmp_path, case):
    """
    Certificate and host name are always verified, and the text says what to check.
    """
    url = with_password(address, "first")
    if case == "another authority":
        authority = str(Authority(tmp_path, "other").certificate.cert)
    elif case == "the system's authorities":
        authority = ""
    else:
        url = url.replace("127.0.0.1", "127.1")
    said = await refusal(DatabaseOptions(url=url, ssl=True, ssl_ca_file=authority))

    assert "database.ssl_ca_file must hold the authority" in said
    assert "first" not in said


async def test_a_server_without_tls_is_refused(mariadb_database):
    """
    Nothing is sent in the clear when encryption is asked for.
    """
    said = await refusal(DatabaseOptions(url=mariadb_database.async_url, ssl=True))

    assert "let the server serve TLS" in said


async def test_a_connection_that_is_not_encrypted_after_all_is_refused(address, monkeypatch):
    """
    The server is asked, so that a driver which ignores the setting does no harm.
    """
    monkeypatch.setattr("outbox_relay.store.login.tls_context", lambda *_, **__: None)
    said = await refusal(DatabaseOptions(url=with_password(address, "first"), ssl=True))

    assert "the connection is not encrypted" in said


async def test_a_wrong_password_says_what_to_check(address):
    """
    The text names the places a password may come from, and not the password.
    """
    said = await refusal(DatabaseOptions(url=with_password(address, "canary")))

    assert "password_file or password_command" in said
    assert "canary" not in said


async def test_a_changed_password_file_is_read_again(secure_mariadb, address, user, tmp_path):
    """
    The password is rotated and every connection ends: the same store goes on.
    """
    file = tmp_path / "password"
    file.write_text("first\n")
    options = DatabaseOptions(url=address, password_file=str(file))
    await asyncio.to_thread(migrate, options)
    store = open_store(options)
    await store.check_schema()

    secure_mariadb.set_password(user, "second")
    secure_mariadb.drop_connections(user)
    with pytest.raises(StoreUnavailable):
        await store.check_schema()
    with pytest.raises(StoreUnavailable) as raised:
        await store.check_schema()
    file.write_text("second\n")
    await store.check_schema()
    await store.close()

    assert "password_file" in str(raised.value)


async def test_a_file_that_cannot_be_read_is_named_and_read_again(address, tmp_path):
    """
    Nothing is given up: as soon as the file is there, the same store goes on.
    """
    file = tmp_path / "password"
    store = open_store(DatabaseOptions(url=address, password_file=str(file)))
    with pytest.raises(StoreUnavailable) as raised:
        await store.check_schema()
    file.write_text("first")
    with pytest.raises(SchemaMismatch):
        await store.check_schema()
    await store.close()

    assert str(raised.value) == (
        f"database.password_file = {file} cannot be read (No such file or directory): "
        "it must be a file that the relay's user may read"
    )


async def test_a_command_gives_the_password(secure_mariadb, address, user, tmp_path):
    """
    It runs again for each connection, so a short-lived password is always the newest.
    """
    file = tmp_path / "password"
    file.write_text("first\n")
    program = f"print(open({str(file)!r}).read(), end='')"
    options = DatabaseOptions(url=address, password_command=(sys.executable, "-c", program))

    assert await logs_in(options)
    secure_mariadb.set_password(user, "second")
    assert "check the user" in await refusal(options)
    file.write_text("second")
    assert await logs_in(options)


async def test_a_password_with_letters_of_any_language_logs_in(
    secure_mariadb, address, user, tmp_path
):
    """
    asyncmy alone encodes text as Latin 1.
    """
    secure_mariadb.set_password(user, "zażółć")
    file = tmp_path / "password"
    file.write_text("zażółć", encoding="utf-8")

    assert await logs_in(DatabaseOptions(url=address, password_file=str(file)))
    assert await logs_in(DatabaseOptions(url=with_password(address, "zażółć")))
