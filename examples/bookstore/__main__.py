"""
`python -m examples.bookstore`: the store, its relay and the invoices on this machine, until Ctrl-C.

Needs no service: SQLite and an embedded broker, in a temporary folder. With --database-url,
--invoices-url and --bootstrap-servers it uses a database server and a Kafka cluster that run already.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from pathlib import Path

from examples.bookstore.auth import issue
from examples.bookstore.local import Local, Place
from outbox_relay.demo.processes import ChildEnded

ROLES = (
    "admin",
    "create-author",
    "create-book",
    "delete-book",
    "sell-book",
    "update-book",
    "view-books",
)

WELCOME = """\
The store is on {url}; its pages are on {url}/docs, its WebSocket is {ws}/ws.
A token with every role, for an hour:

export TOKEN={token}

An author, a book, and a sale; the invoice follows below:

curl -sS {url}/authors -H "authorization: Bearer $TOKEN" --json '{{"name": "Octavia Butler"}}'
curl -sS {url}/books -H "authorization: Bearer $TOKEN" --json '{{"title": "Kindred", "author_id": 1, "price_cents": 990, "copies": 10}}'
curl -sS -X PUT {url}/sales/$(python3 -c 'import uuid; print(uuid.uuid4())') -H "authorization: Bearer $TOKEN" --json '{{"book_id": 1, "copies": 2}}'

Ctrl-C ends it. Logs are in {folder}.
"""


def say(text: str) -> None:
    """Print *text* now."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def run(place: Place) -> int:
    """Until Ctrl-C or SIGTERM: 0. If a process ends by itself: 1."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    local = Local(place)
    following = None
    try:
        await local.start()
        url = f"127.0.0.1:{place.port}"
        token = issue(local.jwt_secret, *ROLES)
        said = {"url": f"http://{url}", "ws": f"ws://{url}", "folder": place.folder}
        say(WELCOME.format(token=token, **said).rstrip())
        following = asyncio.create_task(follow(local))
        while not stop.is_set():
            local.check()
            await asyncio.wait([asyncio.ensure_future(stop.wait())], timeout=0.5)
    except (ChildEnded, TimeoutError) as error:
        sys.stderr.write(f"{error or 'the store did not answer in time'}\n")
        return 1
    finally:
        await local.stop()
        if following is not None:
            await following
    return 0


async def follow(local: Local) -> None:
    """Print what the invoices' process says, to its end."""
    while line := await local.invoices.read_line():
        say(line.rstrip("\n"))


def place_of(said: argparse.Namespace, folder: Path) -> Place:
    """Where everything is to be."""
    return Place(
        folder=folder,
        port=said.port,
        database_url=said.database_url or f"sqlite+aiosqlite:///{folder.as_posix()}/bookstore.db",
        invoices_url=said.invoices_url or f"sqlite+aiosqlite:///{folder.as_posix()}/invoices.db",
        bootstrap_servers=said.bootstrap_servers or "",
    )


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.bookstore",
        description="The store, its relay and the invoices on this machine, until Ctrl-C.",
    )
    parser.add_argument("--port", type=int, default=8000, help="of the store (8000)")
    parser.add_argument(
        "--database-url", help="of the store: mysql+asyncmy://user:password@host/db"
    )
    parser.add_argument("--invoices-url", help="of the invoices, another database")
    parser.add_argument("--bootstrap-servers", help="of Kafka: host:port")
    said = parser.parse_args()
    given = [said.database_url, said.invoices_url, said.bootstrap_servers]
    if any(given) and not all(given):
        parser.error("give --database-url, --invoices-url and --bootstrap-servers, or none of them")
    with tempfile.TemporaryDirectory(prefix="bookstore-") as folder:
        return asyncio.run(run(place_of(said, Path(folder))))


if __name__ == "__main__":
    sys.exit(main())
