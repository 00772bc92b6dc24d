"""
The benchmarks as commands: `python -m benchmarks drain --database postgresql --rows 200000 --runs 3`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks import drain as draining
from benchmarks.results import RESULTS
from benchmarks.rivals.install import part_versions
from benchmarks.rivals.scenario import Size
from benchmarks.rivals.scenario import rivals as beside
from benchmarks.runs import record
from benchmarks.servers import Kind

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)

Database = Annotated[Kind, typer.Option(help="Which database holds the outbox.")]
Rows = Annotated[int, typer.Option(min=1, help="Rows of the backlog.")]
Runs = Annotated[int, typer.Option(min=1, help="Repetitions of each case.")]
Results = Annotated[Path, typer.Option(help="Folder for the JSON.")]


@app.callback()
def benchmarks() -> None:
    """Each command measures one thing, prints it and keeps it as JSON."""


@app.command()
def drain(
    database: Database = Kind.MARIADB,
    rows: Rows = 200_000,
    runs: Runs = 3,
    results: Results = RESULTS,
) -> None:
    """How fast a backlog drains."""
    record(
        "drain",
        lambda servers: [
            draining.ours(servers, rows, runs, settings) for settings in ({}, draining.DELETE)
        ],
        database=database,
        results=results,
        options=f" --rows {rows} --runs {runs}",
    )


@app.command()
def rivals(
    rows: Rows = 200_000,
    few_rows: Annotated[int, typer.Option(min=1, help="Rows beside watermill.")] = 20_000,
    runs: Runs = 3,
    results: Results = RESULTS,
) -> None:
    """Our relay beside Debezium and watermill's forwarder, on MariaDB."""
    size = Size(rows=rows, few_rows=few_rows, runs=runs)
    record(
        "rivals",
        lambda servers: beside(servers, size),
        database=Kind.MARIADB,
        results=results,
        others=part_versions(),
        options=f" --rows {rows} --few-rows {few_rows} --runs {runs}",
    )


if __name__ == "__main__":
    app()
