"""`outbox-relay demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from outbox_relay.cli.exits import require


def demo(
    seconds: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=5.0, help="How long the shop takes orders and trouble is made."
        ),
    ] = 25.0,
    plain: Annotated[
        bool, typer.Option("--plain", help="One line a second instead of a live screen.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the temporary folder, and print where it is.")
    ] = False,
) -> None:
    """
    Show that no event is lost when relay and broker fail.

    A shop takes orders meanwhile. Needs no service: SQLite and an embedded broker run in a temporary
    folder. Exits with 1 if the account does not balance.
    """
    require("confluent_kafka", extra="demo", purpose="the demo's broker")
    require("aiosqlite", extra="demo", purpose="the demo's database")
    from outbox_relay.demo.scenario import run_demo

    raise typer.Exit(run_demo(seconds=seconds, plain=plain, keep=keep))
