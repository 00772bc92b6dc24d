"""
Tables that releases of python-cqrs made and write themselves, taken over: nothing is lost, and what
consumers read stays as it was.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
import sqlalchemy as sa

from outbox_relay.outbox import Outbox
from outbox_relay.relay.options import RelayOptions
from outbox_relay.relay.producer import EventProducer
from outbox_relay.store import DatabaseOptions, open_store
from outbox_relay.testing import FakeClock, RecordingBroker
from tests.integration.adopted_site import CREATE, ID, sql
from tests.pages import texts

RELEASES = {
    "0.0.15": "0.0.12 to 0.0.15",
    "1.0.0": "0.2 to 1.0",
    "4.9.0": "2.6 to 4.10.0",
    "5.3.0": "4.10.1 to 5.3",
}


def without_time(value: bytes) -> bytes:
    """Releases up to 1.0.0 write the relay's time."""
    return re.sub(rb'"event_timestamp":"[^"]*"', b'"event_timestamp":""', value)


@pytest.mark.parametrize(
    ("release", "server", "zlib"),
    [
        ("0.0.15", "mariadb", True),
        ("1.0.0", "mariadb", False),
        ("4.9.0", "mariadb", False),
        ("5.3.0", "mariadb", True),
        ("5.3.0", "postgresql", True),
    ],
)
def test_consumers_read_what_its_own_relay_would_have_sent(site_of, kafka, release, server, zlib):
    """
    Byte for byte, in the order of ids, in place; then the table says PRODUCED as ever. What its relay
    gave up is listed, revived and published. No other row is touched.
    """
    site = site_of(release, server, zlib=zlib)
    site.take(
        CREATE,
        site.writes(0, 1, 2, 3),
        site.writes(4, rollback=True),
        site.writes(5),
        site.relays(),
        site.writes(6),
        *[site.relays(bootstrap=None)] * 5,
        sql("UPDATE outbox SET event_status = 'NEW' WHERE event_status = 'PRODUCED'"),
    )
    theirs = [record.value for record in kafka.consume_all(site.topic)]

    shown = site.adopt()
    made = site.adopt("--prepare")
    again = site.adopt("--prepare")
    site.drain()
    ours = kafka.consume_all(site.topic)[5:]

    assert f"made by python-cqrs {RELEASES[release]}\n" in shown
    assert "outbox_relay_ix" in made
    assert "nothing to do" in again
    strip = without_time if release < "2" else bytes
    assert [strip(record.value) for record in ours] == [strip(value) for value in theirs]
    assert all(record.key is None for record in ours)
    if release < "2":
        assert b'"event_timestamp":"2026-01-02T03:04:0' in ours[0].value
    assert site.states() == [("PRODUCED", 0)] * 5 + [("NOT_PRODUCED", 5)]

    assert "RoomPriced" not in shown.partition("given up by")[2].partition("warning")[0]
    assert "MeetingRoomClosed" in shown.partition("given up by")[2]
    assert "would requeue 1" in site.adopt("--revive", "--dry-run")
    assert "requeued 1" in site.adopt("--revive", "--yes")
    site.drain()

    assert site.states() == [("PRODUCED", 0)] * 6
    assert len(kafka.consume_all(site.topic)) == 11


def test_keys_and_headers_by_choice(site_of, kafka):
    """
    A key out of the document brings order within it; without headers a record is as python-cqrs's.
    """
    site = site_of("5.3.0", zlib=False)
    site.take(CREATE, site.writes(0, 1))
    site.adopt("--prepare")
    site.configure(layout_key_path="payload.user_id")
    site.drain()
    site.configure(wire='headers = "none"')
    site.take(site.writes(2))
    site.drain()

    first, second, bare = kafka.consume_all(site.topic)

    assert [first.key, second.key, bare.key] == [b"0", b"1", None]
    assert dict(first.headers)["ce_type"] == b"MeetingRoomClosed"
    assert dict(first.headers)["ce_id"] == ID.format(0).encode()
    assert not bare.headers


