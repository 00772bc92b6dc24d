"""The SQL of the store, in the words of a `Dialect`."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.sql.compiler import IdentifierPreparer

from outbox_relay.relay.ports import LARGE_PAYLOAD_BYTES, PurgePlan, ReadPlan
from outbox_relay.schema import LANES, Status, Tables
from outbox_relay.store.ahead import AheadStatements
from outbox_relay.store.dead_letters import dead_keys_sql
from outbox_relay.store.dialect import Dialect
from outbox_relay.store.retention import Retention


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
            f"WHERE id IN ({{}}) AND {d.status_by_id} = {Status.PENDING:d} AND {{}}"
        )
        self._retention = Retention(d, table=name, by_status=self._pending)
        self._mark_dead = (
            f"UPDATE {name} SET status = {Status.DEAD:d}, attempts = attempts + 1, "
            f"dead_at = {d.now}, last_error = {p} "
            f"WHERE id = {p} AND {d.status_by_id} = {Status.PENDING:d} "
            f"AND COALESCE({self._requeued()}, -1) = {p} AND {{}}"
        )
        self.version = f"SELECT version, min_reader FROM {version} ORDER BY version DESC LIMIT 1"
        self.max_id = f"SELECT MAX(id) FROM {name}"
        self._ahead = AheadStatements(name)
        self._name = name
        self._topic = "topic"
        self.payload = f"SELECT {d.blob.format('payload')} FROM {name} WHERE id = {p}"
        self.paused = f"SELECT topic FROM {control}"
        self._columns = self._row_columns()
        self.canary = f"INSERT INTO {name} (event_name, topic, payload) VALUES ({p}, {p}, {p}){d.returning_id}"
        self.canary_id = d.last_id
        produced = f"{d.microseconds.format('produced_at')} - {d.microseconds.format('created_at')}"
        self.canary_seconds = f"SELECT status, {produced} FROM {name} WHERE id = {p}"

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
                self._requeued(),
                "lane",
            )
        )

    def _requeued(self) -> str:
        return f"CASE WHEN attempts > 0 THEN {self._d.microseconds.format('available_at')} END"

    def _where(self, plan: ReadPlan, which: str = "") -> tuple[str, tuple[str, ...]]:
        if not which:
            which = self._range(plan)
            if plan.open_ids:
                which = f"({which}) OR id IN ({_ids(plan.open_ids)})"
            which = f"status = {Status.PENDING:d} AND ({which})"
        where = which
        for first, last in plan.skip_ids:
            where += f" AND (id < {first:d} OR id > {last:d})"
        if len(plan.lanes) < LANES:
            where += f" AND lane IN ({_ids(plan.lanes)})"
        topics = tuple(sorted(plan.skip_topics))
        if topics:
            topic, places = self._d.exact.format(self._topic), [self._d.placeholder] * len(topics)
            where += f" AND {topic} NOT IN ({','.join(places)})"
        return where, topics

    @staticmethod
    def _range(plan: ReadPlan) -> str:
        upto = "" if plan.upto_id is None else f" AND id <= {plan.upto_id:d}"
        return f"id > {plan.after_id:d}{upto}"

    def _open(self, plan: ReadPlan) -> str:
        ids = f"id IN ({_ids(plan.open_ids)}) AND id <= {plan.after_id:d}"
        return f"{self._d.status_by_id} = {Status.PENDING:d} AND {ids}"

    def read(self, plan: ReadPlan) -> tuple[str, tuple[str, ...]]:
        """One statement, so one snapshot."""
        if plan.open_ids and self._d.holders is not None:
            return self._read_apart(plan)
        where, topics = self._where(plan)
        return (
            f"SELECT {self._columns} FROM {self._pending} WHERE {where} "
            f"ORDER BY id LIMIT {plan.limit:d}"
        ), topics

    def _read_apart(self, plan: ReadPlan) -> tuple[str, tuple[str, ...]]:
        # PostgreSQL would fetch everything above the cursor for the OR, whatever the LIMIT.
        late, topics = self._where(plan, self._open(plan))
        ahead, _ = self._where(plan, f"status = {Status.PENDING:d} AND {self._range(plan)}")
        tail = f"ORDER BY id LIMIT {plan.limit:d}"
        return (
            f"SELECT {self._columns} FROM (SELECT * FROM {self._pending} WHERE {late} UNION ALL "
            f"(SELECT * FROM {self._pending} WHERE {ahead} {tail})) AS pending {tail}"
        ), topics + topics

    def pending_ids(self, plan: ReadPlan) -> tuple[str, tuple[str, ...]]:
        """Served by the index alone unless topics pause."""
        where, topics = self._where(plan)
        return (
            f"SELECT id FROM {self._pending} WHERE {where} ORDER BY id LIMIT {plan.limit:d}"
        ), topics

    def open_ids(self, plan: ReadPlan, *, low: int) -> tuple[str, tuple[str, ...]]:
        """Those of the open ids that are pending, or above *low* and without a row."""
        where, topics = self._where(plan, self._open(plan))
        pending = f"SELECT id FROM {self._pending} WHERE {where}"
        return self._ahead.open(pending, plan.open_ids, low=low), topics

    def open_range(
        self, plan: ReadPlan, after: int, upto: int, *, low: int
    ) -> tuple[str, tuple[str, ...]]:
        """The ids of a part of the range that are pending, or above *low* and without a row."""
        part = f"status = {Status.PENDING:d} AND id > {after:d} AND id <= {upto:d}"
        where, topics = self._where(plan, part)
        pending = f"SELECT id FROM {self._pending} WHERE {where}"
        return self._ahead.range(pending, after, upto, low=low, limit=plan.limit), topics

    def any_above(self, row_id: int) -> str:
        """Forwards: backwards from the end, rows deleted long ago would be passed one by one."""
        # Hinted: where the table looks empty, MySQL would read all of it.
        return (
            f"SELECT id FROM {self._name} {self._d.primary_hint} WHERE id > {row_id:d} "
            "ORDER BY id LIMIT 1"
        )

    def holders(self, at_least: int) -> str:
        """The largest id above *at_least*, and who may still insert."""
        return (self._d.holders or "").format(table=self._name, at_least=at_least)

    def mark_produced(self, ids: Sequence[int], fence: str) -> str:
        """The term's test alone does not fence: a statement that waited for a row lock goes on with
        what it read before. With ``status = 0`` it then touches nothing."""
        return self._mark.format(_ids(ids), fence)

    def delete_produced(self, ids: Sequence[int], fence: str) -> str:
        """With the same fence as `mark_produced`."""
        return self._retention.delete_produced(_ids(ids), fence)

    def mark_dead(self, fence: str) -> str:
        """
        Likewise, for one row. Takes error, id, when it was requeued (-1: never) and nonce.

        A statement that got no answer may wait for a lock until after its repetition, and after a
        requeue. ``status = 0`` holds again then; when it was requeued does not.
        """
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

    def waiting(self, limit: int, *, by_key: bool) -> str:
        """Of which topics, or topics and keys, the first *limit* pending rows are."""
        d = self._d
        return self._grouped(
            f"SELECT topic, {d.blob.format(d.key)} AS of_key, "
            f"{d.microseconds.format('created_at')} AS created_us FROM {self._pending} "
            f"WHERE status = {Status.PENDING:d} ORDER BY id LIMIT {limit:d}",
            by_key=by_key,
        )

    @staticmethod
    def _grouped(rows: str, *, by_key: bool) -> str:
        key, group = ("of_key", "topic, of_key") if by_key else ("NULL", "topic")
        return f"SELECT topic, {key}, COUNT(*), MIN(created_us) FROM ({rows}) AS w GROUP BY {group}"

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
