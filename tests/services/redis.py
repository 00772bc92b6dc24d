"""
A real Redis server that writes to its log before it answers.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from redis import Redis as Client
from redis.exceptions import RedisError

from tests.services.process import MissingPartError, Service, free_port

SETTINGS = {
    "bind": "127.0.0.1",
    "appendonly": "yes",
    "appendfsync": "always",
    "save": '""',
    "daemonize": "no",
}


def find_redis() -> str:
    """The path of the program."""
    path = shutil.which("redis-server")
    if path is None:
        raise MissingPartError(
            "redis-server is not installed; run: python -m tests.services.install "
            "(or: apt-get install redis-server)"
        )
    return path


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a stream."""

    id: str
    fields: dict[bytes, bytes]


class Redis(Service):
    """One server on 127.0.0.1; *config* holds lines of redis.conf, such as ``{"requirepass": "x"}``."""

    name = "redis"
    host = "127.0.0.1"

    def __init__(
        self, folder: Path | None = None, *, config: Mapping[str, str] | None = None
    ) -> None:
        find_redis()
        super().__init__(folder)
        self.port = free_port()
        self._config = {**SETTINGS, **(config or {})}

    @property
    def url(self) -> str:
        """What a client connects to; a password is not part of it."""
        return f"redis://{self.host}:{self.port}/0"

    def client(self) -> Client:
        """A blocking client of bytes, for the caller to close."""
        return Client.from_url(
            self.url, password=self._config.get("requirepass"), socket_timeout=10
        )

    def entries(self, stream: str) -> list[Entry]:
        """Every entry of *stream*, oldest first; none where there is no such stream."""
        with self.client() as client:
            found = client.xrange(stream)
        return [Entry(name.decode(), dict(fields)) for name, fields in found]

    def _command(self) -> Sequence[str]:
        return [find_redis(), str(self.folder / "redis.conf")]

    def _prepare(self) -> None:
        lines = {"port": str(self.port), "dir": str(self.folder), **self._config}
        text = "".join(f"{name} {value}\n" for name, value in lines.items())
        (self.folder / "redis.conf").write_text(text)

    def _is_ready(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except RedisError:
            return False
