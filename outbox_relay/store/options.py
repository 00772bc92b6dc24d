"""Settings of the database, section ``[database]``: the one home of their defaults."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Literal

_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseOptions:
    """Where the outbox is."""

    url: str = field(default="", repr=False)
    """SQLAlchemy URL with an async driver: mysql+asyncmy://user:password@host/database, mariadb+asyncmy://..., postgresql+asyncpg://..., sqlite+aiosqlite:///path. Required."""

    password_file: str = ""
    """File that holds the password, instead of the URL. Read again for each connection."""

    password_command: tuple[str, ...] = field(default=(), repr=False)
    """Program with its arguments that prints the password, instead of the URL. Run again for each connection, without a shell, within 80 % of connect_timeout_seconds. In the environment a JSON list."""

    ssl: bool = False
    """Whether connections are encrypted and the server's certificate and host name verified. Not for SQLite."""

    ssl_ca_file: str = ""
    """Authorities that may have signed the server's certificate, PEM. Empty for those of the system. Read again for each connection, as are the next two."""

    ssl_cert_file: str = ""
    """Certificate of the relay, PEM, if the server asks for one."""

    ssl_key_file: str = ""
    """Its key, PEM; empty if it is in ssl_cert_file."""

    table: str = "outbox"
    """Name of the outbox table; the tables beside it are named after it."""

    schema: str = ""
    """Database that holds the tables, on the same server, where it is not the one that url names. On PostgreSQL the schema, empty for the first of the search_path."""

    layout: Literal["outbox", "python-cqrs"] = "outbox"
    """Who made the table. python-cqrs: the relay works on a table of python-cqrs 0.0.12 to 5.3 in place; `outbox-relay adopt python-cqrs` prepares it. MySQL, MariaDB and PostgreSQL."""

    layout_topic: str = ""
    """Topic of rows that name none, with layout = "python-cqrs": its releases before 0.2 have no column for it."""

    layout_key_path: str = ""
    """Where in its document the key of an event is, with layout = "python-cqrs", such as payload.user_id. Empty: no key, as its own relay; then nothing keeps events in order."""

    layout_payload: Literal["sniff", "raw", "zlib"] = "sniff"
    """How payloads are stored, with layout = "python-cqrs": its rows do not say it. sniff looks at the first two bytes of each."""

    layout_envelope: Literal["auto", "python-cqrs-0", "python-cqrs-3"] = "auto"
    """What is made of rows that hold the payload alone, with layout = "python-cqrs": its releases up to 1.0.0 store no more. auto: python-cqrs-0 for tables without a topic, else python-cqrs-3. Other rows hold the whole document."""

    transaction_pooler: bool = False
    """Whether url names a pooler that gives each transaction another server connection, such as PgBouncer with pool_mode = transaction. Costs three round trips a statement. PostgreSQL only."""

    timeout_seconds: float = 5.0
    """Longest wait for one statement. After it the connection is thrown away and the statement repeated."""

    connect_timeout_seconds: float = 5.0
    """Longest wait for a new connection."""

    def problems(self) -> list[str]:
        """What is wrong with these settings, one line each, named by key."""
        found = []
        if not self.url:
            found.append(
                "database.url is required, such as mysql+asyncmy://user:password@host/shop"
            )
        for key in ("timeout_seconds", "connect_timeout_seconds"):
            if getattr(self, key) <= 0:
                found.append(f"database.{key} = {getattr(self, key)} must be greater than 0")
        return found + self._login_problems() + self._layout_problems()

    def _layout_problems(self) -> list[str]:
        found = []
        if self.layout_topic and not _TOPIC.fullmatch(self.layout_topic):
            found.append(
                f"database.layout_topic = {self.layout_topic!r} must be a topic's name: up to 249 of "
                "A-Z a-z 0-9 . _ -"
            )
        if any(not part for part in self.layout_key_path.split(".")) and self.layout_key_path:
            found.append(
                f"database.layout_key_path = {self.layout_key_path!r} must be names with a dot "
                "between, such as payload.user_id"
            )
        defaults = {"topic": "", "key_path": "", "payload": "sniff", "envelope": "auto"}
        if self.layout == "outbox":
            found += [
                f'database.layout_{name} is for database.layout = "python-cqrs"'
                for name, default in defaults.items()
                if getattr(self, f"layout_{name}") != default
            ]
        return found

    def _login_problems(self) -> list[str]:
        found = []
        if self.password_file and self.password_command:
            found.append("database.password_file and database.password_command are two: keep one")
        for key in ("ssl_ca_file", "ssl_cert_file", "ssl_key_file"):
            if getattr(self, key) and not self.ssl:
                found.append(f"database.{key} needs database.ssl = true")
        if self.ssl_key_file and not self.ssl_cert_file:
            found.append("database.ssl_key_file needs database.ssl_cert_file")
        return found
