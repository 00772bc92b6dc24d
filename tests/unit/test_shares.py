"""
Which lanes each of several relays should hold: pure decisions.
"""

from __future__ import annotations

import pytest

from outbox_relay.errors import LeaseLost
from outbox_relay.relay.lease import ALL_LANES, Holding, Lease, Sharing, Term, choose, share
from outbox_relay.relay.options import RelayOptions
from outbox_relay.schema import LANES


@pytest.mark.parametrize("members", [1, 2, 3, 4, 5, 12, 63, 64])
def test_the_shares_are_all_lanes_and_differ_by_one_at_most(members):
    """
    Nobody has twice what another has, and no lane is left over.
    """
    shares = [share(held=0, members=members, rank=rank) for rank in range(members)]

    assert sum(shares) == LANES
    assert max(shares) - min(shares) <= 1


def test_who_holds_its_share_neither_takes_nor_gives():
    """
    Else lanes would go to and fro for ever.
    """
    for members in (1, 3, 5):
        for rank in range(members):
            held = share(held=0, members=members, rank=rank)
            assert share(held=held, members=members, rank=rank) == 0


def test_relays_that_come_together_choose_different_lanes():
    """
    Both look before either has taken any.
    """
    chosen = [
        choose(
            Sharing(members=4, rank=rank, handed_back=ALL_LANES, run_out=frozenset()),
            held=0,
            run_out_too=False,
        )
        for rank in range(4)
    ]

    assert frozenset().union(*chosen) == ALL_LANES
    assert [len(lanes) for lanes in chosen] == [16] * 4


@pytest.mark.parametrize(("held", "taken"), [(33, 0), (32, 0), (31, 1), (30, 2), (0, 10)])
def test_who_lacks_lanes_takes_those_that_it_lacks(held, taken):
    """
    As far as they are free, and none where it has its share or more.
    """
    sharing = Sharing(members=2, rank=1, handed_back=frozenset(range(10)), run_out=frozenset())

    assert len(choose(sharing, held=held, run_out_too=False)) == taken


def test_where_nothing_is_free_nothing_is_taken():
    """
    However much is lacking.
    """
    sharing = Sharing(members=2, rank=1, handed_back=frozenset(), run_out=ALL_LANES)

    assert choose(sharing, held=0, run_out_too=False) == frozenset()


def test_lanes_that_ran_out_may_be_left_alone():
    """
    After an outage of the database their owner may live.
    """
    sharing = Sharing(members=1, rank=0, handed_back=frozenset({1, 2}), run_out=ALL_LANES - {1, 2})

    assert choose(sharing, held=0, run_out_too=False) == {1, 2}
    assert choose(sharing, held=0, run_out_too=True) == ALL_LANES


def test_a_mark_that_named_a_lane_just_given_back_is_no_lost_lease():
    """
    It is repeated; a lane that should be ours and is not ends the term.
    """
    holding = Holding(Lease(term=Term(1, "n"), server="s", noted_id=0, crash_count=0))
    holding.giving = frozenset({7, 8})
    holding.gave(frozenset({7}))

    assert not holding.is_over(LeaseLost("taken", frozenset({7})))
    assert holding.is_over(LeaseLost("taken", frozenset({7, 8})))
    assert holding.is_over(LeaseLost("all of them"))
    assert holding.lanes == ALL_LANES - {7, 8}


def test_lanes_that_come_later_belong_to_the_same_term():
    """
    What is marked from then on is fenced by all of them.
    """
    first, later = frozenset({1, 2}), frozenset({5})
    holding = Holding(Lease(term=Term(1, "n", first), server="s", noted_id=0, crash_count=0))
    holding.took(later)

    assert holding.lanes == {1, 2, 5}
    assert holding.lease.term == Term(1, "n", frozenset({1, 2, 5}))


def test_more_relays_than_lanes_are_refused():
    """
    Some would never have a lane.
    """
    [problem] = RelayOptions(max_active_relays=65).problems()

    assert "max_active_relays = 65" in problem
    assert RelayOptions(max_active_relays=64).problems() == []
    assert RelayOptions(max_active_relays=0).problems() != []
