"""
The oracles of the tests under faults would notice: what is wrong in an account, and what grows.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace

import pytest

from outbox_relay.schema import Status
from tests.faults.flat import course, table
from tests.faults.kill_loop import IN_FLIGHT_ROWS, Round, schedule
from tests.faults.kill_loop import table as table_of_rounds
from tests.faults.oracle import Account, account, told
from tests.services.kafka import Record

LEDGER = ["begun t1 a b", "begun t2 c", "committed t1", "begun t3 d", "rolled_back t2"]
ROWS = {"a": Status.PRODUCED, "b": Status.PRODUCED}


def record(event: str, version: int) -> Record:
    """The record of an event of the key k."""
    return Record(
        partition=0,
        offset=0,
        key=b"k",
        value=json.dumps({"version": version}).encode(),
        headers={"ce_id": event.encode()},
        timestamp=0,
    )


def test_the_ledger_tells_what_became_of_each_event() -> None:
    """
    What was begun and never ended is known to nobody.
    """
    known = told(LEDGER)

    assert (known.committed, known.rolled_back, known.unknown) == ({"a", "b"}, {"c"}, {"d"})


def test_an_account_that_balances() -> None:
    """
    A duplicate is counted; it is no fault of the order.
    """
    found = account(told(LEDGER), ROWS, [record("a", 1), record("b", 2), record("a", 1)])

    assert found.is_well
    assert (found.committed, found.published, found.duplicates) == (2, 2, 1)


@pytest.mark.parametrize(
    ("rows", "records", "wrong"),
    [
        (ROWS, [("a", 1)], {"lost": 1}),
        ({"a": Status.PRODUCED}, [("a", 1)], {"vanished": 1}),
        (ROWS, [("a", 1), ("b", 2), ("c", 3)], {"ghosts": 1}),
        (ROWS | {"c": Status.PRODUCED}, [("a", 1), ("b", 2), ("c", 3)], {"ghosts": 1}),
        (ROWS, [("b", 2), ("a", 1)], {"inversions": 2}),
        (ROWS | {"d": Status.DEAD}, [("a", 1), ("b", 2)], {"dead": 1}),
        (ROWS | {"d": Status.PENDING}, [("a", 1), ("b", 2), ("d", 3)], {"pending": 1}),
    ],
)
def test_an_account_that_does_not_balance(rows, records, wrong) -> None:
    """
    Each kind of failure is found, and no other with it.
    """
    found = account(told(LEDGER), rows, [record(*what) for what in records])

    assert not found.is_well
    kinds = ("lost", "vanished", "ghosts", "inversions", "dead", "pending")
    assert {kind: getattr(found, kind) for kind in kinds if getattr(found, kind)} == wrong


def test_a_round_has_as_many_kills_as_were_asked_for() -> None:
    """
    Database and broker have their share, at least one each; all of it again with the same seed.
    """
    small, large = (Counter(schedule(kills, random.Random(1))) for kills in (10, 100))

    assert (small["kill relay"], small["kill database"], small["kill broker"]) == (8, 1, 1)
    assert (large["kill relay"], large["kill database"], large["kill broker"]) == (95, 3, 2)
    assert schedule(10, random.Random(1)) == schedule(10, random.Random(1))


def test_a_round_with_too_many_duplicates_is_not_well() -> None:
    """
    I6. in_flight_rows for each fault; the table sums the rounds up.
    """
    nothing_wrong = account(told(LEDGER), ROWS, [record("a", 1), record("b", 2)])
    good = Round(
        database="mariadb",
        active=2,
        seed=1,
        faults=Counter({"kill relay": 2, "pause relay": 1}),
        account=replace(nothing_wrong, duplicates=3 * IN_FLIGHT_ROWS),
        most_repeated=7,
        seconds=60,
    )
    bad = replace(good, account=replace(nothing_wrong, duplicates=3 * IN_FLIGHT_ROWS + 1))

    assert good.is_well
    assert not bad.is_well
    assert (
        table_of_rounds([good, bad]).splitlines()[-1].startswith("| all | **4** | **0** | **0** |")
    )


def test_an_account_is_well_only_without_any_failure() -> None:
    """
    No field of an account is left out of the verdict but the harmless ones.
    """
    zero = Account(**dict.fromkeys(Account.__slots__, 0))
    harmless = {"committed", "rolled_back", "unknown", "published", "duplicates"}
    spoil = {name for name in Account.__slots__ if not replace(zero, **{name: 1}).is_well}

    assert zero.is_well
    assert spoil == set(Account.__slots__) - harmless


@pytest.mark.parametrize(
    ("values", "flat"),
    [
        ([100.0] * 30, True),
        ([300.0] * 3 + [100.0] * 27, True),  # the start
        ([100.0 + n % 3 for n in range(30)], True),
        ([100.0] * 29 + [500.0], True),  # once
        ([100.0 + n for n in range(30)], False),
        ([100.0] * 15 + [120.0] * 15, False),
    ],
)
def test_what_grows_is_found(values: list[float], flat: bool) -> None:
    """
    The last third is compared with the first, without the warm-up; a single peak is no growth.
    """
    found = course("memory, MiB", values)

    assert found.is_flat is flat
    assert ("flat" if flat else "grows") in table([found])