def test_a_relay_that_is_prepared_for_nothing_says_so(site_of, tmp_path):
    """
    Before --prepare, with migrate, on a table of somebody else, and on ours.
    """
    site = site_of("5.3.0")
    site.take(CREATE)

    assert "--prepare" in site.command("status", code=3)
    assert "--prepare" in site.command("dead-letters", "list", code=3)
    assert "not ours to migrate" in site.command("migrate", code=2)
    assert "one at a time" in site.adopt("--prepare", "--revive", code=2)
    assert "ADD INDEX" in site.adopt("--prepare", "--dry-run")
    assert "ADD INDEX" in site.adopt("--prepare")
    assert "no relay is active" in site.command("status")
    site.execute("CREATE TABLE other (id INT)")
    assert "not a table of python-cqrs" in site.adopt("-s", "database.table=other", code=3)
    assert "there is no table" in site.adopt("-s", "database.table=nobody", code=3)
    assert "cannot name" in site.adopt("--move-to", "x;y", code=2)


def test_a_dead_letter_keeps_its_reason_and_its_own_relay_leaves_it(site_of, kafka):
    """
    I2. A damaged row; by the tools it is shown, requeued and discarded.
    """
    site = site_of("5.3.0")
    site.take(CREATE, site.writes(0, 1))
    site.adopt("--prepare")
    site.execute("UPDATE outbox SET payload = LEFT(payload, 20) WHERE id = 1")
    site.drain()

    listed = site.json("dead-letters", "list")
    site.take(site.relays())

    assert [row["error"] for row in listed["dead_letters"]] == [
        "unreadable: the payload's zlib stream is truncated"
    ]
    assert len(kafka.consume_all(site.topic)) == 1
    assert site.json("status")["dead_letter_rows"] == 1
    assert "requeued 1" in site.command("dead-letters", "requeue", "--all", "--yes")
    assert site.states()[0] == ("NEW", 0)
    site.drain()
    assert "discarded 1" in site.command("dead-letters", "discard", "--all", "--yes")
    assert site.states() == [("PRODUCED", 0)]


async def test_rows_that_arrive_while_it_runs_are_seen_and_two_relays_lose_nothing(site_of):
    """
    I1. Its applications go on writing, and its own relay may still run: events then come twice, at most.
    """
    site = site_of("5.3.0")
    await asyncio.to_thread(site.take, CREATE, site.writes(*range(200, 210)))
    await asyncio.to_thread(site.adopt, "--prepare")
    options = DatabaseOptions(url=site.database.async_url, layout="python-cqrs")
    broker = RecordingBroker(FakeClock(), {site.topic: 3})
    producer = EventProducer(open_store(options), broker, options=RelayOptions(poll_seconds=0.05))
    run = asyncio.create_task(producer.run())

    writers = [
        asyncio.to_thread(
            site.take, *(site.writes(*range(n, n + 5)) for n in range(first, first + 20, 5))
        )
        for first in (0, 100)
    ]
    await asyncio.gather(*writers, asyncio.to_thread(site.take, *[site.relays()] * 3))
    while {state for state, _ in site.states()} != {"PRODUCED"}:
        await asyncio.sleep(0.05)
    producer.stop()
    await run

    assert len(site.states()) == 50


