"""
The demo's account: it balances when it should, and, as important, it does not when it should not.
"""

from __future__ import annotations

import pytest

from outbox_relay.demo.account import Account, Entry, balance

FIRST = Entry("e1", "anna", 1)
SECOND = Entry("e2", "anna", 2)
OTHER = Entry("e3", "bert", 1)
ALL = [FIRST, SECOND, OTHER]


def account(committed: list[Entry], delivered: list[Entry]) -> Account:
    return balance(committed, delivered, rolled_back=0)


def test_everything_once_and_in_order_balances() -> None:
    """
    Each committed event once, in the order of its key: the account balances.
    """
    found = balance(ALL, ALL, rolled_back=7)

    assert found == Account(
        committed=3,
        rolled_back=7,
        delivered=3,
        ghosts=0,
        lost=0,
        order_violations=0,
        duplicates=0,
    )
    assert found.balanced


def test_order_holds_within_a_key_only() -> None:
    """
    Events of different keys may overtake one another.
    """
    assert account(ALL, [OTHER, FIRST, SECOND]).balanced


def test_the_books_need_no_order() -> None:
    """
    Only deliveries have an order; committed events may be listed in any.
    """
    assert account([SECOND, OTHER, FIRST], ALL).balanced


@pytest.mark.parametrize(
    "delivered",
    [[FIRST, FIRST, SECOND, OTHER], [FIRST, SECOND, FIRST, OTHER], [*ALL, FIRST]],
    ids=["at once", "after a later event", "at the end"],
)
def test_duplicates_are_counted_and_allowed(delivered: list[Entry]) -> None:
    """
    An event delivered again is a duplicate, never an order violation, wherever the copy stands.
    """
    found = account(ALL, delivered)

    assert (found.duplicates, found.order_violations, found.delivered) == (1, 0, 3)
    assert found.balanced


def test_each_event_is_booked_once() -> None:
    """
    What the consumer's database holds must be what was delivered, without the duplicates.
    """
    delivered = [FIRST, FIRST, SECOND, OTHER]

    assert balance(ALL, delivered, rolled_back=0, booked=3, dropped=1).balanced
    assert not balance(ALL, delivered, rolled_back=0, booked=4).balanced


def test_a_lost_event_does_not_balance() -> None:
    """
    A committed event that never arrives is lost.
    """
    found = account(ALL, [FIRST, OTHER])

    assert (found.lost, found.ghosts) == (1, 0)
    assert not found.balanced


def test_a_ghost_does_not_balance() -> None:
    """
    An event that arrives and was never committed is a ghost.
    """
    found = account([FIRST, SECOND], ALL)

    assert (found.ghosts, found.lost) == (1, 0)
    assert not found.balanced


def test_a_ghost_does_not_make_up_for_a_lost_event() -> None:
    """
    Equal numbers are not enough: it must be the same events.
    """
    found = account([FIRST, SECOND], [FIRST, OTHER])

    assert (found.committed, found.delivered) == (2, 2)
    assert (found.ghosts, found.lost) == (1, 1)
    assert not found.balanced


def test_a_later_event_first_does_not_balance() -> None:
    """
    An event whose first delivery comes after that of a later event of its key violates the order.
    """
    found = account(ALL, [SECOND, FIRST, OTHER])

    assert found.order_violations == 1
    assert not found.balanced


def test_a_copy_in_order_does_not_hide_a_violation() -> None:
    """
    First deliveries decide: a consumer has acted on them by the time the copies come.
    """
    found = account(ALL, [SECOND, FIRST, SECOND, OTHER])

    assert (found.order_violations, found.duplicates) == (1, 1)
    assert not found.balanced


def test_two_events_under_one_number_do_not_balance() -> None:
    """
    A number given twice means that the keys were not serialised: then order proves nothing.
    """
    twin = Entry("e4", "anna", 1)

    assert not account([FIRST, twin], [FIRST, twin]).balanced


def test_nothing_at_all_does_not_balance() -> None:
    """
    A demo in which nothing happened shows nothing.
    """
    assert not account([], []).balanced
