"""Settings of the database, section ``[database]``: the one home of their defaults."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseOptions:
    """Where the outbox is."""

    url: str = field(default="", repr=False)
    """SQLAlchemy URL with an async driver: mysql+asyncmy://user:password@host/database, mariadb+asyncmy://..., sqlite+aiosqlite:///path. Required."""

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
        return found
