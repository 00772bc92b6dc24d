"""
What the pages show and what their forms do.
"""

from __future__ import annotations

import re

import pytest

from outbox_relay.admin import actions, desk
from outbox_relay.errors import StoreUnavailable
from outbox_relay.operations import ALL_TOPICS, THE_PURGE
from outbox_relay.schema import Codec


async def test_the_overview_says_how_it_stands(office):
    """
    Nobody relays here; what waits is counted by topic.
    """
    office.write(topic="orders")
    office.write(topic="payments")
    page = (await office.get("/")).text

    assert "Nobody relays" in page
    assert "payments" in page
    assert "pod-1:7" in page


async def test_a_database_that_is_away_is_told(office, monkeypatch):
    """
    The page comes all the same, with what the relay itself knows.
    """

    async def away(*_args, **_more):
        raise StoreUnavailable("the database does not answer in time: is it up?")

    monkeypatch.setattr("outbox_relay.admin.desk.read_standing", away)
    answer = await office.get("/")

    assert answer.status_code == 200
    assert "The database does not answer" in answer.text
    assert "This relay" in answer.text


async def test_text_of_writers_is_text(office):
    """
    Names, keys and errors cannot become part of the page.
    """
    bad = "<script>alert(1)</script>"
    row = office.kill(office.write(event_name=bad, topic="t", key=bad.encode()), f"x: {bad}")
    for path in (
        "/",
        "/topics",
        "/events",
        f"/events/{row}",
        "/dead-letters",
        f"/events?topic={bad}",
    ):
        text = (await office.get(path)).text
        assert "<script>alert" not in text, path


async def test_events_are_searched_and_paged(office):
    """
    Newest first; a page of fifty; each filter narrows.
    """
    for number in range(60):
        office.write(topic="orders" if number % 2 else "payments", key=b"%d" % number)
    first = (await office.get("/events")).text
    older = (await office.get("/events?before=11")).text
    found = (await office.get("/events?topic=payments&key=4&status=pending")).text

    assert "/events/60" in first
    assert "before=11" in first
    assert "/events/10" in older
    assert "/events/11" not in older
    assert found.count('scope="row"') == 1


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/events?key=0x0", "even number of hexadecimal digits"),
        ("/events?status=lost", "none of the table"),
        ("/events?since=yesterday", "use a time such as"),
        ("/events?id=42x", "neither a row"),
        ("/dead-letters?until=x", "use a time such as"),
    ],
)
async def test_what_cannot_be_read_is_told(office, path, said):
    """
    With the field, and how it is written.
    """
    answer = await office.get(path)

    assert answer.status_code == 400
    assert said in answer.text


async def test_one_event_is_found_by_either_id(office):
    """
    By its row or by its ce_id; one that is not there is a 404.
    """
    row = office.write()
    [(event_id,)] = office.rows("SELECT lower(hex(event_id)) FROM outbox")
    by_row = await office.get(f"/events?id={row}")
    page = await office.get(f"/events/{event_id}")
    none = await office.get("/events/999")

    assert by_row.headers["location"] == f"/events/{row}"
    assert f"Event {row}" in page.text
    assert none.status_code == 404


async def test_a_payload_is_shown_only_to_who_asks_and_may(open_office):
    """
    I11. Off by default; where it is on, one has to ask, and the log says which row.
    """
    secret = "only for consumers"
    for may in (False, True):
        office = open_office(show_payloads=may)
        await office.log_in()
        row = office.write(payload=f'{{"note":"{secret}"}}'.encode(), headers='{"h":"also hidden"}')
        plain = (await office.get(f"/events/{row}")).text
        asked = (await office.get(f"/events/{row}?payload=show")).text

        assert secret not in plain
        assert (secret in asked) is may
        assert ("also hidden" in asked) is may
        assert "also hidden" not in plain


async def test_a_tombstone_and_a_broken_payload_are_shown(open_office):
    """
    As what they are.
    """
    office = open_office(show_payloads=True)
    await office.log_in()
    tombstone = office.write(payload=b"", codec=int(Codec.TOMBSTONE))
    broken = office.write(payload=b"no zlib", codec=int(Codec.ZLIB))

    assert "a tombstone" in (await office.get(f"/events/{tombstone}?payload=1")).text
    assert "not a zlib stream" in (await office.get(f"/events/{broken}?payload=1")).text


