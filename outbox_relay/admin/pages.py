"""The pages that show something. None changes anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from outbox_relay.admin import drawing
from outbox_relay.admin.desk import said
from outbox_relay.admin.selecting import (
    NotUnderstood,
    dead_letters,
    event_filter,
    row_number,
    which_event,
)
from outbox_relay.admin.web import Visit, address, visit_of
from outbox_relay.doctor.findings import Findings
from outbox_relay.errors import OutboxRelayError
from outbox_relay.operations import (
    ALL_TOPICS,
    THE_PURGE,
    EventLife,
    event,
    search_events,
    stored_payload,
)
from outbox_relay.relay.dead_letters import Found
from outbox_relay.schema import LANES, Status
from outbox_relay.shown import for_reading, key_text, payload

EVENTS_A_PAGE: Final = 50
LETTERS_A_PAGE: Final = 50
COUNTED_LETTERS: Final = 10_000
"""Dead letters counted by topic and reason; the list itself has no end."""

Page = Callable[[Visit], Awaitable[Response]]
Answer = Callable[[Request], Awaitable[Response]]


def seen(page: Page) -> Answer:
    """*page* for whoever may look; the others are sent to log in."""

    async def answer(request: Request) -> Response:
        visit = visit_of(request)
        if not visit.may_look:
            path = request.url.path
            wanted = f"{path}?{request.url.query}" if request.url.query else path
            return RedirectResponse(address("/login", {"next": wanted}), status_code=303)
        try:
            return await page(visit)
        except NotUnderstood as error:
            return await visit.page("trouble.html", status=400, trouble=str(error))
        except OutboxRelayError as error:
            return await visit.page("trouble.html", status=503, trouble=said(error))

    return answer


async def overview(visit: Visit) -> Response:
    """Whether events flow, and how many."""
    return await visit.page("overview.html", **await overview_values(visit))


async def overview_values(visit: Visit) -> dict[str, Any]:
    """What the overview shows, on the page and live."""
    desk = visit.desk
    shown = await desk.shown()
    standing = shown.standing
    owners: tuple[drawing.Owner, ...] = ()
    if standing is not None:
        owners = drawing.owners(standing.owners, standing.leases, this=desk.owner)
    observer = desk.observer
    return {
        "standing": standing,
        "owners": owners,
        "cells": drawing.lane_cells(owners),
        "LANES": LANES,
        "recently": desk.course.recently(),
        "line": drawing.line(desk.course.rates(), points=120),
        "course_seconds": desk.course.seconds,
        "owner": desk.owner,
        "lanes_here": observer.lanes_owned,
        "in_flight": _value(observer.metrics.in_flight_rows),
        "own_pauses": sorted(observer.paused_topics - set(standing.paused_topics))
        if standing is not None
        else [],
    }


def _value(gauge: Any) -> int:
    return int(next(iter(gauge.collect())).samples[0].value)


async def topics(visit: Visit) -> Response:
    """What waits by topic, and what pauses."""
    shown = await visit.desk.shown()
    names = {"all": ALL_TOPICS, "purge": THE_PURGE}
    own = visit.desk.observer.paused_topics
    return await visit.page("topics.html", standing=shown.standing, names=names, own_pauses=own)


@dataclass(frozen=True, slots=True)
class _Fields:
    """The fields of a search form as they were filled in."""

    values: dict[str, str]

    def __getitem__(self, name: str) -> str:
        return self.values.get(name, "")

    def any(self) -> bool:
        """Whether one is filled in."""
        return any(self.values.values())


def _fields(visit: Visit, *names: str) -> _Fields:
    query = visit.request.query_params
    return _Fields({name: query.get(name, "").strip() for name in names})


async def events(visit: Visit) -> Response:
    """The newest events, or those that are searched."""
    fields = _fields(visit, "topic", "key", "name", "status", "since", "until")
    which = visit.request.query_params.get("id", "").strip()
    if which:
        return RedirectResponse(f"/events/{which_event(which)}", status_code=303)
    before = visit.request.query_params.get("before", "")
    page = await search_events(
        visit.desk.access,
        event_filter(fields.values),
        before_id=row_number(before) if before else None,
        limit=EVENTS_A_PAGE,
    )
    older = None
    if page.next_before_id is not None:
        older = address("/events", {**fields.values, "before": page.next_before_id})
    return await visit.page(
        "events.html",
        fields=fields,
        found=page,
        older=older,
        statuses=[status.name.lower() for status in (Status.PENDING, Status.PRODUCED, Status.DEAD)],
        key_text=key_text,
    )


async def one_event(visit: Visit) -> Response:
    """One event, its life so far, and its payload for who asks and may."""
    wanted = visit.request.path_params["which"]
    found = await event(visit.desk.access, which_event(wanted))
    if not isinstance(found, EventLife):
        text = f"there is no event {wanted}"
        if not found.complete:
            text = (
                f"event {wanted} was not found among rows {found.looked_to_id} and above; the "
                f"search ended there: try outbox-relay events show {wanted} --seconds 60"
            )
        return await visit.page("trouble.html", status=404, trouble=text)
    fields: dict[str, str] = {}
    may_show = visit.desk.options.show_payloads
    if may_show and visit.request.query_params.get("payload"):
        stored = await stored_payload(visit.desk.access, found.id)
        fields = {
            name: for_reading(name, value, found.content_type).strip()
            for name, value in payload(stored, found.codec).items()
        }
        visit.desk.logger.info(
            "payload_shown", row_id=found.id, topic=found.topic, event_id=str(found.event_id)
        )
    return await visit.page(
        "event.html", life=found, payload=fields, may_show=may_show, key_text=key_text
    )


def groups(found: Sequence[Found]) -> list[tuple[tuple[str, str], int]]:
    """How many there are by topic and reason."""
    return sorted(Counter((letter.topic, letter.reason) for letter in found).items())


async def letters(visit: Visit) -> Response:
    """The dead letters, by topic and reason, and the oldest of those that are chosen."""
    fields = _fields(visit, "topic", "reason", "key", "since", "until")
    which = dead_letters(fields.values)
    after = visit.request.query_params.get("after", "")
    start = row_number(after) if after else 0
    desk = visit.desk
    found = await desk.letters.find(which, after_id=start, limit=LETTERS_A_PAGE)
    counted = await desk.letters.find(which, limit=COUNTED_LETTERS)
    more = None
    if len(found) == LETTERS_A_PAGE:
        more = address("/dead-letters", {**fields.values, "after": found[-1].id})
    return await visit.page(
        "dead_letters.html",
        fields=fields,
        letters=await desk.letters.read([letter.id for letter in found]),
        counts=groups(counted),
        total=len(counted),
        capped=len(counted) >= COUNTED_LETTERS,
        more=more,
        key_text=key_text,
    )


async def doctor(visit: Visit) -> Response:
    """What the doctor finds."""
    anew = bool(visit.request.query_params.get("again"))
    found = await visit.desk.findings(anew=anew)
    if anew:
        return RedirectResponse("/doctor", status_code=303)
    trouble = found if isinstance(found, str) else None
    return await visit.page(
        "doctor.html", found=found if isinstance(found, Findings) else None, trouble=trouble
    )
