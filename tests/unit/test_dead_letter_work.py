"""
Doing something with many dead letters: a few at a time, and it is said how far it came.
"""

from __future__ import annotations

import doctest
import os
import signal
from datetime import datetime, timedelta

import pytest

from outbox_relay.cli import dead_letter_work
from outbox_relay.cli.dead_letter_view import for_reading, payload, print_table
from outbox_relay.cli.dead_letter_work import ROWS_AT_ONCE, Done, Pace, act_on_all, survey
from outbox_relay.errors import StoreUnavailable
from outbox_relay.events import uuid7
from outbox_relay.relay.dead_letters import Found, Selection
from outbox_relay.schema import Codec
from outbox_relay.testing import settle

LONG_AGO = datetime(2026, 1, 1)  # noqa: DTZ001 - as the tables have it


class Letters:
    """Dead letters in memory; `fails_after` statements the database is away."""

    def __init__(self, rows: int, *, fails_after: int | None = None) -> None:
        self.dead = set(range(1, rows + 1))
        self.again: dict[int, timedelta] = {}
        self.statements: list[int] = []
        self.fails_after = fails_after

    async def find(self, selection, *, after_id=0, limit=1000):
        await settle()  # as a database does: the loop runs meanwhile
        upto = selection.last_id or 10**9
        ids = [row_id for row_id in sorted(self.dead) if after_id < row_id <= upto]
        return [
            Found(row_id, "t", uuid7(), "too_large", self.dead_at(row_id)) for row_id in ids[:limit]
        ]

    def dead_at(self, row_id):
        return LONG_AGO + self.again.get(row_id, timedelta())

    async def requeue(self, ids):
        if len(self.statements) == self.fails_after:
            raise StoreUnavailable("the database is away")
        self.statements.append(len(ids))
        before = len(self.dead)
        self.dead -= set(ids)
        return before - len(self.dead)


async def requeue_all(
    letters, *, pace=None, acted=lambda found: None, selection=None, surveyed=None
):
    selection = selection or Selection()
    surveyed = surveyed or await survey(letters, selection)
    return await act_on_all(
        letters,
        selection,
        surveyed,
        act=letters.requeue,
        acted=acted,
        pace=pace or Pace(None),
        advance=lambda rows: None,
    )


async def test_a_statement_changes_a_bounded_number_of_rows():
    """
    I10. Nobody waits long for its locks.
    """
    letters = Letters(1200)
    done = await requeue_all(letters)

    assert done == Done(1200)
    assert letters.statements == [ROWS_AT_ONCE, ROWS_AT_ONCE, 200]


async def test_what_came_after_the_count_is_left():
    """
    Nobody was asked about it.
    """
    letters = Letters(3)
    surveyed = await survey(letters, Selection())
    letters.dead |= {4, 5}
    done = await requeue_all(letters, surveyed=surveyed)

    assert done == Done(3)
    assert letters.dead == {4, 5}


@pytest.mark.parametrize("hours", [1, 0, -1])
async def test_what_died_after_the_count_is_left_also_with_a_smaller_id(hours):
    """
    I2. A row that waited long dies while somebody reads the question, or dies once more: it is not among
    what was answered, also where the database's clock was set back meanwhile.
    """
    letters = Letters(5)
    letters.dead -= {2}
    surveyed = await survey(letters, Selection())
    letters.dead |= {2}
    letters.again = {2: timedelta(hours=hours), 4: timedelta(hours=hours or 1)}
    done = await requeue_all(letters, surveyed=surveyed)

    assert done == Done(3)
    assert letters.dead == {2, 4}


async def test_a_page_of_nothing_that_is_meant_is_passed_by():
    """
    What follows it is done.
    """
    letters = Letters(ROWS_AT_ONCE + 10)
    late = set(range(1, ROWS_AT_ONCE + 1))
    letters.dead -= late
    surveyed = await survey(letters, Selection())
    letters.dead |= late
    done = await requeue_all(letters, surveyed=surveyed)

    assert done == Done(10)
    assert letters.statements == [10]
    assert letters.dead == late


