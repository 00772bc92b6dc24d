"""
The benchmarks as commands: `python -m benchmarks drain --database postgresql --rows 200000 --runs 3`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks import audit as audits
from benchmarks import drain as draining
from benchmarks import flatness as flat
from benchmarks import idle as idling
from benchmarks import inbox as inboxes
from benchmarks import insert as inserting
from benchmarks import latency as latencies
from benchmarks import lookups as looking
from benchmarks import mediator as mediators
from benchmarks import migrating, report
from benchmarks import poison as poisons
from benchmarks import replaying as replays
from benchmarks import roundtrip as roundtrips
from benchmarks import several as sharing
from benchmarks import takeover as takeovers
from benchmarks.results import RESULTS
from benchmarks.rivals.install import part_versions
from benchmarks.rivals.scenario import Size
from benchmarks.rivals.scenario import rivals as side_by_side
from benchmarks.runs import record
from benchmarks.servers import Kind, servers

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)

Database = Annotated[Kind, typer.Option(help="Which database holds the outbox.")]
Rows = Annotated[int, typer.Option(min=1, help="Rows of the backlog.")]
Runs = Annotated[int, typer.Option(min=1, help="Repetitions of each case.")]
Beside = Annotated[bool, typer.Option(help="Measure python-cqrs too, on MariaDB.")]
Results = Annotated[Path, typer.Option(help="Folder for the JSON.")]

TEN_MILLION = 10_000_000


@app.callback()
def benchmarks() -> None:
    """Each command measures one thing, prints it and keeps it as JSON."""


@app.command()
def drain(
    database: Database = Kind.MARIADB,
    rows: Rows = 200_000,
    runs: Runs = 3,
    full: Annotated[
        bool, typer.Option("--full", help="python-cqrs on all the rows too: minutes.")
    ] = False,
    beside: Beside = True,
    results: Results = RESULTS,
) -> None:
    """How fast a backlog drains, marking rows and deleting them, beside python-cqrs."""
    record(
        "drain",
        lambda running: draining.measure(running, rows=rows, runs=runs, full=full, beside=beside),
        database=database,
        results=results,
        options=f" --rows {rows} --runs {runs}{' --full' if full else ''}",
        start=servers,
    )


@app.command()
def latency(
    database: Database = Kind.MARIADB,
    rate: Annotated[int, typer.Option(min=1, help="Events a second.")] = 200,
    seconds: Annotated[int, typer.Option(min=1, help="How long they are counted.")] = 15,
    runs: Runs = 1,
    sidecars: Annotated[int, typer.Option(min=2, help="Relays, of which one works.")] = 20,
    results: Results = RESULTS,
) -> None:
    """From commit to consumer: with a hint, with a hint to a standby, with the poll."""
    record(
        "latency",
        lambda running: latencies.measure(
            running, rate=rate, seconds=seconds, runs=runs, sidecars=sidecars
        ),
        database=database,
        results=results,
        options=f" --rate {rate} --seconds {seconds} --runs {runs} --sidecars {sidecars}",
        start=servers,
    )


@app.command()
def migrate(
    database: Annotated[
        migrating.Migrated, typer.Option(help="Which database holds the outbox.")
    ] = migrating.Migrated.MARIADB,
    rows: Annotated[int, typer.Option(min=1, help="Rows of the table.")] = TEN_MILLION,
    results: Results = RESULTS,
) -> None:
    """Migrations of a large table while applications write: the longest that a writer waits."""
    record(
        "migrate",
        lambda running: migrating.measure(running, rows=rows),
        database=database,
        results=results,
        options=f" --rows {rows}",
        start=migrating.server,
    )


@app.command()
def idle(
    database: Database = Kind.MARIADB,
    standbys: Annotated[int, typer.Option(min=1, help="Relays that stand by.")] = 20,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each look takes.")] = 10.0,
    runs: Runs = 2,
    results: Results = RESULTS,
) -> None:
    """CPU, statements and memory of relays that have nothing to do."""
    record(
        "idle",
        lambda running: idling.measure(running, standbys=standbys, seconds=seconds, runs=runs),
        database=database,
        results=results,
        options=f" --standbys {standbys} --seconds {seconds:g} --runs {runs}",
        start=servers,
    )


@app.command()
def insert(
    database: Database = Kind.MARIADB,
    rows: Annotated[int, typer.Option(min=1, help="Transactions of each run.")] = 1000,
    runs: Runs = 5,
    beside: Beside = True,
    results: Results = RESULTS,
) -> None:
    """What an event costs its writer, beside a bare Core INSERT and python-cqrs."""
    record(
        "insert",
        lambda running: inserting.measure(running.database, rows=rows, runs=runs, beside=beside),
        database=database,
        results=results,
        options=f" --rows {rows} --runs {runs}",
        start=servers,
    )


@app.command()
def inbox(
    database: Database = Kind.MARIADB,
    rows: Annotated[int, typer.Option(min=1, help="Transactions of each run.")] = 1000,
    runs: Runs = 5,
    results: Results = RESULTS,
) -> None:
    """What the inbox costs a consumer's handler."""
    record(
        "inbox",
        lambda running: inboxes.measure(running.database, rows=rows, runs=runs),
        database=database,
        results=results,
        options=f" --rows {rows} --runs {runs}",
        start=servers,
    )


