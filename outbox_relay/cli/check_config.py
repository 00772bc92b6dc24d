"""`outbox-relay check-config`."""

from __future__ import annotations

import sys

import typer

from outbox_relay.cli.exits import errors_as_exits
from outbox_relay.cli.options import ConfigOption, SetOption, load


def check_config(config: ConfigOption = None, flags: SetOption = None) -> None:
    """
    Print every setting and where it came from.

    Or everything that is wrong. Passwords are hidden. Connects to nothing.
    """
    with errors_as_exits():
        settings = list(load(config, flags).settings())
    if not sys.stdout.isatty():
        for key, value, origin in settings:
            typer.echo(f"{key} = {value}  # {origin}")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("setting", "value", "from", box=None, pad_edge=False)
    for key, value, origin in settings:
        style = "dim" if origin == "default" else ""
        table.add_row(*(Text(part, style=style) for part in (key, value, origin)))
    Console().print(table)
