"""The SQL that deletes produced rows: on the ack, or when they are old enough."""

from __future__ import annotations

from outbox_relay.relay.ports import PurgePlan
from outbox_relay.schema import Status
from outbox_relay.store.dialect import Dialect

AGE_COLUMNS = {Status.PRODUCED: "produced_at", Status.DEAD: "dead_at"}
"""When a row began to grow old."""


class Retention:
    """
    Statements of one outbox in one dialect. Each DELETE names ids, so that it locks no other row.
    """

    def __init__(self, dialect: Dialect, *, table: str, by_status: str) -> None:
        self._dialect = dialect
        self._by_status = by_status
        self._delete = dialect.delete_from.format(table)

    def delete_produced(self, ids: str, fence: str) -> str:
        """As the mark, ``status = 0`` is what fences a statement that waited for a row lock."""
        return (
            f"{self._delete} WHERE id IN ({ids}) "
            f"AND {self._dialect.status_by_id} = {Status.PENDING:d} AND {fence}"
        )

    def aged(self, plan: PurgePlan) -> str:
        """Takes no lock, and goes by the index: neither pending rows nor a sort."""
        return (
            f"SELECT id, {self._is_due(plan)}, topic, {self._dialect.uuid.format('event_id')}, "
            f"last_error FROM {self._by_status} "
            f"WHERE status = {plan.status:d} AND id > {plan.after_id:d} "
            f"ORDER BY id LIMIT {plan.limit:d}"
        )

    def purge(self, ids: str, plan: PurgePlan) -> str:
        """
        Looks at status and age once more: a dead letter may have been requeued meanwhile.

        Without the test of the term: InnoDB would lock the lease for as long as the DELETE takes, and
        renewals would wait. Whoever deletes them, rows that are due are due.
        """
        return (
            f"{self._delete} WHERE id IN ({ids}) "
            f"AND {self._dialect.status_by_id} = {plan.status:d} AND {self._is_due(plan)}"
        )

    def _is_due(self, plan: PurgePlan) -> str:
        # One placeholder: the age in seconds, negative.
        return f"{AGE_COLUMNS[plan.status]} <= {self._dialect.seconds_ahead}"