@app.command()
def mediator(
    database: Database = Kind.MARIADB,
    rows: Annotated[int, typer.Option(min=1, help="Commands with an event in each run.")] = 1000,
    runs: Runs = 5,
    results: Results = RESULTS,
) -> None:
    """What a command through a mediator costs, beside python-cqrs; on MariaDB alone."""
    if database is not Kind.MARIADB:
        raise typer.BadParameter("python-cqrs is measured on MariaDB alone")
    record(
        "mediator",
        lambda running: mediators.measure(running.database, rows=rows, runs=runs),
        database=database,
        results=results,
        options=f" --rows {rows} --runs {runs}",
        start=servers,
    )


@app.command()
def flatness(
    database: Database = Kind.MARIADB,
    rows: Rows = 100_000,
    many: Annotated[int, typer.Option(min=1, help="Rows kept, pending, paused.")] = 1_000_000,
    ten_million: Annotated[
        bool, typer.Option("--ten-million", help="--many 10000000: half an hour.")
    ] = False,
    runs: Runs = 1,
    results: Results = RESULTS,
) -> None:
    """Whether a row costs the same whatever is around it."""
    many = TEN_MILLION if ten_million else many
    record(
        "flatness",
        lambda running: flat.measure(running, rows=rows, many=many, runs=runs),
        database=database,
        results=results,
        options=f" --rows {rows} --many {many} --runs {runs}",
        start=servers,
    )


@app.command()
def several(
    database: Database = Kind.MARIADB,
    rows: Rows = 200_000,
    relays: Annotated[int, typer.Option(min=2, help="Relays on one table.")] = 4,
    runs: Runs = 3,
    results: Results = RESULTS,
) -> None:
    """One relay beside several on one table."""
    if not sharing.is_possible():
        typer.echo(f"not run: this release has no setting {sharing.SETTING}")
        return
    record(
        "several",
        lambda running: sharing.measure(running, rows=rows, runs=runs, relays=relays),
        database=database,
        results=results,
        options=f" --rows {rows} --relays {relays} --runs {runs}",
        start=servers,
    )


@app.command()
def takeover(
    database: Database = Kind.MARIADB,
    times: Annotated[int, typer.Option(min=1, help="Relays that come and go.")] = 12,
    results: Results = RESULTS,
) -> None:
    """How long nobody relays after the owner was told to stop, or was killed."""
    record(
        "takeover",
        lambda running: takeovers.measure(running, times=times),
        database=database,
        results=results,
        options=f" --times {times}",
        start=servers,
    )


