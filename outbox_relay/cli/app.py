"""The commands, joined."""

from __future__ import annotations

from typing import Annotated

import typer

from outbox_relay._version import __version__
from outbox_relay.cli.adopt import adopt
from outbox_relay.cli.audit import audit
from outbox_relay.cli.check_config import check_config
from outbox_relay.cli.dead_letters import dead_letters
from outbox_relay.cli.demo import demo
from outbox_relay.cli.doctor import doctor
from outbox_relay.cli.events import events
from outbox_relay.cli.migrate import migrate
from outbox_relay.cli.pausing import pause, resume
from outbox_relay.cli.purge import purge
from outbox_relay.cli.replay import replay
from outbox_relay.cli.run import run
from outbox_relay.cli.status import status

app = typer.Typer(
    name="outbox-relay",
    help="Publishes the events of an outbox table to Kafka: at least once, in order per key.",
    no_args_is_help=True,
    add_completion=False,
    # Tracebacks with local variables would show passwords and payloads.
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"outbox-relay {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the release and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


app.command()(run)
app.command()(demo)
app.command()(migrate)
app.command("check-config")(check_config)
app.command()(status)
app.command()(doctor)
app.command()(audit)
app.add_typer(events)
app.command()(pause)
app.command()(resume)
app.command()(replay)
app.command()(purge)
app.add_typer(dead_letters)
app.add_typer(adopt)