async def test_a_topic_is_paused_and_resumed(office):
    """
    In the control table, which relays follow; with the reason, and by whom.
    """
    done = await office.post("/topics/pause", topic="orders", reason="broker upgrade")
    paused = office.rows("SELECT topic, reason FROM outbox_control")
    page = (await office.get("/topics")).text
    await office.post("/topics/resume", topic="orders")

    assert done.status_code == 303
    assert paused == [("orders", "broker upgrade (dashboard)")]
    assert "Topic orders is paused." in page
    assert "broker upgrade" in page
    assert office.rows("SELECT * FROM outbox_control") == []


@pytest.mark.parametrize("topic", [ALL_TOPICS, THE_PURGE])
async def test_all_topics_and_the_purge_are_asked_about_first(office, topic):
    """
    One click pauses neither.
    """
    asked = await office.post("/topics/pause", topic=topic)
    before = office.rows("SELECT * FROM outbox_control")
    await office.post("/topics/pause", topic=topic, sure="yes")

    assert asked.status_code == 200
    assert before == []
    assert office.rows("SELECT topic FROM outbox_control") == [(topic,)]


async def test_a_requeue_is_asked_about_and_done(office):
    """
    Only what was ticked.
    """
    rows = [office.kill(office.write()) for _ in range(3)]
    asked = await office.post("/dead-letters/change", id=str(rows[0]), verb="requeue")
    before = office.rows("SELECT status FROM outbox ORDER BY id")
    done = await office.post("/dead-letters/change", id=str(rows[0]), verb="requeue", sure="yes")

    assert "Requeue 1 dead letter?" in asked.text
    assert before == [(2,), (2,), (2,)]
    assert done.status_code == 303
    assert office.rows("SELECT status FROM outbox ORDER BY id") == [(0,), (2,), (2,)]
    assert "1 dead letter requeued." in (await office.get("/dead-letters")).text


async def test_a_discard_needs_to_be_understood(office):
    """
    It is asked about, and a box must be ticked: what is discarded is gone.
    """
    row = office.kill(office.write())
    for fields in ({}, {"sure": "yes"}):
        answer = await office.post("/dead-letters/change", id=str(row), verb="discard", **fields)
        assert "never published" in answer.text
    assert office.rows("SELECT count(*) FROM outbox") == [(1,)]

    await office.post("/dead-letters/change", id=str(row), verb="discard", sure="yes", known="yes")
    assert office.rows("SELECT count(*) FROM outbox") == [(0,)]


async def test_all_that_fit_the_search(office):
    """
    And nothing else; pending rows are never touched.
    """
    for number in range(4):
        office.kill(office.write(topic="orders" if number % 2 else "payments"))
    waiting = office.write(topic="orders")
    await office.post(
        "/dead-letters/change",
        **{"all": "yes", "topic": "orders", "verb": "discard", "sure": "yes", "known": "yes"},
    )

    assert office.rows("SELECT topic FROM outbox WHERE status = 2") == [("payments",)] * 2
    assert office.rows("SELECT id FROM outbox WHERE status = 0") == [(waiting,)]


async def test_what_dies_after_the_question_is_left(office):
    """
    Whoever confirmed saw three dead letters, and discards these: neither a later row nor an earlier one that
    died since.
    """
    early = office.write()
    shown = [office.kill(office.write()) for _ in range(3)]
    asked = await office.post("/dead-letters/change", **{"all": "yes", "verb": "discard"})
    fields = dict(re.findall(r'type="hidden" name="([a-z_]+)" value="([^"]*)"', asked.text))
    office.kill(early)
    office.die_in_an_hour(early)
    late = office.kill(office.write())
    answer = await office.post(
        "/dead-letters/change", **fields | {"verb": "discard", "known": "yes"}
    )

    assert answer.status_code == 303
    assert office.rows("SELECT id FROM outbox ORDER BY id") == [(early,), (late,)]
    assert shown[0] not in (early, late)