@app.command()
def roundtrip(
    database: Database = Kind.MARIADB,
    rows: Rows = 100_000,
    runs: Runs = 2,
    beside: Beside = True,
    results: Results = RESULTS,
) -> None:
    """A broker or a database that is further away."""
    record(
        "roundtrip",
        lambda running: roundtrips.measure(running, rows=rows, runs=runs, beside=beside),
        database=database,
        results=results,
        options=f" --rows {rows} --runs {runs}",
        start=roundtrips.far_servers,
    )


@app.command()
def rivals(
    database: Database = Kind.MARIADB,
    rows: Rows = 200_000,
    few_rows: Annotated[int, typer.Option(min=1, help="Rows beside watermill.")] = 20_000,
    runs: Runs = 3,
    results: Results = RESULTS,
) -> None:
    """Our relay beside Debezium and watermill's forwarder; on MariaDB alone."""
    if database is not Kind.MARIADB:
        raise typer.BadParameter("Debezium and watermill are measured on MariaDB alone")
    size = Size(rows=rows, few_rows=few_rows, runs=runs)
    record(
        "rivals",
        lambda running: side_by_side(running, size),
        database=database,
        results=results,
        options=f" --rows {rows} --few-rows {few_rows} --runs {runs}",
        start=servers,
        others=part_versions(),
    )


@app.command()
def poison(
    trouble: Annotated[
        poisons.Trouble, typer.Option(help="Of the other topic.")
    ] = poisons.Trouble.TOO_FEW_REPLICAS,
    seconds: Annotated[float, typer.Option(min=1, help="How long each is counted.")] = 20.0,
    rate: Annotated[int, typer.Option(min=10, help="Events a second, of both topics.")] = 300,
) -> None:
    """p99 of a healthy topic beside one that fails for good, on three brokers. Keeps no JSON."""
    typer.echo(poisons.report(poisons.measure(trouble, seconds=seconds, rate=rate)))


@app.command()
def lookups(
    database: Database = Kind.MARIADB,
    rows: Annotated[int, typer.Option(min=2000, help="Rows of each table.")] = 1_000_000,
    times: Annotated[int, typer.Option(min=1, help="How often each is asked.")] = 20,
) -> None:
    """What `events` and `status` cost beside many rows. Keeps no JSON."""
    typer.echo(looking.report(looking.measure(database, rows=rows, times=times)))


@app.command()
def replay(
    database: Database = Kind.MARIADB,
    rate: Annotated[int, typer.Option(min=1, help="Live events a second.")] = 200,
    seconds: Annotated[int, typer.Option(min=1, help="How long each is counted.")] = 20,
    beside: Annotated[
        list[int] | None, typer.Option(help="Events a second of the replay. [default: 500, 2000]")
    ] = None,
    runs: Runs = 3,
) -> None:
    """p99 of live events without and with a replay beside them, in turn. Keeps no JSON."""
    typer.echo(
        replays.measure(
            database, rate=rate, seconds=seconds, beside=tuple(beside or (500, 2000)), runs=runs
        )
    )


@app.command()
def audit(rows: Rows = 1_000_000) -> None:
    """One audit of so many events on MariaDB and Kafka, a few faults planted. Keeps no JSON."""
    with servers(Kind.MARIADB) as running:
        typer.echo(audits.measure(running, rows=rows).text())


@app.command()
def page(results: Results = RESULTS) -> None:
    """Write docs/benchmarks.md and its charts from the JSON of the runs."""
    from benchmarks.charts import draw

    draw(results, report.CHARTS)
    report.PAGE.write_text(report.page(results), encoding="utf-8")
    typer.echo(f"wrote {report.PAGE.relative_to(report.ROOT)}")


@app.command(name="all")
def everything(results: Results = RESULTS) -> None:
    """What `make bench` runs: every scenario, then the page. About ten minutes."""
    drain(results=results)
    drain(Kind.POSTGRESQL, results=results)
    latency(results=results)
    idle(results=results)
    insert(results=results)
    inbox(results=results)
    mediator(results=results)
    flatness(results=results)
    several(results=results)
    takeover(results=results)
    roundtrip(results=results)
    page(results=results)


if __name__ == "__main__":
    app()
