"""`outbox-relay pause` and `resume`: of topics, of all, or of the purge."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outbox_relay.cli.exits import Exit, fail
from outbox_relay.cli.operating import run_on, settings_of, somebody
from outbox_relay.cli.options import ConfigOption, JsonOption, SetOption
from outbox_relay.cli.pause_view import name_of, pause_text

if TYPE_CHECKING:
    from outbox_relay.config import Config
    from outbox_relay.operations import Access, Pause

TopicsArgument = Annotated[list[str] | None, typer.Argument(metavar="TOPIC", help="These topics.")]
AllTopicsOption = Annotated[bool, typer.Option("--all", help="All topics, also those to come.")]
PurgeOption = Annotated[bool, typer.Option("--purge", help="The purge of old rows.")]


def pause(
    topics: TopicsArgument = None,
    *,
    config: ConfigOption = None,
    flags: SetOption = None,
    everything: AllTopicsOption = False,
    the_purge: PurgeOption = False,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why, for whoever looks at status.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """
    Pause topics, all of them, or the purge.

    Relays follow within about a second, and those that start meanwhile obey. Events stay pending, cost
    no attempt and keep their order. Without a topic and an option it shows what pauses.
    """
    from outbox_relay.operations import pause as pause_them
    from outbox_relay.operations import paused

    settings = settings_of(config, flags)
    wanted = _wanted(topics, everything=everything, the_purge=the_purge)

    async def work(access: Access) -> tuple[list[Pause], list[Pause]]:
        done = []
        if wanted:
            done = await pause_them(access, wanted, reason=reason, by=somebody())
        return done, await paused(access)

    done, now = run_on(settings, work)
    _log(settings, "pause_begun", done)
    if as_json:
        _print_json("paused", done, now)
        return
    names = {found.topic for found in done}
    for found in now:
        word = "paused" if found.topic in names else "was paused before" if wanted else "paused"
        if not wanted or found.topic in wanted:
            typer.echo(f"{word}: {pause_text(found)}")
    if not now:
        typer.echo("nothing pauses")


def resume(
    topics: TopicsArgument = None,
    *,
    config: ConfigOption = None,
    flags: SetOption = None,
    everything: AllTopicsOption = False,
    the_purge: PurgeOption = False,
    as_json: JsonOption = False,
) -> None:
    """
    Let topics, or the purge, go on.

    Relays follow within about a second and publish what waits, in its order. --all undoes `pause --all`:
    topics that are paused by name stay paused, and are listed.
    """
    from outbox_relay.operations import paused
    from outbox_relay.operations import resume as resume_them

    settings = settings_of(config, flags)
    wanted = _wanted(topics, everything=everything, the_purge=the_purge)
    if not wanted:
        fail(Exit.USAGE, "say what goes on: a topic, --all or --purge")

    async def work(access: Access) -> tuple[list[Pause], list[Pause]]:
        return await resume_them(access, wanted), await paused(access)

    done, now = run_on(settings, work)
    _log(settings, "pause_ended", done)
    if as_json:
        _print_json("resumed", done, now)
        return
    for found in done:
        typer.echo(f"goes on: {pause_text(found)}")
    for name in sorted(set(wanted) - {found.topic for found in done}):
        typer.echo(f"was not paused: {name_of(name)}")
    for found in now:
        typer.echo(f"still paused: {pause_text(found)}")


def _wanted(topics: Sequence[str] | None, *, everything: bool, the_purge: bool) -> list[str]:
    from outbox_relay.operations import ALL_TOPICS, THE_PURGE

    special = [*([ALL_TOPICS] if everything else []), *([THE_PURGE] if the_purge else [])]
    return [*(topics or ()), *special]


def _log(settings: Config, event: str, done: Sequence[Pause]) -> None:
    from outbox_relay.logs import configure_logs, get_logger

    configure_logs(settings.log)
    for found in done:
        get_logger().info(event, topic=found.topic, reason=found.reason, by=somebody())


def _print_json(verb: str, done: Sequence[Pause], now: Sequence[Pause]) -> None:
    told = {verb: [_as_json(found) for found in done], "paused_now": [_as_json(p) for p in now]}
    typer.echo(json.dumps(told))


def _as_json(found: Pause) -> dict[str, Any]:
    return {
        "topic": found.topic,
        "paused_at": f"{found.paused_at.isoformat()}Z",
        "reason": found.reason,
    }
