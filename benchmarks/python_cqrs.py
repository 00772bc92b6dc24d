"""
python-cqrs beside us: the same orders, the same servers, its own virtual environment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from benchmarks.programs import ROOT, Program, ProgramFailedError, run_program
from benchmarks.relays import drain
from benchmarks.results import Case
from benchmarks.servers import Servers
from benchmarks.topic import check, fresh_topic
from tests.services.database import Database

NAME: Final = "python-cqrs 5.3.0"
PYTHON: Final = ROOT / ".venv-cqrs" / "bin" / "python"
NOTE: Final = (
    "batches of 100 as in its documents, without their pause of 10 s between batches; it writes "
    "neither key nor headers, so the events of a key spread over the partitions"
)
FILL_SECONDS: Final = 600.0


def start_program(argument: dict[str, Any]) -> Program:
    """A program of python-cqrs that waits for "go"."""
    if not PYTHON.exists():
        raise ProgramFailedError(f"{PYTHON} is not there; run: make bench-install")
    program = Program("benchmarks.cqrs_program", argument, python=PYTHON)
    program.answer()
    return program


def fill(database: Database, topic: str, rows: int) -> None:
    """Its table, with the orders, written by itself."""
    if not PYTHON.exists():
        raise ProgramFailedError(f"{PYTHON} is not there; run: make bench-install")
    argument = {"do": "fill", "url": database.async_url, "topic": topic, "rows": rows}
    run_program("benchmarks.cqrs_program", argument, seconds=FILL_SECONDS, python=PYTHON)


def measure_once(
    servers: Servers,
    rows: int,
    *,
    bootstrap: str = "",
    address: Callable[[str], str] = str,
) -> dict[str, float]:
    """Fill, drain, count; the drain through *bootstrap* and the *address* of the database."""
    database = servers.database.create_database()
    topic = fresh_topic(servers.kafka)
    fill(database, topic, rows)
    argument = {
        "do": "drain",
        "url": address(database.async_url),
        "bootstrap": bootstrap or servers.kafka.bootstrap_servers,
    }
    with start_program(argument) as relay:
        found = drain(servers, relay, rows)
    account = check(servers.kafka, topic, rows)
    servers.database.drop(database.name)
    return {"rows_per_second": account.rate(), **found, **account.fields()}


def theirs(servers: Servers, rows: int, runs: int) -> Case:
    """Its drain, *runs* times."""
    return Case(
        name="",
        system=NAME,
        database=servers.database.title,
        rows=rows,
        runs=[measure_once(servers, rows) for _ in range(runs)],
        note=NOTE,
    )
