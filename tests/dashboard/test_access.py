"""
Who may look and who may act; and that no other page of the same browser can.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from outbox_relay.admin import live, login
from outbox_relay.admin.options import AdminOptions
from outbox_relay.errors import ConfigError
from tests.dashboard.desk import HOST, TOKEN

PAGES = ("/", "/topics", "/events", "/events/1", "/dead-letters", "/doctor")
FORMS = ("/topics/pause", "/topics/resume", "/dead-letters/change", "/logout")


@pytest.mark.parametrize("path", PAGES)
async def test_with_a_token_nobody_looks_without_it(open_office, path):
    """
    A page sends to the log-in, and from there back to itself.
    """
    office = open_office()
    answer = await office.get(path)

    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/login?next=%2F")
    assert (await office.get("/live")).status_code == 403


async def test_a_log_in_goes_on_to_the_page_that_was_wanted(open_office):
    """
    The cookie is for this dashboard alone: HttpOnly, SameSite=Strict.
    """
    office = open_office()
    form = await office.get("/login?next=/events?topic=a")
    answer = await office.browser.post(
        "/login", data={"token": TOKEN, "next": "/events?topic=a"}, headers={"origin": HOST}
    )
    cookie = answer.headers["set-cookie"].lower()

    assert 'value="/events?topic=a"' in form.text
    assert (answer.status_code, answer.headers["location"]) == (303, "/events?topic=a")
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert (await office.get("/events?topic=a")).status_code == 200


@pytest.mark.parametrize("to", ["//elsewhere.example", "https://elsewhere.example", "/\\elsewhere"])
async def test_a_log_in_never_leads_elsewhere(open_office, to):
    """
    Whatever the address said.
    """
    office = open_office()
    answer = await office.browser.post("/login", data={"token": TOKEN, "next": to})

    assert answer.headers["location"] == "/"


async def test_a_wrong_token_is_refused_slowly(open_office, monkeypatch):
    """
    One guess a second, all browsers together; and the log says so.
    """
    monkeypatch.setattr(login, "SECONDS_A_GUESS", 0.01)
    office = open_office()
    answer = await office.browser.post("/login", data={"token": "a guess"})

    assert answer.status_code == 403
    assert "That is not the token" in answer.text
    assert "a guess" not in answer.text
    assert (await office.get("/")).status_code == 303

    clock = 0.0
    guesses = login.Login(office.desk.options, clock=lambda: clock)
    assert [round(guesses.seconds_to_wait(), 3) for _ in range(3)] == [0.01, 0.02, 0.03]


async def test_a_token_that_is_changed_ends_the_sessions(office, tmp_path):
    """
    It is read anew, as all secrets are.
    """
    before = await office.get("/")
    (tmp_path / "token").write_text("another token that is long\n")
    after = await office.get("/")

    assert (before.status_code, after.status_code) == (200, 303)


async def test_a_session_ends_by_itself_and_by_its_own_word(office, monkeypatch):
    """
    After twelve hours, or with "Log out".
    """
    await office.post("/logout")
    logged_out = await office.get("/")
    await office.log_in()
    monkeypatch.setattr(office.app.state.login, "_clock", lambda: 1e12)
    over = await office.get("/")

    assert (logged_out.status_code, over.status_code) == (303, 303)


async def test_without_a_token_all_look_and_nobody_acts(open_office):
    """
    Read-only: no form changes anything, and none is shown.
    """
    office = open_office(token=False)
    office.kill(office.write())
    pages = [await office.get(path) for path in PAGES]
    acts = [
        await office.browser.post(path, data={"topic": "orders", "id": "1", "verb": "discard"})
        for path in FORMS
    ]

    assert {page.status_code for page in pages} == {200}
    assert not any('method="post"' in page.text and "form_token" in page.text for page in pages)
    assert {act.status_code for act in acts} == {403}
    assert office.rows("SELECT status FROM outbox") == [(2,)]
    assert office.rows("SELECT count(*) FROM outbox_control") == [(0,)]


@pytest.mark.parametrize("path", FORMS)
async def test_a_form_of_another_page_does_nothing(office, path):
    """
    Refused without the token of the session's forms, with a wrong one, or from another origin.
    """
    office.kill(office.write())
    token = await office.form_token()
    fields = {"topic": "orders", "id": "1", "verb": "discard", "sure": "yes", "known": "yes"}
    answers = [
        await office.browser.post(path, data=fields),
        await office.browser.post(path, data=fields | {"form_token": "made up"}),
        await office.browser.post(
            path,
            data=fields | {"form_token": token},
            headers={"origin": "http://elsewhere.example"},
        ),
        await office.browser.post(
            path, data=fields | {"form_token": token}, headers={"sec-fetch-site": "cross-site"}
        ),
        await office.browser.post(
            path, data=fields | {"form_token": token}, headers={"origin": "null"}
        ),
    ]

    assert {answer.status_code for answer in answers} == {403}
    assert office.rows("SELECT status FROM outbox") == [(2,)]
    assert (await office.get("/")).status_code == 200


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("localhost:9465", 200),
        ("127.0.0.1", 200),
        ("[::1]:9465", 200),
        ("elsewhere.example", 421),
        ("localhost.elsewhere.example:9465", 421),
        ("", 421),
        ("[::1", 421),
    ],
)
async def test_a_page_cannot_give_its_own_name_to_the_dashboard(open_office, host, code):
    """
    Without a token only known names are answered: DNS can lead any name to 127.0.0.1.
    """
    office = open_office(token=False)
    answer = await office.browser.get("/", headers={"host": host})

    assert answer.status_code == code


async def test_names_of_your_own(open_office):
    """
    With admin.hosts only those and the address itself.
    """
    office = open_office(hosts=("relay.example",))
    codes = [
        (await office.browser.get("/login", headers={"host": host})).status_code
        for host in ("relay.example", "127.0.0.1:9465", "other.example")
    ]

    assert codes == [200, 200, 421]


@pytest.mark.parametrize("path", ["/", "/login", "/static/style.css", "/nothing", "/events/x"])
async def test_each_answer_forbids_what_is_not_its_own(office, path):
    """
    No script, style, frame or form of another site; nothing is kept in caches.
    """
    answer = await office.get(path)

    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


async def test_a_form_is_bounded(office):
    """
    64 KiB: what is larger is refused before it is read.
    """
    answer = await office.browser.post("/topics/pause", content=b"x" * 70_000)

    assert answer.status_code == 413


def test_settings_that_open_it_to_all_are_refused():
    """
    Another address than this machine's own needs a token.
    """
    open_ = AdminOptions(enabled=True, host="0.0.0.0")
    closed = AdminOptions(enabled=True, host="0.0.0.0", token_file="/run/token")

    assert open_.problems() == [
        'admin.host = "0.0.0.0" is reached from outside: set admin.token_file, or listen on 127.0.0.1'
    ]
    assert closed.problems() == []
    assert all(AdminOptions(host=host).is_local for host in ("localhost", "127.0.0.2", "::1"))


def test_a_short_or_missing_token_is_refused(tmp_path):
    """
    With the file's name, and without what it holds.
    """
    short = tmp_path / "token"
    short.write_text("hunter2")
    for path, said in ((short, "7 characters"), (tmp_path / "none", "cannot be read")):
        with pytest.raises(ConfigError) as raised:
            login.Login(AdminOptions(token_file=str(path))).check()
        assert said in str(raised.value)
        assert "hunter2" not in str(raised.value)


def test_sessions_are_bounded(tmp_path):
    """
    I10. The oldest goes.
    """
    (tmp_path / "token").write_text(TOKEN)
    kept = login.Login(AdminOptions(token_file=str(tmp_path / "token")))
    cookies = [kept.begin(TOKEN)[0] for _ in range(login.MOST_SESSIONS + 1)]

    assert kept.session(cookies[0]) is None
    assert kept.session(cookies[1]) is not None


async def test_a_browser_that_takes_nothing_loses_its_place(open_office, monkeypatch):
    """
    I10. Twenty may look at once; those whose machine sleeps must not keep the others out.
    """
    monkeypatch.setattr(live, "SEND_SECONDS", 0.05)
    monkeypatch.setattr(live, "MOST_VIEWERS", 1)
    monkeypatch.setattr(live, "EVERY_SECONDS", 0.01)
    office = open_office(token=False)
    asleep = asyncio.Event()
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        if len(sent) > 2:
            await asleep.wait()

    async def receive() -> dict[str, Any]:
        await asleep.wait()
        return {"type": "http.disconnect"}

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
        "path": "/live", "raw_path": b"/live", "query_string": b"", "root_path": "",
        "scheme": "http", "headers": [(b"host", b"localhost:9465")], "server": ("localhost", 9465),
    }  # fmt: skip
    for _ in range(2):
        sent.clear()
        async with asyncio.timeout(10):
            await office.app(dict(scope), receive, send)
        assert sent[0]["status"] == 200
