"""
What MariaDB and MySQL share as test services.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pymysql

from tests.services.database import Database
from tests.services.process import Service, ServiceFailedError, free_port

USER = PASSWORD = "ob"
DATABASE_PREFIX = "ob_"
LONGEST_SOCKET_PATH = 100

SETTINGS = (
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--character-set-server=utf8mb4",
    "--log-bin=binlog",
    "--binlog-format=ROW",
    "--server-id=1",
    "--sync-binlog=1",
    "--innodb-flush-log-at-trx-commit=1",
    "--max-allowed-packet=64M",
    "--max-connections=500",
)


class SqlServer(Service):
    """A server on 127.0.0.1 with the user ob/ob, who owns every database named ob_…"""

    host = "127.0.0.1"

    def __init__(self, folder: Path | None = None, *, extra_args: Sequence[str] = ()) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.socket = self.folder / "s"
        self._data = self.folder / "data"
        self._extra_args = tuple(extra_args)
        if len(str(self.socket)) > LONGEST_SOCKET_PATH:
            raise ServiceFailedError(f"{self.folder} is too long for a socket; use a shorter path")

    def create_database(self, character_set: str = "utf8mb4") -> Database:
        """A new empty database that the user ob owns."""
        name = f"{DATABASE_PREFIX}{uuid.uuid4().hex[:12]}"
        with self.root_connection() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name} CHARACTER SET {character_set}")
        address = f"{USER}:{PASSWORD}@{self.host}:{self.port}/{name}"
        return Database(
            name=name,
            async_url=f"mysql+asyncmy://{address}",
            sync_url=f"mysql+pymysql://{address}",
        )

    def root_connection(self, database: str | None = None) -> pymysql.Connection[Any]:
        """A connection with every right, in autocommit, for the caller to close."""
        return pymysql.connect(
            unix_socket=str(self.socket),
            user="root",
            database=database,
            autocommit=True,
            connect_timeout=5,
            read_timeout=30,
        )

    @abstractmethod
    def _program(self) -> str:
        """The path of the server's program."""

    @abstractmethod
    def _make_data(self) -> Sequence[str]:
        """The command that makes an empty data folder."""

    @property
    def _first_statements(self) -> Sequence[str]:
        """Statements of each start that are this server's own."""
        return ()

    @property
    def _own_settings(self) -> Sequence[str]:
        """Arguments that are this server's own."""
        return ()

    def _common_arguments(self) -> list[str]:
        return [
            "--no-defaults",
            # Run by root, the server refuses to start under root's own name.
            *(["--user=mysql"] if os.geteuid() == 0 else []),
            f"--datadir={self._data}",
            # A server that starts clears its temporary files there, other servers' too.
            f"--tmpdir={self.folder}",
        ]

    def _command(self) -> Sequence[str]:
        return [
            self._program(),
            *self._common_arguments(),
            f"--socket={self.socket}",
            f"--port={self.port}",
            *SETTINGS,
            *self._own_settings,
            f"--init-file={self._write_init_file()}",
            *self._extra_args,
        ]

    def _prepare(self) -> None:
        if self._data.exists():
            return
        if os.geteuid() == 0:
            shutil.chown(self.folder, user="mysql")
        command = self._make_data()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            shutil.rmtree(self._data, ignore_errors=True)
            program = Path(command[0]).name
            raise ServiceFailedError(f"{program} failed:\n{done.stdout}{done.stderr}")

    def _write_init_file(self) -> Path:
        """Statements of each start, before the first client: repeatable, so a kill does no harm."""
        statements = [
            *self._first_statements,
            *(
                line
                for host in ("%", "localhost")
                for line in (
                    f"CREATE USER IF NOT EXISTS '{USER}'@'{host}' IDENTIFIED BY '{PASSWORD}';",
                    f"GRANT ALL ON `ob\\_%`.* TO '{USER}'@'{host}';",
                )
            ),
        ]
        path = self.folder / "init.sql"
        path.write_text("\n".join(statements) + "\n")
        path.chmod(0o644)
        return path

    def _is_ready(self) -> bool:
        try:
            # connect_timeout would end with the handshake of TCP, which the kernel does alone.
            with pymysql.connect(
                host=self.host, port=self.port, user=USER, password=PASSWORD, read_timeout=2
            ):
                return True
        except pymysql.err.OperationalError:
            return False