async def test_an_error_says_how_many_were_done_and_the_rest_can_follow():
    """
    Rows that are done are no dead letters any more: the same command passes them by.
    """
    letters = Letters(1200, fails_after=1)
    with pytest.raises(StoreUnavailable, match=r"away\. 500 of 1,200 rows were done before"):
        await requeue_all(letters)
    letters.fails_after = None
    done = await requeue_all(letters)

    assert done == Done(700)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_between_two_statements(number):
    """
    What is under way is finished and counted.
    """
    letters = Letters(1200)
    signals = [number]

    def acted(found) -> None:
        if signals:
            os.kill(os.getpid(), signals.pop())

    done = await requeue_all(letters, acted=acted)
    rest = await requeue_all(letters)

    assert done.stopped_by is number
    assert 0 < done.rows < 1200
    assert done.rows + rest.rows == 1200


@pytest.mark.parametrize(
    ("rate", "at_once", "pause"), [(None, ROWS_AT_ONCE, 0.0), (50, 50, 1.5), (10**6, 500, 0.0)]
)
def test_the_pace(rate, at_once, pause):
    """
    A slow one takes fewer rows at once, so that a second is a second.
    """
    pace = Pace(rate)

    assert pace.rows_at_once == at_once
    assert pace.pause(100, elapsed=0.5) == pause


@pytest.mark.parametrize(
    ("stored", "codec", "shown"),
    [
        (b"", Codec.TOMBSTONE, {"payload": None}),
        (b"text", Codec.RAW, {"payload": "text"}),
        (b"\xff", Codec.RAW, {"payload_base64": "/w=="}),
    ],
)
def test_a_payload_as_it_would_be_published(stored, codec, shown):
    """
    Bytes that are no text as base64.
    """
    assert payload(stored, codec) == shown


@pytest.mark.parametrize("codec", [Codec.ZLIB, Codec.ZSTD, 9])
def test_a_payload_that_cannot_be_read_is_shown_as_it_is_stored(codec):
    """
    With what is wrong with it.
    """
    shown = payload(b"text", codec)

    assert shown["stored_base64"] == "dGV4dA=="
    assert shown["payload_problem"]


def test_json_is_shown_over_several_lines_if_it_is_any():
    """
    The content type says what it should be; what is none is shown as it is.
    """
    as_json = for_reading(
        "payload", '{"a":"\u00e4"}', "application/cloudevents+json; charset=utf-8"
    )

    assert as_json == '\n{\n  "a": "\u00e4"\n}'
    assert for_reading("payload", "{", "application/json") == "{"
    assert for_reading("payload", "[" * 100_000, "application/json") == "[" * 100_000
    assert for_reading("payload", '{"a":1}', "text/plain") == '{"a":1}'


@pytest.mark.parametrize("module", [dead_letter_work])
def test_the_examples_run(module):
    """
    What a docstring shows is so.
    """
    found = doctest.testmod(module)

    assert found.attempted > 0
    assert found.failed == 0


def test_a_selection_is_described_without_its_keys():
    """
    I11. A log line says what chose the rows, and of keys how many.
    """
    described = Selection(ids=(1,), first_id=0, keys=(b"secret",)).described()

    assert described == {"ids": [1], "from_id": 0, "chosen_keys": 1}


def test_ids_stay_in_one_piece(monkeypatch, capsys):
    """
    On a terminal of 80 columns a ce_id can be copied from the table; what is beside it folds.
    """
    monkeypatch.setenv("COLUMNS", "80")
    ce_id = "01a203f6-26b2-7308-b550-5efb0c5a04d5"
    names = ("id", "topic", "key", "event", "status", "created (UTC)", "settled", "ce_id")
    row = (
        "1754",
        "orders",
        "1",
        "order.placed",
        "produced",
        "2026-11-22 15:53:13",
        "+5.6 s",
        ce_id,
    )

    print_table(names, [row])

    printed = capsys.readouterr().out
    assert ce_id in printed
    assert max(map(len, printed.splitlines())) <= 80
