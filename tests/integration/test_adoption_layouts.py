"""
Tables of python-cqrs that applications upgraded, and rows that become ours.
"""

from __future__ import annotations

import re

import pytest

from tests.integration.adopted_site import CREATE, NAMES, sql

OURS = ("-s", "database.layout=outbox", "-s", "database.table=events")


def without_time(value: bytes) -> bytes:
    """A payload alone says no time: there it is the row's, in seconds."""
    return re.sub(rb'"event_timestamp":"[^"]*"', b'"event_timestamp":""', value)


def test_a_table_of_4_9_that_5_3_writes_to_is_drained(site_of, kafka):
    """
    On latin1 5.3 stores its ids as noise; what is published is what its own relay would send, by 4.9 and by 5.3.
    """
    site = site_of("4.9.0", charset="latin1")
    site.take(CREATE, site.writes(0, 1, 2, 3))
    site.take(
        site.writes(4, 5),
        site.relays(),
        sql("UPDATE outbox SET event_status = 'NEW'"),
        release="5.3.0",
    )
    theirs = [record.value for record in kafka.consume_all(site.topic)]

    assert "made by python-cqrs 2.6 to 4.10.0" in site.adopt("--prepare") + site.adopt()
    site.drain()

    assert len(theirs) == 6
    assert [record.value for record in kafka.consume_all(site.topic)][6:] == theirs


def test_the_advice_for_text_ids_lets_both_kinds_of_applications_write(site_of, kafka):
    """
    On utf8mb4 5.3 cannot write to a table of 4.9. After the statement of the warning both can, and the ids on
    the wire are those of the events.
    """
    site = site_of("4.9.0", zlib=False)
    site.take(CREATE, site.writes(0))
    site.adopt("--prepare")
    with pytest.raises(AssertionError, match="1366"):
        site.take(site.writes(1), release="5.3.0")

    advice = re.search(r"run `(ALTER TABLE [^`]*)`", " ".join(site.adopt().split()))
    assert advice is not None
    site.execute(advice[1])
    site.take(site.writes(1), release="5.3.0")
    site.take(site.writes(2))
    site.drain()

    ids = [record.headers["ce_id"].decode() for record in kafka.consume_all(site.topic)]
    assert ids == [site.event(number)["id"] for number in range(3)]
    assert site.states() == [("PRODUCED", 0)] * 3


@pytest.mark.parametrize(
    ("release", "server", "envelope"),
    [("1.0.0", "mariadb", "python-cqrs-3"), ("5.3.0", "postgresql", "python-cqrs-4")],
)
def test_payload_only_moves_events_as_our_own_are(site_of, kafka, release, server, envelope):
    """
    Of a document its payload, of a row of 1.0.0 what it holds; with wire.envelope consumers read what they
    read before. The time is that of the row, in seconds.
    """
    site = site_of(release, server)
    pydantic = {"events": [site.event(n, kind="pydantic", name=list(NAMES)[1]) for n in range(3)]}
    site.take(CREATE, site.writes() | pydantic, site.relays(), sql(
        "UPDATE outbox SET event_status = 'NEW'"
    ))  # fmt: skip
    theirs = [without_time(record.value) for record in kafka.consume_all(site.topic)]
    site.adopt("--prepare")
    site.command("migrate", *OURS)

    assert "moved 3" in site.adopt("--move-to", "events", "--payload-only", "--yes")
    [stored, *_] = site.execute("SELECT payload, codec FROM events ORDER BY id")
    site.drain(*OURS, "-s", f"wire.envelope={envelope}")

    if server == "postgresql":
        assert bytes(stored[0]).startswith(b'{"number":0,')
    ours = [record.value for record in kafka.consume_all(site.topic)][3:]
    assert len(theirs) == 3
    assert [without_time(value) for value in ours] == theirs
    assert b'"event_timestamp":"2026-01-02T03:04:0' in ours[0]
