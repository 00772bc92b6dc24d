"""
The bookstore on MariaDB and Kafka of its own: `python -m tests.bookstore.servers`, until Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from examples.bookstore.__main__ import run
from examples.bookstore.local import Place
from tests.services.kafka import Kafka
from tests.services.mariadb import MariaDB
from tests.services.process import MissingPartError


def main() -> int:
    """The exit code of the bookstore; 1 if MariaDB or Kafka is not installed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bookstore.servers")
    parser.add_argument("--port", type=int, default=8000, help="of the store (8000)")
    said = parser.parse_args()
    try:
        with (
            MariaDB() as mariadb,
            Kafka() as kafka,
            tempfile.TemporaryDirectory(prefix="bookstore-") as folder,
        ):
            place = Place(
                folder=Path(folder),
                port=said.port,
                database_url=mariadb.create_database().async_url,
                invoices_url=mariadb.create_database().async_url,
                bootstrap_servers=kafka.bootstrap_servers,
            )
            return asyncio.run(run(place))
    except MissingPartError as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