def test_a_move_leaves_each_row_in_exactly_one_table(site_of, kafka):
    """
    In order, a few rows in each transaction; broken off, it goes on with the rest. A writer that has not
    committed and a relay at work stop it. Then our relay publishes what python-cqrs's would have.
    """
    from outbox_relay.adoption_move import Move
    from outbox_relay.errors import StoreUnavailable

    site = site_of("5.3.0")
    site.take(CREATE, site.writes(*range(6)), site.relays())
    theirs = [record.value for record in kafka.consume_all(site.topic)]
    site.execute("UPDATE outbox SET event_status = 'NEW'")
    site.execute("UPDATE outbox SET event_status = 'NOT_PRODUCED', flush_counter = 2 WHERE id = 2")
    site.adopt("--prepare")
    site.command("migrate", "-s", "database.layout=outbox", "-s", "database.table=events")
    options = DatabaseOptions(
        url=site.database.async_url, layout="python-cqrs", layout_key_path="payload.user_id"
    )

    def broken_off(rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Move(options, "events", rows_at_once=2, moved=broken_off).run()
    left = site.execute("SELECT COUNT(*) FROM outbox") + site.execute("SELECT COUNT(*) FROM events")
    with site.engine.begin() as writer:
        writer.execute(sa.text("UPDATE outbox_lease SET expires_at = '2999-01-01'"))
    with pytest.raises(StoreUnavailable, match="a relay is at work"):
        Move(options, "events").run()
    site.execute("UPDATE outbox_lease SET expires_at = '1999-01-01'")
    assert "would move 4" in site.adopt("--move-to", "events", "--dry-run")
    assert "moved 4" in site.adopt("--move-to", "events", "--yes")
    assert [tuple(row) for row in left] == [(4,), (2,)]
    assert site.execute("SELECT COUNT(*) FROM outbox") == [(0,)]
    keys = [bytes(row[0]) for row in site.execute("SELECT `key` FROM events ORDER BY id LIMIT 2")]
    assert keys == [b"0", b"1"]
    site.drain("-s", "database.layout=outbox", "-s", "database.table=events")

    assert [record.value for record in kafka.consume_all(site.topic)][6:] == theirs


def test_our_events_in_the_documents_of_python_cqrs(site_of, kafka):
    """
    At the switch consumers need not change: its consumers read our events with `from_dict`.
    """
    site = site_of("5.3.0")
    site.configure(wire='envelope = "python-cqrs-4"', layout="outbox", table="events")
    text = (site.folder / "config.toml").read_text().replace('layout = "python-cqrs"\n', "")
    (site.folder / "config.toml").write_text(text)
    site.command("migrate")
    outbox = Outbox(table="events")
    with site.engine.begin() as connection:
        outbox.add(
            connection, {"message": "foo"}, name="MeetingRoomClosed", topic=site.topic, key=None
        )
    site.drain()

    [record] = kafka.consume_all(site.topic)
    document = json.loads(record.value)

    assert list(document) == ["payload", "event_id", "event_timestamp", "event_name", "topic"]
    assert document["payload"] == {"message": "foo"}


def test_the_commands_of_the_guide_work_in_their_order(site_of, kafka):
    """
    docs/guide/adopting-python-cqrs.md, on a table with rows that wait and one that was given up.
    """
    page = Path(__file__).parents[2] / "docs" / "guide" / "adopting-python-cqrs.md"
    blocks = texts(page, "sh")
    lines = "".join(blocks).replace("--watch 30", "--watch 0.1").splitlines()
    commands = [line.split()[1:] for line in lines]
    site = site_of("5.3.0")
    site.take(CREATE, site.writes(0), *[site.relays(bootstrap=None)] * 5, site.writes(1))

    said = {}
    for words in commands:
        if words[0] == "run":
            site.drain()
        elif "--move-to" in words and "--dry-run" in words:
            site.command("migrate", "-s", "database.layout=outbox", "-s", "database.table=events")
            said[" ".join(words)] = site.command(*words)
        else:
            said[" ".join(words)] = site.command(*words, answer="y\n")
    site.drain("-s", "database.layout=outbox", "-s", "database.table=events")

    assert "not seen at work" in said["adopt python-cqrs --watch 0.1"]
    assert "requeued 1" in said["adopt python-cqrs --revive"]
    assert "moved 1" in said["adopt python-cqrs --move-to events"]
    numbers = [json.loads(record.value)["payload"] for record in kafka.consume_all(site.topic)]
    assert sorted(document["number"] for document in numbers) == [0, 1]
