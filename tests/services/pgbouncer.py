"""
A real PgBouncer that gives each transaction another connection to its server.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import psycopg

from tests.services.database import Database
from tests.services.postgresql import OWNER, PASSWORD, USER, PostgreSQL, as_owner
from tests.services.process import MissingPartError, Service, free_port


def find_pgbouncer() -> str:
    """The path of the program; Debian keeps it where PATH may not look."""
    path = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if path is None:
        raise MissingPartError(
            "pgbouncer is not installed; run: python -m tests.services.install "
            "(or: apt-get install pgbouncer)"
        )
    return path


class PgBouncer(Service):
    """In front of *server*, with pool_mode = transaction."""

    name = "pgbouncer"

    def __init__(self, server: PostgreSQL, folder: Path | None = None) -> None:
        find_pgbouncer()
        super().__init__(folder)
        self.server = server
        self.port = free_port()

    def database(self, database: Database) -> Database:
        """*database* as clients of the pooler address it."""
        return self.server.database(database.name, port=self.port)

    def _command(self) -> Sequence[str]:
        return [*as_owner(), find_pgbouncer(), str(self.folder / "pgbouncer.ini")]

    def _prepare(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self.folder, user=OWNER)
        (self.folder / "users.txt").write_text(f'"{USER}" "{PASSWORD}"\n')
        (self.folder / "pgbouncer.ini").write_text(
            "[databases]\n"
            f"* = host={self.server.host} port={self.server.port}\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {self.folder / 'users.txt'}\n"
            # The oldest connection next: two transactions of a client seldom get the same one.
            "pool_mode = transaction\nserver_round_robin = 1\ndefault_pool_size = 8\n"
            "min_pool_size = 4\n"
        )

    def _is_ready(self) -> bool:
        try:
            psycopg.connect(
                f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/postgres", connect_timeout=2
            ).close()
        except psycopg.Error:
            return False
        return True
