"""
A real PostgreSQL server with durable settings.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil
import psycopg

from tests.services.database import Database
from tests.services.process import MissingPartError, Service, ServiceFailedError, free_port

USER = PASSWORD = "ob"
OWNER = "postgres"
"""The system's user who runs the server, which refuses to be run by root, and its superuser."""

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "max_prepared_transactions": "10",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "password_encryption": "scram-sha-256",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
}


# Sessions, prepared transactions, settings and schemas that a new database has not.
SPECIAL = """
SELECT (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid())
    + (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database())
    + (SELECT count(*) FROM pg_db_role_setting WHERE setdatabase =
        (SELECT oid FROM pg_database WHERE datname = current_database()))
    + (SELECT count(*) FROM pg_namespace
        WHERE nspname NOT IN ('public', 'information_schema') AND nspname NOT LIKE 'pg\\_%')
"""


def find_program(name: str) -> str:
    """The path of a program of the newest PostgreSQL; Debian keeps them apart by version."""
    folders = Path("/usr/lib/postgresql").glob("*/bin")
    for folder in sorted(folders, key=lambda path: float(path.parent.name), reverse=True):
        if (folder / name).exists():
            return str(folder / name)
    path = shutil.which(name)
    if path is None:
        raise MissingPartError(
            f"{name} is not installed; run: python -m tests.services.install "
            "(or: apt-get install postgresql)"
        )
    return path


class PostgreSQL(Service):
    """PostgreSQL on 127.0.0.1 with the user ob/ob, who owns every database named ob_…"""

    name = "postgresql"
    host = "127.0.0.1"

    def __init__(self, folder: Path | None = None, *, settings: dict[str, str] | None = None):
        find_program("postgres")
        super().__init__(folder)
        self.port = free_port()
        self._data = self.folder / "data"
        self._settings = SETTINGS | (settings or {})

    def create_database(self) -> Database:
        """A new empty database that the user ob owns."""
        name = f"ob_{uuid.uuid4().hex[:12]}"
        with self.root_connection() as connection:
            connection.execute(f"CREATE DATABASE {name} OWNER {USER}")
        return self.database(name)

    def empty(self, database: Database) -> bool:
        """Make it as if it were new. False, and it is left alone, if somebody uses it or has set it up."""
        self.heal()
        try:
            with self.root_connection(database.name) as connection:
                if connection.execute(SPECIAL).fetchone() != (0,):
                    return False
                connection.execute("SET lock_timeout = 1000")
                connection.execute("DROP SCHEMA public CASCADE")
                connection.execute(f"CREATE SCHEMA public AUTHORIZATION {USER}")
                connection.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")
        except psycopg.Error:
            return False
        return True

    def database(self, name: str, *, port: int | None = None) -> Database:
        """The address of the database *name*, at another port if a pooler is there."""
        address = f"{USER}:{PASSWORD}@{self.host}:{port or self.port}/{name}"
        return Database(
            name=name,
            async_url=f"postgresql+asyncpg://{address}",
            sync_url=f"postgresql+psycopg://{address}",
        )

    def root_connection(self, database: str = "postgres") -> psycopg.Connection:
        """A connection with every right, in autocommit, for the caller to close."""
        return psycopg.connect(
            host=str(self.folder), port=self.port, user=OWNER, dbname=database, autocommit=True
        )

    def _command(self) -> Sequence[str]:
        settings = self._settings | {
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            **_quick_recovery(),
        }
        return [
            *as_owner(),
            find_program("postgres"),
            "-D",
            str(self._data),
            *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
        ]

    def _prepare(self) -> None:
        if self._data.exists():
            # What a killed server left behind would keep the next one from starting.
            (self._data / "postmaster.pid").unlink(missing_ok=True)
            return
        if os.geteuid() == 0:
            shutil.chown(self.folder, user=OWNER)
        command = [*as_owner(), find_program("initdb"), "-D", str(self._data), "-U", OWNER]
        locale = [
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
        ]
        done = subprocess.run(
            [*command, *locale], capture_output=True, text=True, check=False, cwd=self.folder
        )
        if done.returncode != 0:
            shutil.rmtree(self._data, ignore_errors=True)
            raise ServiceFailedError(f"initdb failed:\n{done.stdout}{done.stderr}")

    def _is_ready(self) -> bool:
        try:
            with self.root_connection() as connection:
                known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (USER,))
                if known.fetchone() is None:
                    connection.execute(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")
                return True
        except psycopg.Error:
            return False

    def _signal(self, number: signal.Signals) -> None:
        if not self.is_running:
            return
        # A session has a process group of its own, and would go on when the first process is frozen.
        sessions = psutil.Process(self.pid).children(recursive=True)
        # SIGTERM would wait until every client has gone.
        super()._signal(signal.SIGINT if number == signal.SIGTERM else number)
        if number in (signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL):
            for session in sessions:
                with suppress(psutil.NoSuchProcess):
                    session.send_signal(number)
        if number == signal.SIGKILL:
            # The next start is refused while one of them holds the shared memory.
            _wait_until_ended(sessions)


@cache
def _quick_recovery() -> dict[str, str]:
    """After a kill, one call for all files instead of one for each file of each database."""
    text = subprocess.run(
        [find_program("postgres"), "--version"], capture_output=True, text=True, check=True
    ).stdout
    version = re.search(r"\d+", text)
    is_known = version is not None and int(version[0]) >= 14
    return {"recovery_init_sync_method": "syncfs"} if is_known else {}


def _wait_until_ended(processes: Sequence[psutil.Process]) -> None:
    """
    Until they hold nothing any more. Who has to take note of their end, which makes them vanish, may take seconds.
    """
    deadline = time.monotonic() + 10
    while any(map(_is_at_work, processes)) and time.monotonic() < deadline:
        time.sleep(0.005)


def _is_at_work(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def as_owner() -> list[str]:
    """What runs a program as the user postgres, if we are root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={OWNER}", f"--regid={OWNER}", "--init-groups"]
