"""
What follows from each outcome, as one table; and how long a relay believes that it holds its lease.
"""

from __future__ import annotations

import pytest

from outbox_relay.relay.decide import (
    MOST_REJECTIONS_IN_A_ROW,
    PATIENCE,
    AwaitBroker,
    Backoff,
    DeadLetter,
    MarkProduced,
    ParkPartition,
    PauseTopic,
    PublishAgain,
    Split,
    TrustWindow,
    decide,
)
from outbox_relay.relay.outcomes import Acked, Fault, Rejected, RejectReason, Unknown, Unsent

REJECTED = Rejected(reason=RejectReason.TOO_LARGE, detail="d")
UNKNOWN = Unknown(fault=Fault.PARTITION, detail="d")
MOST = MOST_REJECTIONS_IN_A_ROW


@pytest.mark.parametrize(
    ("outcome", "changes", "expected"),
    [
        (Acked(), {}, MarkProduced),
        (Acked(), {"records": 9, "unknown_in_a_row": 9, "broker_answers": False}, MarkProduced),
        (Unsent(), {"unknown_in_a_row": 9, "broker_answers": False}, PublishAgain),
        (REJECTED, {"records": 2, "rejected_in_a_row": MOST}, Split),
        (REJECTED, {"rejected_in_a_row": MOST - 1}, DeadLetter),
        (REJECTED, {"rejected_in_a_row": MOST}, PauseTopic),
        (REJECTED, {"broker_answers": False}, DeadLetter),
        (Unknown(fault=Fault.TOPIC, detail="d"), {}, PauseTopic),
        (Unknown(fault=Fault.TOPIC, detail="d"), {"broker_answers": False}, AwaitBroker),
        (UNKNOWN, {"unknown_in_a_row": PATIENCE - 1}, PublishAgain),
        (UNKNOWN, {"unknown_in_a_row": PATIENCE}, ParkPartition),
        (UNKNOWN, {"unknown_in_a_row": PATIENCE + 1}, ParkPartition),
        (UNKNOWN, {"unknown_in_a_row": PATIENCE, "broker_answers": False}, AwaitBroker),
    ],
)
def test_what_follows_from_an_outcome(outcome, changes, expected) -> None:
    """
    I7, I8. Only an answer gives a row up; a silent broker gives up nothing, however often it is silent.
    """
    facts = {
        "records": 1,
        "unknown_in_a_row": 1,
        "rejected_in_a_row": 0,
        "broker_answers": True,
    }

    assert isinstance(decide(outcome, **(facts | changes)), expected)


@pytest.mark.parametrize(
    ("outcome", "changes", "expected"),
    [
        (REJECTED, {}, DeadLetter(reason=RejectReason.TOO_LARGE, detail="d")),
        (
            REJECTED,
            {"rejected_in_a_row": MOST},
            PauseTopic(detail=f"{MOST} rejections in a row, now: d"),
        ),
        (Unknown(fault=Fault.TOPIC, detail="d"), {}, PauseTopic(detail="d")),
        (UNKNOWN, {"unknown_in_a_row": PATIENCE}, ParkPartition(detail="d")),
    ],
)
def test_a_decision_says_why(outcome, changes, expected) -> None:
    """
    I2. What the broker said reaches the dead letter, or whoever looks for what waits.
    """
    facts = {"records": 1, "unknown_in_a_row": 1, "rejected_in_a_row": 0, "broker_answers": True}

    assert decide(outcome, **(facts | changes)) == expected


def test_an_outcome_that_is_none_decides_nothing() -> None:
    """
    It ends the term with a word about it: silence would leave the batch where it is for ever.
    """
    with pytest.raises(AssertionError, match="stranger"):
        decide(
            "a stranger",
            records=1,
            unknown_in_a_row=1,
            rejected_in_a_row=0,
            broker_answers=True,
        )


def test_a_pause_without_a_limit_still_has_one() -> None:
    """
    An outage of months may fail so often that the power would not fit into a float.
    """
    backoff = Backoff(initial_seconds=1.0, max_seconds=float("inf"))

    assert backoff.delay_seconds(31, jitter=1.0) == 2.0**30
    assert backoff.delay_seconds(100_000, jitter=1.0) == 2.0**30


def test_a_pause_doubles_up_to_its_limit_with_jitter() -> None:
    """
    Between a tenth and all of it, so that those who failed together do not come back together.
    """
    backoff = Backoff(initial_seconds=1.0, max_seconds=10.0)

    assert [backoff.delay_seconds(n, jitter=1.0) for n in (1, 2, 3, 4, 5, 500)] == [
        1,
        2,
        4,
        8,
        10,
        10,
    ]
    assert backoff.delay_seconds(1, jitter=0.0) == pytest.approx(0.1)


def test_trust_ends_where_a_batch_might_outlive_the_lease() -> None:
    """
    I5. Counted from the start of the last renewal that succeeded; an older one takes nothing away.
    """
    trust = TrustWindow(lease_seconds=15, publish_deadline_seconds=10, renewed_at=100)

    assert trust.may_publish(105)
    assert not trust.may_publish(105.1)
    trust.renewed(103)
    trust.renewed(101)
    assert trust.left(103) == 15
    assert trust.renew_every() == pytest.approx(5 / 3)
    assert trust.may_skip(105.4)
    assert not trust.may_skip(105.5)


def test_renewals_are_never_a_busy_loop() -> None:
    """
    Also with a deadline almost as long as the lease.
    """
    trust = TrustWindow(lease_seconds=10.01, publish_deadline_seconds=10, renewed_at=0)

    assert trust.renew_every() == 0.05
