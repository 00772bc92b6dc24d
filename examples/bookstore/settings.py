"""What the bookstore is told from outside, read once when it starts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final, Self

PREFIX: Final = "BOOKSTORE_"
LEAST_SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Each field is a variable: `database_url` is BOOKSTORE_DATABASE_URL."""

    database_url: str
    """SQLAlchemy URL with an async driver."""

    jwt_secret: str
    """Key of the tokens (HS256), at least 32 bytes."""

    wake: str | None = None
    """Where the relay waits for hints, such as unix:/run/outbox-relay/wake.sock."""

    max_frame_bytes: int = 65_536
    """Largest WebSocket frame that is read; a larger one is answered with an error."""

    queue_frames: int = 64
    """Most frames that wait for one reader. A broadcast that finds no room closes the connection."""

    send_seconds: float = 10.0
    """Longest wait for a reader to take one frame."""

    count_seconds: float = 30.0
    """How long a count of rows may be used again. Bounds how old a total from another process is."""

    def __post_init__(self) -> None:
        if len(self.jwt_secret.encode()) < LEAST_SECRET_BYTES:
            raise ValueError(
                f"{PREFIX}JWT_SECRET has fewer than {LEAST_SECRET_BYTES} bytes: "
                "make one with: python -c 'import secrets; print(secrets.token_hex(32))'"
            )

    @classmethod
    def from_environment(cls) -> Self:
        """Raises ValueError that names the variable which is missing or wrong."""
        for name in ("DATABASE_URL", "JWT_SECRET"):
            if not os.environ.get(PREFIX + name):
                raise ValueError(f"{PREFIX}{name} is not set; see examples/bookstore/README.md")
        return cls(
            database_url=os.environ[f"{PREFIX}DATABASE_URL"],
            jwt_secret=os.environ[f"{PREFIX}JWT_SECRET"],
            wake=os.environ.get(f"{PREFIX}WAKE") or None,
        )
