"""How each new connection logs in: with the password and the certificates of this moment."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox_relay.credentials import read_secret, secret_from_command, tls_context
from outbox_relay.errors import CredentialsError, StoreUnavailable
from outbox_relay.store.options import DatabaseOptions

MYSQL_ESCAPING: Final = {
    # In some others a byte of a character swallows a backslash.
    "charset": "utf8mb4",
    # asyncmy 0.2.18 escapes bytes with backslashes even where they do not escape.
    "init_command": "SET SESSION sql_mode = REPLACE(@@SESSION.sql_mode, 'NO_BACKSLASH_ESCAPES', '')",
}
"""How texts and bytes are escaped, which the driver does itself: whatever the URL and the server say."""


COMMAND_SHARE = 0.8
"""Of the time for a connection, what password_command may take: the rest is for the server."""

TOO_SLOW: Final = (1205, 1969, 3024, "55P03", "57014")
"""What a server says that breaks off a statement for its time."""

_HINTS: dict[object, str] = {
    **dict.fromkeys(
        (1045, 1698, 3159, "28P01", "28000"),
        "check the user in database.url and its password (in the URL, password_file or "
        "password_command), and whether it needs database.ssl = true",
    ),
    **dict.fromkeys(
        (1044, 1142, 1143, "42501"),
        "grant the relay's user SELECT, UPDATE and DELETE on the tables of the outbox; `outbox-relay "
        "migrate` may log in as another user",
    ),
    **dict.fromkeys((1049, "3D000"), "create it, or correct the database in database.url"),
    **dict.fromkeys(
        (2003, errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ETIMEDOUT),
        "start it, or correct host and port in database.url",
    ),
    **dict.fromkeys(
        (socket.EAI_NONAME, socket.EAI_AGAIN, socket.EAI_NODATA),
        "correct the host in database.url, or mend the look-up of names",
    ),
    **dict.fromkeys(
        (1040, 1203, 1226, "53300"),
        "raise max_connections of the server or the user, or make the pools of applications smaller",
    ),
    **dict.fromkeys(
        TOO_SLOW,
        "somebody locks the table, or the server is too busy: `outbox-relay doctor` shows how to see who",
    ),
}


def log_in(engine: AsyncEngine, options: DatabaseOptions) -> None:
    """
    Let each new connection of *engine* log in as *options* say.

    A connection then raises CredentialsError if a secret or a certificate cannot be read, or if
    encryption is asked for and the server does not encrypt.
    """
    url = make_url(options.url)
    if url.get_backend_name() == "sqlite":
        return
    is_postgresql = url.get_backend_name() == "postgresql"

    async def password() -> str:
        if options.password_file:
            found = read_secret("database.password_file", options.password_file)
        elif options.password_command:
            found = await secret_from_command(
                "database.password_command",
                options.password_command,
                timeout_seconds=COMMAND_SHARE * options.connect_timeout_seconds,
            )
        else:
            found = url.password or ""
        return found

    async def password_bytes() -> bytes:
        return (await password()).encode()

    def prepare(_dialect: object, _record: object, _arguments: object, parameters: Any) -> None:
        parameters.pop("password", None)
        if is_postgresql:
            parameters["password"] = password
        else:
            # Text asyncmy encodes as Latin 1, and the error about that shows a part of it.
            parameters["password_creator"] = password_bytes
        if options.ssl:
            # A context, never ssl=True: what asyncmy makes of that has changed over time.
            parameters["ssl"] = tls_context(
                "database",
                ca_file=options.ssl_ca_file,
                cert_file=options.ssl_cert_file,
                key_file=options.ssl_key_file,
            )

    event.listen(engine.sync_engine, "do_connect", prepare)
    if options.ssl and not is_postgresql:  # asyncpg refuses what is not encrypted
        event.listen(engine.sync_engine, "connect", _require_encryption)


def asyncpg_arguments(options: DatabaseOptions) -> dict[str, Any]:
    """
    How asyncpg connects. Nothing is prepared under a name: behind a pooler that gives each transaction
    another server connection, the name is unknown there, or is somebody else's.
    """
    return {
        "timeout": options.connect_timeout_seconds,
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        "prepared_statement_name_func": lambda: "",
        "async_creator_fn": _connect,
    }


async def _connect(*arguments: Any, **options: Any) -> Any:
    import asyncpg  # noqa: PLC0415 - of the extra `postgresql`

    class Plain(asyncpg.Connection):  # type: ignore[misc]
        """Without the codecs for JSON that SQLAlchemy asks for: four queries of each connection."""

        async def set_type_codec(self, *arguments: Any, **options: Any) -> None:
            pass

    try:
        return await asyncpg.connect(*arguments, connection_class=Plain, **options)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        # SQLAlchemy 2.0 would let it through as it is.
        raise StoreUnavailable(f"{said(error)}{hint(error)}") from error


def _require_encryption(connection: Any, _record: object) -> None:
    """Ask the server itself; the settings of a client have been ignored in silence before."""
    cursor = connection.cursor()
    cursor.execute("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
    row = cursor.fetchone()
    cursor.close()
    if not row or not row[1]:
        connection.close()
        raise CredentialsError(
            "database.ssl is true and the server says that the connection is not encrypted: "
            "let it serve TLS"
        )


def said(error: BaseException) -> str:
    """What the driver said, with the error's number after it where there is one."""
    if isinstance(refused := _tls_error(error), ssl.SSLCertVerificationError):
        return f"the server's certificate is refused: {refused.verify_message}"
    match error.args:
        case (int(number), str(text)):
            return f"{text} (error {number})"
    if (code := getattr(error, "sqlstate", None)) is not None:
        # No DETAIL: it may hold a row. Neither the class that SQLAlchemy puts in front.
        whole = str(error).partition("\nDETAIL")[0]
        return f"{whole.partition('>: ')[2] or whole} (error {code})"
    return f"{type(error).__name__}: {error}"


def hint(error: BaseException) -> str:
    """What to do about *error*, which ended a log-in; empty if it was something else."""
    refused = _tls_error(error)
    if isinstance(refused, ssl.SSLCertVerificationError):
        return (
            ": database.ssl_ca_file must hold the authority that signed the server's certificate, "
            "and the certificate must name the host of database.url"
        )
    if refused is not None or "rejected SSL upgrade" in str(error):
        return (
            ": the encryption that database.ssl = true asks for did not come about: let the server "
            "serve TLS, and check database.ssl_cert_file if it asks for one"
        )
    number = error.args[0] if error.args else None
    # MySQL's drivers name a state too, which says less than the number.
    code = number if isinstance(number, int) else getattr(error, "sqlstate", None)
    advice = _HINTS.get(code) if code is not None else None
    return f": {advice}" if advice else ""


def _tls_error(error: BaseException) -> ssl.SSLError | None:
    """asyncmy wraps it, asyncpg does not."""
    for found in (error, error.__cause__):
        if isinstance(found, ssl.SSLError):
            return found
    return None
