"""
Late events of a key, and events whose numbers begin anew, on each database.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from outbox_relay import DomainEvent
from tests.contract.billing import NOON, Billing, record


def test_an_older_event_of_a_key_is_rejected(billing: Billing) -> None:
    """
    By outbox-seq, within one source, topic and key: each of the others has a latest of its own.
    """

    def comes(sequence: int, **where: Any) -> bool:
        at = NOON + timedelta(seconds=sequence)
        return billing.transaction(record(sequence=sequence, at=at, **where))

    assert [comes(5), comes(7), comes(6), comes(8)] == [True, True, False, True]
    assert [comes(1, key=b"other"), comes(1, topic="t")] == [True] * 2
    assert comes(1, source="/another")
    assert billing.inbox.stale == 1


def test_events_without_a_key_have_no_order_to_be_late_in(billing: Billing) -> None:
    """
    They are spread over the partitions, so a lower number may come later: to reject it would lose it.
    """
    seen = [billing.transaction(record(sequence=n, at=NOON, key=None)) for n in (9, 3, 5)]

    assert seen == [True] * 3
    assert billing.inbox.stale == 0


def test_where_late_events_are_rejected_the_event_alone_is_refused(billing: Billing) -> None:
    """
    It has no number: handled in silence, an older one would replace a newer one.
    """
    with Session(billing.engine) as session, pytest.raises(TypeError, match="needs the record"):
        billing.inbox.first_time(session, DomainEvent())


def test_a_rejected_event_leaves_no_trace_when_it_is_rolled_back(billing: Billing) -> None:
    """
    The latest event of a key is part of the transaction, like everything else.
    """
    with Session(billing.engine) as session:
        billing.handle(session, record(sequence=9, at=NOON))
        session.rollback()

    assert billing.transaction(record(sequence=8, at=NOON))


def test_an_outbox_that_gives_its_numbers_again_loses_no_effect(billing: Billing) -> None:
    """
    After a restore the numbers begin below; the events' times do not. They are handled, and order
    holds among them from then on.
    """
    later = NOON + timedelta(hours=1)
    assert billing.transaction(record(sequence=1000, at=NOON))
    assert billing.transaction(record(sequence=10, at=later))
    assert not billing.transaction(record(sequence=9, at=NOON))
    assert billing.transaction(record(sequence=11, at=later))


def test_an_event_without_a_number_is_never_stale(billing: Billing) -> None:
    """
    Other producers send no outbox-seq.
    """
    assert billing.transaction(record(sequence=5, at=NOON))
    assert billing.transaction(record(sequence=None))