async def test_two_operators_at_once(office, caplog, monkeypatch):
    """
    What the other one requeued in between is not told as discarded: it will be published.
    """
    rows = [office.kill(office.write()) for _ in range(2)]
    find, told = office.desk.letters.find, []

    async def slow(*args, **more):
        found = await find(*args, **more)
        await office.desk.letters.requeue(rows[:1])
        return found

    monkeypatch.setattr(office.desk.letters, "find", slow)
    monkeypatch.setattr(actions, "_log_discarded", lambda _, found: told.extend(found))
    known_at = "2100-01-01T00:00:00"
    await office.post(
        "/dead-letters/change",
        all="yes", verb="discard", sure="yes", known="yes", seen_to=str(rows[1]), seen_at=known_at,
    )  # fmt: skip

    assert office.rows("SELECT id, status FROM outbox") == [(rows[0], 0)]
    assert [letter.id for letter in told] == [rows[1]]


@pytest.mark.parametrize(
    "path",
    [
        "/events?before=%C2%B2",
        "/dead-letters?after=1e3",
        f"/events/{'9' * 4400}",
        "/events?id=%C2%B2",
    ],
)
async def test_a_number_that_is_none_is_a_clear_error(office, path):
    """
    Also what Python takes for digits and no number, or for a number and too long.
    """
    answer = await office.get(path)
    while answer.status_code == 303:
        answer = await office.get(answer.headers["location"])

    assert answer.status_code == 400


async def test_a_number_larger_than_any_id_finds_nothing(office):
    """
    Drivers break over it; a person is told that there is no such event.
    """
    assert (await office.get("/events/9223372036854775808")).status_code == 404
    assert (await office.get("/events?before=9223372036854775808")).status_code == 200


async def test_a_topic_with_spaces_around_it_is_that_topic(office):
    """
    Any program may write such a name, and pause it.
    """
    await office.post("/topics/pause", topic=" orders ")
    await office.post("/topics/resume", topic="orders")

    assert office.rows("SELECT topic FROM outbox_control") == [(" orders ",)]


async def test_a_key_that_was_written_as_text_is_that_key(office):
    """
    SQLite keeps it as text: what is asked about it is done to it.
    """
    row = office.kill(office.write())
    with office.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE outbox SET key = 'order-7'")
    fields = {"all": "yes", "key": "order-7", "verb": "requeue", "sure": "yes"}
    await office.post("/dead-letters/change", **fields)

    assert office.rows("SELECT id, status FROM outbox") == [(row, 0)]


async def test_nothing_chosen_changes_nothing(office):
    """
    No row ticked and not all: a word about it, and all stay.
    """
    office.kill(office.write())
    await office.post("/dead-letters/change", verb="discard", sure="yes", known="yes")

    assert "Nothing was chosen" in (await office.get("/dead-letters")).text
    assert office.rows("SELECT status FROM outbox") == [(2,)]


async def test_the_doctors_findings(office, monkeypatch):
    """
    What, why and what mends it; or why it cannot look.
    """
    monkeypatch.setattr(desk, "ANEW_SECONDS", 0.0)
    page = (await office.get("/doctor")).text
    office.findings = StoreUnavailable("no database")
    await office.get("/doctor?again=yes")
    none = (await office.get("/doctor")).text

    assert "sync_binlog is &lt;0&gt;" in page
    assert "SET GLOBAL sync_binlog = 1" in page
    assert "The doctor cannot look: no database" in none


async def test_the_doctor_is_not_asked_without_end(office):
    """
    A picture in any page may have the address that asks for a new look: one look serves them all.
    """
    for _ in range(5):
        await office.get("/doctor?again=yes")

    assert office.examined == 1


async def test_a_mistake_of_ours_is_logged_and_not_shown(office, monkeypatch):
    """
    I11. Its text may hold anything.
    """

    async def broken(*_args, **_more):
        raise RuntimeError("payload of a customer")

    monkeypatch.setattr("outbox_relay.admin.pages.search_events", broken)
    answer = await office.get("/events")

    assert answer.status_code == 500
    assert "customer" not in answer.text
    assert "RuntimeError" in answer.text


@pytest.mark.parametrize("path", ["/nothing", "/static/../login.py", "/static/none.css"])
async def test_what_is_not_there(office, path):
    """
    A page that says so.
    """
    answer = await office.get(path)

    assert answer.status_code == 404
