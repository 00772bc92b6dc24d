"""
A real MariaDB server with durable settings.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.services.process import MissingPartError
from tests.services.sql_server import SqlServer


def find_program(name: str) -> str:
    """The path of a MariaDB program; Debian keeps the server where PATH may not look."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if path is None:
        raise MissingPartError(
            f"{name} is not installed; run: python -m tests.services.install "
            "(or: apt-get install mariadb-server mariadb-client)"
        )
    return path


class MariaDB(SqlServer):
    """MariaDB on 127.0.0.1 with the user ob/ob, who owns every database named ob_…"""

    name = "mariadb"

    def __init__(self, folder: Path | None = None, *, extra_args: Sequence[str] = ()) -> None:
        find_program("mariadbd")
        super().__init__(folder, extra_args=extra_args)

    def _program(self) -> str:
        return find_program("mariadbd")

    def _make_data(self) -> Sequence[str]:
        return [
            find_program("mariadb-install-db"),
            *self._common_arguments(),
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ]

    @property
    def _first_statements(self) -> Sequence[str]:
        # An anonymous user of localhost would be chosen before 'ob'@'%'.
        return ("DELETE FROM mysql.global_priv WHERE User = '';", "FLUSH PRIVILEGES;")
