"""`outbox-relay migrate`."""

from __future__ import annotations

import logging

import typer

from outbox_relay.cli.exits import errors_as_exits, require_driver
from outbox_relay.cli.options import ConfigOption, SetOption, load


def migrate(config: ConfigOption = None, flags: SetOption = None) -> None:
    """
    Create the tables, or bring them to the version of this release.

    Safe to repeat, to run by several at once, and while relays run.
    """
    from outbox_relay.migrate import migrate as apply

    # asyncmy logs each note of the server, such as that a primary key's name is ignored.
    logging.getLogger("asyncmy").setLevel(logging.ERROR)
    with errors_as_exits():
        settings = load(config, flags)
        require_driver(settings.database.url)
        steps = apply(settings.database)
    for step in steps:
        typer.echo(f"applied {step}")
    if not steps:
        typer.echo("nothing to do: the tables are up to date")
