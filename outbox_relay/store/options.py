"""Settings of the database, section ``[database]``: the one home of their defaults."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseOptions:
    """Where the outbox is."""

    url: str = field(default="", repr=False)
    """SQLAlchemy URL with an async driver: mysql+asyncmy://user:password@host/database, mariadb+asyncmy://..., sqlite+aiosqlite:///path. Required."""

    password_file: str = ""
    """File that holds the password, instead of the URL. Read again for each connection."""

    password_command: tuple[str, ...] = field(default=(), repr=False)
    """Program with its arguments that prints the password, instead of the URL. Run again for each connection, without a shell, within 80 % of connect_timeout_seconds. In the environment a JSON list."""

    ssl: bool = False
    """Whether connections are encrypted and the server's certificate and host name verified. MariaDB and MySQL only."""

    ssl_ca_file: str = ""
    """Authorities that may have signed the server's certificate, PEM. Empty for those of the system. Read again for each connection, as are the next two."""

    ssl_cert_file: str = ""
    """Certificate of the relay, PEM, if the server asks for one."""

    ssl_key_file: str = ""
    """Its key, PEM; empty if it is in ssl_cert_file."""

    table: str = "outbox"
    """Name of the outbox table; the tables beside it are named after it."""

    schema: str = ""
    """Database that holds the tables, on the same server, where it is not the one that url names."""

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
        return found + self._login_problems()

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
