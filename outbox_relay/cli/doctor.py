"""`outbox-relay doctor`: what is wrong, why it matters, and the command that mends it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Final

import typer

from outbox_relay.cli.dead_letter_view import harmless
from outbox_relay.cli.exits import Exit, errors_as_exits, require_driver
from outbox_relay.cli.options import ConfigOption, JsonOption, SetOption, load
from outbox_relay.doctor.findings import Area, Finding, Findings, Severity
from outbox_relay.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

OnlyOption = Annotated[
    list[Area] | None,
    typer.Option("--only", metavar="AREA", help="This area. May be repeated."),
]

_STYLES = {
    Severity.OK: "green",
    Severity.NOTE: "cyan",
    Severity.WARNING: "yellow",
    Severity.ERROR: "bold red",
}
MOST_ALIKE: Final = 5
"""Of findings that differ by a name alone, so many are shown."""

_EXITS = {Severity.WARNING: Exit.WARNINGS, Severity.ERROR: Exit.ERRORS}


def doctor(
    config: ConfigOption = None,
    flags: SetOption = None,
    only: OnlyOption = None,
    as_json: JsonOption = False,
) -> None:
    """
    Say what is wrong, why, and which command mends it.

    Looks at configuration, database, broker, relay and wake: the areas. Changes nothing. Exits with
    0 if there is nothing but notes, with 5 if there are warnings, with 6 if there are errors, and
    with 2 if the settings do not load.
    """
    from outbox_relay.doctor import examine, invalid
    from outbox_relay.logs import CLIENT_LOGGERS

    try:
        settings = load(config, flags)
    except ConfigError as error:
        _tell(invalid(error), as_json=as_json)
        raise typer.Exit(Exit.USAGE) from None
    with errors_as_exits(), _quiet(CLIENT_LOGGERS):
        require_driver(settings.database.url)
        found = asyncio.run(examine(settings, only=tuple(only) if only else tuple(Area)))
    _tell(found, as_json=as_json)
    if code := _EXITS.get(found.severity):
        raise typer.Exit(code)


@contextmanager
def _quiet(loggers: Iterable[str]) -> Iterator[None]:
    """What client libraries log of a broker that is away, a finding says better."""
    before = {logging.getLogger(name): logging.getLogger(name).level for name in loggers}
    for logger in before:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)


def _tell(found: Findings, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found.as_json()))
        return
    from rich.console import Console

    console = Console(highlight=False)
    _areas(console, found)
    for alike in together(found.findings):
        _finding(console, alike)
    _rest(console, found)


def _areas(console: Console, found: Findings) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    for area in found.areas:
        style = "dim" if area in found.unseen else _STYLES[found.severity_of(area)]
        table.add_row(
            Text(str(area), style="bold"),
            Text(found.word_of(area).upper(), style=style),
            Text(harmless(found.facts.get(area, "")), style="dim"),
        )
    console.print(table)


def together(findings: Sequence[Finding]) -> list[list[Finding]]:
    """The findings, worst first; what is wrong with many topics alike, and is mended alike, is one."""
    alike: dict[object, list[Finding]] = {}
    for finding in sorted(findings, key=lambda item: -item.severity):
        same = (finding.severity, finding.code, finding.why, finding.mend)
        alike.setdefault(same, []).append(finding)
    return list(alike.values())


def _finding(console: Console, alike: list[Finding]) -> None:
    from rich.padding import Padding
    from rich.text import Text

    finding = alike[0]
    console.print()
    head = Text(finding.severity.name, style=_STYLES[finding.severity])
    console.print(head.append(f"  {finding.code}", style="bold"))
    some = [("", one.what) for one in alike[:MOST_ALIKE]]
    if len(alike) > MOST_ALIKE:
        some.append(("", f"... and {len(alike) - MOST_ALIKE:,} more, which --json names"))
    for label, text in (*some, ("Why: ", finding.why), ("Mend: ", finding.mend)):
        line = Text(label, style="dim").append(harmless(text), style="not dim")
        console.print(Padding(line, (0, 0, 0, 2)))
    for command in (command for one in alike[:MOST_ALIKE] for command in one.commands):
        # Whole, whatever the width: it is to be copied.
        console.print(Text(f"    {harmless(command.text)}", style="bold"), soft_wrap=True)
    console.print(Text(f"  docs/{finding.docs}", style="dim"), soft_wrap=True)


def _rest(console: Console, found: Findings) -> None:
    from rich.text import Text

    if found.skipped:
        console.print()
        for item in found.skipped:
            line = f"Not looked at: {harmless(item.what)}. It needs: {harmless(item.needs)}."
            console.print(Text(line, style="dim"))
    if found.findings:
        counts = Counter(finding.severity for finding in found.findings)
        words = ", ".join(
            f"{counts[severity]} {severity.word}{'' if counts[severity] == 1 else 's'}"
            for severity in sorted(counts, reverse=True)
        )
        console.print()
        console.print(f"{words}.")
