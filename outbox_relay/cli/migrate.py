"""`outbox-relay migrate`."""

from __future__ import annotations

import logging
from typing import Annotated

import typer
from sqlalchemy.engine import make_url

from outbox_relay.cli.exits import Exit, errors_as_exits, fail, require_driver
from outbox_relay.cli.options import ConfigOption, SetOption, load


def migrate(
    config: ConfigOption = None,
    flags: SetOption = None,
    as_sql: Annotated[
        bool, typer.Option("--sql", help="Print the statements instead; connects to nothing.")
    ] = False,
    since: Annotated[
        int, typer.Option("--since", metavar="VERSION", min=0, help="With --sql: what is there.")
    ] = 0,
    only_check: Annotated[
        bool, typer.Option("--check", help="Tell what is missing, and exit with 1 if anything is.")
    ] = False,
) -> None:
    """
    Create the tables, or bring them up to date.

    Safe to repeat, to run by several at once, and while relays run.
    """
    from outbox_relay.migrate import check, sql_script
    from outbox_relay.migrate import migrate as apply

    if as_sql and only_check:
        fail(Exit.USAGE, "--sql and --check exclude one another")
    # asyncmy logs each note of the server, such as that a primary key's name is ignored.
    logging.getLogger("asyncmy").setLevel(logging.ERROR)
    with errors_as_exits():
        settings = load(config, flags)
        url = settings.database.url
        if settings.database.layout == "python-cqrs":
            fail(
                Exit.USAGE,
                'database.layout = "python-cqrs": that table is not ours to migrate; run '
                "`outbox-relay adopt python-cqrs --prepare`",
            )
        if as_sql:
            table, schema = settings.database.table, settings.database.schema or None
            dialect = make_url(url).get_backend_name()
            typer.echo(sql_script(dialect, table=table, schema=schema, since=since), nl=False)
            return
        require_driver(url)
        if only_check:
            missing = check(settings.database)
            for line in missing or ["nothing is missing: the tables are up to date"]:
                typer.echo(line)
            raise typer.Exit(Exit.FAILED if missing else Exit.OK)
        steps = apply(settings.database, on_wait=_tell_that_it_waits)
    for step in steps:
        typer.echo(f"applied {step}")
    if not steps:
        typer.echo("nothing to do: the tables are up to date")


def _tell_that_it_waits() -> None:
    typer.echo("waiting: a transaction holds the lock of a table; trying again", err=True)
