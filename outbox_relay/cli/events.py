"""`outbox-relay events`: search the outbox, and look at one event and its life so far."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outbox_relay.cli import event_view as view
from outbox_relay.cli.event_options import (
    CeIdOption,
    NameOption,
    SinceOption,
    StatusOption,
    UntilOption,
    event_id_of,
    filter_of,
    row_or_event_id,
)
from outbox_relay.cli.exits import Exit, fail
from outbox_relay.cli.operating import run_on, settings_of
from outbox_relay.cli.options import (
    ConfigOption,
    FromIdOption,
    JsonOption,
    KeyOption,
    SetOption,
    ToIdOption,
    TopicOption,
    bounded,
)

if TYPE_CHECKING:
    from uuid import UUID

    from outbox_relay.config import Config
    from outbox_relay.operations import Access, EventFilter, EventLife, Lookup, Page

events = typer.Typer(
    name="events",
    help="Search the outbox; look at one event and its life so far.",
    no_args_is_help=True,
)

SecondsOption = Annotated[
    float, typer.Option("--seconds", metavar="SECONDS", min=0.0, help="Longest time to look.")
]


@events.command()
def search(
    *,
    config: ConfigOption = None,
    flags: SetOption = None,
    ce_id: CeIdOption = None,
    topics: TopicOption = None,
    keys: KeyOption = None,
    names: NameOption = None,
    statuses: StatusOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    from_id: FromIdOption = None,
    to_id: ToIdOption = None,
    before: Annotated[
        int | None, typer.Option("--before", metavar="ID", min=1, help="The next page: below it.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="ROWS", min=1, max=10_000, help="Rows of a page.")
    ] = 50,
    seconds: SecondsOption = 5.0,
    as_json: JsonOption = False,
) -> None:
    """
    Find events, the newest first, page by page.

    What is given must all fit; --topic, --key, --name and --status may be repeated.
    Looks at a bounded number of rows in a statement, and for --seconds at most: then it says how far it
    came. Shows no payload.
    """
    settings = settings_of(config, flags)
    which = filter_of(
        topics=topics, keys=keys, names=names, statuses=statuses, since=since, until=until,
        from_id=from_id, to_id=to_id,
    )  # fmt: skip
    wanted = None if ce_id is None else event_id_of(ce_id, option="--ce-id")
    page = _look(settings, which, wanted, before=bounded(before), limit=limit, seconds=seconds)
    if as_json:
        typer.echo(json.dumps(view.page_as_json(page)))
        return
    view.print_page(page)


def _look(
    settings: Config,
    which: EventFilter,
    ce_id: UUID | None,
    *,
    before: int | None,
    limit: int,
    seconds: float,
) -> Page:
    from outbox_relay.operations import EventFilter, Page, find_event, search_events

    if ce_id is None:
        return run_on(
            settings,
            lambda access: search_events(
                access, which, before_id=before, limit=limit, seconds=seconds
            ),
        )
    if which != EventFilter():
        fail(Exit.USAGE, "--ce-id stands alone: it names one event")
    event_id = ce_id

    async def work(access: Access) -> Page:
        found = await find_event(access, event_id, seconds=seconds, before_id=before)
        if found.id is not None:
            one = EventFilter(first_id=found.id, last_id=found.id)
            return await search_events(access, one)
        return Page(
            events=(),
            next_before_id=None if found.complete else found.looked_to_id,
            looked_to_id=found.looked_to_id,
            timed_out=not found.complete,
        )

    return run_on(settings, work)


@events.command()
def show(
    wanted: Annotated[
        str, typer.Argument(metavar="ID|CE_ID", help="The row, or the event's ce_id.")
    ],
    *,
    config: ConfigOption = None,
    flags: SetOption = None,
    with_payload: Annotated[
        bool, typer.Option("--payload", help="Also the payload, as it would be published.")
    ] = False,
    seconds: SecondsOption = 5.0,
    as_json: JsonOption = False,
) -> None:
    """
    Show one event, and its life so far.

    When it was created, produced or given up, whose lane it is in, and what it waits for. Exits with 1
    if there is none.
    """
    from outbox_relay.operations import Lookup, event, stored_payload

    settings = settings_of(config, flags)
    which = row_or_event_id(wanted)

    async def work(access: Access) -> tuple[EventLife | Lookup, bytes]:
        life = await event(access, which, seconds=seconds)
        if isinstance(life, Lookup) or not with_payload:
            return life, b""
        return life, await stored_payload(access, life.id)

    life, stored = run_on(settings, work)
    if isinstance(life, Lookup):
        fail(Exit.FAILED, view.not_found(wanted, life))
    fields: dict[str, Any] = view.life_as_json(life)
    if with_payload:
        fields |= view.payload(stored, life.codec)
    if as_json:
        typer.echo(json.dumps(fields))
        return
    view.print_life(fields, life.content_type)
