"""The SQL of the store, in the words of a `Dialect`."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.sql.compiler import IdentifierPreparer

from outbox_relay.relay.ports import PurgePlan, ReadPlan
from outbox_relay.schema import LANES, Status, Tables
from outbox_relay.store.dead_letters import dead_keys_sql
from outbox_relay.store.dialect import Dialect
from outbox_relay.store.retention import Retention

LARGE_PAYLOAD_BYTES = 16 * 1024
"""Larger payloads stay behind when rows are read, and are fetched one by one within the budget."""


def _ids(ids: Sequence[int] | frozenset[int]) -> str:
    """Integers of ours, as SQL text: the only data that becomes part of a statement."""
    return ",".join([str(int(row_id)) for row_id in ids])


class Statements:
    """The SQL of one outbox in one dialect."""

    def __init__(self, dialect: Dialect, names: Tables, preparer: IdentifierPreparer) -> None:
        d, p = dialect, dialect.placeholder
        self._d = d
        quote = preparer.quote_identifier
        name, self.lease, control, version = [
            ".".join(quote(part) for part in (table.schema, table.name) if part)
            for table in (names.outbox, names.lease, names.control, names.version)
        ]
        self._pending = f"{name} {d.pending_hint.format(quote(names.pending_index))}"
        self._mark = (
            f"UPDATE {name} {d.primary_hint} "
            f"SET status = {Status.PRODUCED:d}, produced_at = {d.now} "
            f"WHERE id IN ({{}}) AND status = {Status.PENDING:d} AND {{}}"
        )
        self._retention = Retention(d, table=name, by_status=self._pending)
        self._mark_dead = (
            f"UPDATE {name} SET status = {Status.DEAD:d}, attempts = attempts + 1, "
            f"dead_at = {d.now}, last_error = {p} "
            f"WHERE id = {p} AND status = {Status.PENDING:d} AND {{}}"
        )
        self.version = f"SELECT version, min_reader FROM {version} ORDER BY version DESC LIMIT 1"
        self.max_id = (d.holders or "SELECT MAX(id) FROM {table}").format(table=name)
        self.payload = f"SELECT {d.blob.format('payload')} FROM {name} WHERE id = {p}"
        self.paused = f"SELECT topic FROM {control}"
        self._columns = self._row_columns()

    def _row_columns(self) -> str:
        d = self._d
        length = f"LENGTH({d.blob.format('payload')})"
        return ", ".join(
            (
                "id",
                "topic",
                d.blob.format(d.key),
                f"CASE WHEN {length} <= {LARGE_PAYLOAD_BYTES} THEN {d.blob.format('payload')} END",
                length,
                "codec",
                "headers",
                d.uuid.format("event_id"),
                "event_name",
                "content_type",
                d.microseconds.format("created_at"),
                f"CASE WHEN attempts > 0 THEN {d.microseconds.format('available_at')} END",
                "lane",
            )
        )

    def _where(self, plan: ReadPlan) -> tuple[str, tuple[str, ...]]:
        upto = "" if plan.upto_id is None else f" AND id <= {plan.upto_id:d}"
        which = f"id > {plan.after_id:d}{upto}"
        if plan.open_ids:
            which = f"({which}) OR id IN ({_ids(plan.open_ids)})"
        where = f"status = {Status.PENDING:d} AND ({which})"
        for first, last in plan.skip_ids:
            where += f" AND (id < {first:d} OR id > {last:d})"
        if len(plan.lanes) < LANES:
            where += f" AND lane IN ({_ids(plan.lanes)})"
        topics = tuple(sorted(plan.skip_topics))
        if topics:
            where += f" AND topic NOT IN ({','.join([self._d.placeholder] * len(topics))})"
        return where, topics

    def read(self, plan: ReadPlan) -> tuple[str, tuple[str, ...]]:
        """One statement, so one snapshot."""
        where, topics = self._where(plan)
        return (
            f"SELECT {self._columns} FROM {self._pending} WHERE {where} "
            f"ORDER BY id LIMIT {plan.limit:d}"
        ), topics

    def pending_ids(self, plan: ReadPlan) -> tuple[str, tuple[str, ...]]:
        """Served by the index alone unless topics pause."""
        where, topics = self._where(plan)
        return f"SELECT id FROM {self._pending} WHERE {where}", topics

    def mark_produced(self, ids: Sequence[int], fence: str) -> str:
        """The term's test alone does not fence: a statement that waited for a row lock goes on with
        what it read before. With ``status = 0`` it then touches nothing."""
        return self._mark.format(_ids(ids), fence)

    def delete_produced(self, ids: Sequence[int], fence: str) -> str:
        """With the same fence as `mark_produced`."""
        return self._retention.delete_produced(_ids(ids), fence)

    def mark_dead(self, fence: str) -> str:
        """Likewise, for one row."""
        return self._mark_dead.format(fence)

    def aged(self, plan: PurgePlan) -> str:
        """See Retention."""
        return self._retention.aged(plan)

    def purge(self, ids: Sequence[int], plan: PurgePlan) -> str:
        """See Retention."""
        return self._retention.purge(_ids(ids), plan)

    def dead_keys(self, limit: int) -> str:
        """The first *limit* dead letters and one more, by the index."""
        return dead_keys_sql(self._d, self._pending, limit)

    def sample(self, cap: int) -> str:
        """Counts no more than *cap* + 1 rows of each kind."""
        counts = ", ".join(
            f"(SELECT COUNT(*) FROM (SELECT 1 FROM {self._pending} "
            f"WHERE status = {status:d} LIMIT {cap + 1:d}) AS s{status:d})"
            for status in (Status.PENDING, Status.DEAD)
        )
        oldest = self._d.microseconds.format("created_at")
        return (
            f"SELECT {counts}, (SELECT {oldest} FROM {self._pending} "
            f"WHERE status = {Status.PENDING:d} ORDER BY id LIMIT 1)"
        )
