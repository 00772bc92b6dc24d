"""What can be done: log in and out; pause and resume; requeue and discard. Each asks before it harms."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from outbox_relay.admin.desk import said
from outbox_relay.admin.login import COOKIE, SESSION_SECONDS, is_same_origin
from outbox_relay.admin.pages import groups
from outbox_relay.admin.selecting import (
    SEEN,
    NotUnderstood,
    as_seen,
    dead_letters,
    row_number,
    seen_by_then,
)
from outbox_relay.admin.web import Form, Visit, read_form, visit_of
from outbox_relay.errors import CredentialsError, OutboxRelayError
from outbox_relay.operations import ALL_TOPICS, THE_PURGE, pause, resume
from outbox_relay.relay.dead_letters import Found, Selection, latest_of

ROWS_AT_ONCE: Final = 500
MOST_SECONDS: Final = 20.0
"""How long one click may take; what is left is done by the next."""

BY: Final = "dashboard"
FILTERS: Final = ("topic", "reason", "key", "since", "until")

Action = Callable[[Visit, Form], Awaitable[Response]]
Answer = Callable[[Request], Awaitable[Response]]


def done(action: Action) -> Answer:
    """*action* for whoever is logged in, with a form of this session."""

    async def answer(request: Request) -> Response:
        visit = visit_of(request)
        form = await visit.form()
        try:
            return await action(visit, form)
        except NotUnderstood as error:
            return await visit.page("trouble.html", status=400, trouble=str(error))
        except OutboxRelayError as error:
            return await visit.page("trouble.html", status=503, trouble=said(error))

    return answer


# Log in and out


async def ask_to_log_in(request: Request) -> Response:
    """The form that takes the token."""
    visit = visit_of(request)
    if visit.may_look:
        return RedirectResponse("/", status_code=303)
    return await visit.page(
        "login.html", next=local_path(request.query_params.get("next")), wrong=False
    )


async def log_in(request: Request) -> Response:
    """Begin a session, if the token is right."""
    visit = visit_of(request)
    headers = request.headers
    if not is_same_origin(
        headers.get("host", ""), headers.get("origin"), headers.get("sec-fetch-site")
    ):
        raise HTTPException(403, "the form comes from another page")
    form = await read_form(request)
    to = local_path(form.one("next"))
    if not visit.login.required:
        return RedirectResponse("/", status_code=303)
    try:
        begun = visit.login.begin(form.one("token"))
    except CredentialsError as error:
        return await visit.page("trouble.html", status=503, trouble=str(error))
    if begun is None:
        visit.desk.logger.warning("admin_login_refused")
        await asyncio.sleep(min(visit.login.seconds_to_wait(), MOST_SECONDS))
        return await visit.page("login.html", status=403, next=to, wrong=True)
    visit.desk.logger.info("admin_login")
    answer = RedirectResponse(to, status_code=303)
    answer.set_cookie(
        COOKIE,
        begun[0],
        max_age=int(SESSION_SECONDS),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer


def local_path(path: str | None) -> str:
    """
    *path* if it is one of this dashboard's, else its first page.

    >>> local_path("/events?topic=a"), local_path("//elsewhere.example"), local_path(None)
    ('/events?topic=a', '/', '/')
    """
    # Browsers take a backslash for a slash.
    outside = path is None or not path.startswith("/") or path[1:2] in ("/", "\\")
    return "/" if outside or path is None else path


async def log_out(visit: Visit, _form: Form) -> Response:
    """End the session."""
    visit.login.end(visit.request.cookies.get(COOKIE))
    answer = RedirectResponse("/", status_code=303)
    answer.delete_cookie(COOKIE)
    return answer


# Pause and resume


async def pause_topic(visit: Visit, form: Form) -> Response:
    """Pause a topic; all of them, or the purge, once that is confirmed."""
    topic = form.as_sent("topic")
    if topic in (ALL_TOPICS, THE_PURGE) and not form.one("sure"):
        return await visit.page(
            "confirm_pause.html",
            topic=topic,
            everything=topic == ALL_TOPICS,
            reason=form.one("reason"),
        )
    paused = await pause(visit.desk.access, [topic], reason=form.one("reason"), by=BY)
    visit.desk.forget()
    for one in paused:
        visit.desk.logger.info("operator_paused_topic", topic=one.topic, by=BY)
    what = named(topic)
    return visit.back_to("/topics", f"{what} paused." if paused else f"{what} paused already.")


async def resume_topic(visit: Visit, form: Form) -> Response:
    """Let a topic go on."""
    topic = form.as_sent("topic")
    gone = await resume(visit.desk.access, [topic])
    visit.desk.forget()
    for one in gone:
        visit.desk.logger.info("operator_resumed_topic", topic=one.topic, by=BY)
    what = named(topic)
    return visit.back_to("/topics", f"{what} resumed." if gone else f"{what} not paused any more.")


def named(topic: str) -> str:
    """
    What is paused, in words.

    >>> named("orders"), named(ALL_TOPICS)
    ('Topic orders is', 'All topics are')
    """
    if topic == ALL_TOPICS:
        return "All topics are"
    return "The purge is" if topic == THE_PURGE else f"Topic {topic} is"


# Dead letters


async def change_letters(visit: Visit, form: Form) -> Response:
    """Requeue or discard dead letters: those that are ticked, or all that fit; asks first."""
    verb = form.one("verb")
    if verb not in ("requeue", "discard"):
        raise HTTPException(400, "a dead letter is requeued or discarded")
    fields = {name: form.one(name) for name in FILTERS}
    ids = [row_number(text) for text in form.all("id")]
    everything = bool(form.one("all"))
    if not ids and not everything:
        return visit.back_to("/dead-letters", "Nothing was chosen: tick some rows, or choose all.")
    which = dead_letters(fields) if everything else Selection(ids=tuple(ids))
    seen = {name: form.one(name) for name in SEEN}
    which = seen_by_then(which, seen) if any(seen.values()) else await _by_now(visit, which)
    if not form.one("sure") or (verb == "discard" and not form.one("known")):
        return await _ask_about_letters(visit, verb, which, ids=ids, fields=fields)
    rows, is_end = await _act(visit, verb, which)
    past = "requeued" if verb == "requeue" else "discarded"
    visit.desk.forget()
    visit.desk.logger.info(
        f"dead_letters_{past}", rows=rows, by=BY, stopped=not is_end, **which.described()
    )
    rest = "" if is_end else " The rest is still there: do it again to go on."
    letters = "dead letter" if rows == 1 else "dead letters"
    return visit.back_to("/dead-letters", f"{rows:,} {letters} {past}.{rest}")


async def _ask_about_letters(
    visit: Visit, verb: str, which: Selection, *, ids: Sequence[int], fields: Mapping[str, str]
) -> Response:
    found = await visit.desk.letters.find(which, limit=ROWS_AT_ONCE)
    return await visit.page(
        "confirm_letters.html",
        verb=verb,
        ids=ids,
        fields=fields,
        everything=not ids,
        seen=as_seen(which),
        found=found,
        capped=len(found) >= ROWS_AT_ONCE,
        groups=groups,
    )


async def _act(visit: Visit, verb: str, which: Selection) -> tuple[int, bool]:
    """How many rows were changed, and whether that was all."""
    letters = visit.desk.letters
    changed, after = 0, 0
    until = asyncio.get_running_loop().time() + MOST_SECONDS
    while found := await letters.find(which, after_id=after, limit=ROWS_AT_ONCE):
        ids = [letter.id for letter in found]
        if verb == "requeue":
            changed += await letters.requeue(ids)
        else:
            gone = set(await letters.discard(ids))
            changed += len(gone)
            _log_discarded(visit, [letter for letter in found if letter.id in gone])
        after = found[-1].id
        if asyncio.get_running_loop().time() > until:
            return changed, False
    return changed, True


async def _by_now(visit: Visit, which: Selection) -> Selection:
    """*which*, without what dies from now on, perhaps by this very requeue: nobody was asked about it."""
    last, known_at = 0, None
    while found := await visit.desk.letters.find(which, after_id=last, limit=10_000):
        last, known_at = found[-1].id, latest_of(found, known_at)
    return replace(which, last_id=last, known_at=known_at)


def _log_discarded(visit: Visit, found: Sequence[Found]) -> None:
    for letter in found:
        visit.desk.logger.info(
            "dead_letter_discarded",
            row_id=letter.id,
            topic=letter.topic,
            event_id=str(letter.event_id),
            reason=letter.reason,
        )
