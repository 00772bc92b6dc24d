"""
The SQL of the relay on a table of python-cqrs.

Pending rows have one of two states, and an index gives each state's rows in order: so a read takes the
first of both and of them the first, in one statement and so in one snapshot. NEW comes first: a row
goes from there to NOT_PRODUCED, and a dirty read, which has no snapshot, misses none that way.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.sql.compiler import IdentifierPreparer

from outbox_relay.compression import ZLIB_STARTS
from outbox_relay.python_cqrs import (
    GIVEN_UP,
    MOST_FLUSHES,
    PENDING_STATES,
    AdoptedTables,
    Layout,
    index_there,
)
from outbox_relay.relay.ports import LARGE_PAYLOAD_BYTES, ReadPlan
from outbox_relay.store.dialect import Dialect
from outbox_relay.store.options import DatabaseOptions
from outbox_relay.store.statements import Statements, _ids

_STATES = ", ".join(f"'{state}'" for state in PENDING_STATES)


class AdoptedStatements(Statements):
    """The SQL of one adopted table in one dialect."""

    def __init__(
        self,
        dialect: Dialect,
        names: AdoptedTables,
        preparer: IdentifierPreparer,
        *,
        layout: Layout,
        options: DatabaseOptions,
    ) -> None:
        self._layout = layout
        self._options = options
        super().__init__(dialect, names.beside, preparer)
        d, p, name = dialect, dialect.placeholder, self._name
        quote = preparer.quote_identifier
        self._pending = f"{name} {d.pending_hint.format(quote(names.index))}"
        dead = ".".join(quote(part) for part in (names.dead.schema, names.dead.name) if part)
        # A topic's name holds no quote, see DatabaseOptions.problems.
        topic = f"'{options.layout_topic}'"
        self._topic = f"COALESCE(NULLIF(topic, ''), {topic})" if layout.has_topic else topic
        self._columns = self._row_columns()
        # By primary key: the states are only looked at. A row that the other relay failed on for
        # the last time meanwhile was published all the same.
        still = f"event_status IN ({_STATES}) AND flush_counter < {GIVEN_UP:d}"
        if d.name == "postgresql":
            still = f"event_status::text IN ({_STATES}) AND flush_counter + 0 < {GIVEN_UP:d}"
        self._mark = (
            f"UPDATE {name} {d.primary_hint} SET event_status = 'PRODUCED' "
            f"WHERE id IN ({{}}) AND {still} AND {{}}"
        )
        self._delete = f"{d.delete_from.format(name)} WHERE id IN ({{}}) AND {still} AND {{}}"
        self._mark_dead = (
            f"UPDATE {name} SET event_status = 'NOT_PRODUCED', flush_counter = {GIVEN_UP:d} "
            f"WHERE id = {p} AND {still} AND {{}}"
        )
        given = f"{p}::bytea, {p}::text" if d.name == "postgresql" else f"{p}, {p}"
        self._reason = (
            f"INSERT INTO {dead} (id, topic, {d.key}, last_error) "
            f"SELECT id, {self._topic}, {given} FROM {name} WHERE id = {p} AND {still} AND {{}} "
            + (
                f"ON DUPLICATE KEY UPDATE last_error = VALUES(last_error), dead_at = {d.now}"
                if d.name == "mysql"
                else f"ON CONFLICT (id) DO UPDATE SET last_error = EXCLUDED.last_error, dead_at = {d.now}"
            )
        )
        self.row = f"SELECT {self._columns} FROM {name} WHERE id = {p}"
        self._dead_keys = (
            f"SELECT d.id, d.topic, {d.blob.format(f'd.{d.key}')} FROM {dead} AS d "
            f"JOIN {name} AS o ON o.id = d.id WHERE d.{d.key} IS NOT NULL "
            f"AND o.event_status = 'NOT_PRODUCED' AND o.flush_counter >= {GIVEN_UP:d} "
            "ORDER BY d.id LIMIT {:d}"
        )
        self.index_there = index_there(d.name, names)
        self.types = _types(d, names)

    def _row_columns(self) -> str:
        d = self._d
        payload = d.blob.format("payload")
        columns = [
            "id",
            self._topic,
            "NULL",
            f"CASE WHEN LENGTH({payload}) <= {LARGE_PAYLOAD_BYTES} THEN {payload} END",
            f"LENGTH({payload})",
            self._codec(),
            "NULL",
            "event_id_bin",
            "event_name",
            "'application/json'",
            self._created_us(),
            "NULL",
            "0",
        ]
        if self._layout.has_event_type:
            columns += ["event_type", self._created_text()]
        return ", ".join(columns)

    def _codec(self) -> str:
        match self._options.layout_payload:
            case "raw":
                return "0"
            case "zlib":
                return "1"
        if self._d.name == "postgresql":
            starts = ", ".join(f"'\\x{start.hex()}'::bytea" for start in ZLIB_STARTS)
            return f"CASE WHEN substring(payload FROM 1 FOR 2) IN ({starts}) THEN 1 ELSE 0 END"
        starts = ", ".join(f"x'{start.hex()}'" for start in ZLIB_STARTS)
        return f"CASE WHEN LEFT(payload, 2) IN ({starts}) THEN 1 ELSE 0 END"

    def _created_us(self) -> str:
        # Without a zone, in the writers' own: taken for that of the session, which is the server's.
        if self._d.name == "postgresql":
            return "(EXTRACT(EPOCH FROM created_at::timestamptz) * 1000000)::bigint"
        return "COALESCE(UNIX_TIMESTAMP(created_at), 0) * 1000000"

    def _created_text(self) -> str:
        text = "created_at::text" if self._d.name == "postgresql" else "CAST(created_at AS CHAR)"
        return f"REPLACE({text}, ' ', 'T')"

    def _firsts(self, plan: ReadPlan, columns: str) -> tuple[str, tuple[str, ...]]:
        """The first ids of each state and of each part of the plan, and of them the first."""
        parts = [self._range(plan)]
        if plan.open_ids:
            parts.append(f"id IN ({_ids(plan.open_ids)}) AND id <= {plan.after_id:d}")
        selects: list[str] = []
        bound: list[str] = []
        for state in PENDING_STATES:
            for part in parts:
                which = f"event_status = '{state}' AND flush_counter < {MOST_FLUSHES:d} AND {part}"
                where, topics = self._where(plan, which)
                selects.append(
                    f"(SELECT {columns} FROM {self._pending} WHERE {where} "
                    f"ORDER BY id LIMIT {plan.limit:d})"
                )
                bound += topics
        return " UNION ALL ".join(selects), tuple(bound)

    def read(self, plan: ReadPlan) -> tuple[str, tuple[str, ...]]:
        """One statement, so one snapshot. In no order: a sort would copy the payloads."""
        firsts, topics = self._firsts(plan, "id AS first_id")
        join = "STRAIGHT_JOIN" if self._d.name == "mysql" else "JOIN"
        return (
            f"SELECT {self._columns} FROM ({firsts} ORDER BY first_id LIMIT {plan.limit:d}) AS firsts "
            f"{join} {self._name} {self._d.primary_hint} ON id = first_id"
        ), topics

    def pending_ids(self, plan: ReadPlan) -> tuple[str, tuple[str, ...]]:
        """Served by the index alone unless topics pause."""
        firsts, topics = self._firsts(plan, "id")
        return f"{firsts} ORDER BY id LIMIT {plan.limit:d}", topics

    def _every(self, which: str) -> str:
        return f"event_status IN ({_STATES}) AND flush_counter < {MOST_FLUSHES:d} AND {which}"

    def open_ids(self, plan: ReadPlan, *, low: int) -> tuple[str, tuple[str, ...]]:
        """See Statements."""
        where, topics = self._where(
            plan, self._every(f"id IN ({_ids(plan.open_ids)}) AND id <= {plan.after_id:d}")
        )
        pending = f"SELECT id FROM {self._pending} WHERE {where}"
        return self._ahead.open(pending, plan.open_ids, low=low), topics

    def open_range(
        self, plan: ReadPlan, after: int, upto: int, *, low: int
    ) -> tuple[str, tuple[str, ...]]:
        """See Statements."""
        where, topics = self._where(plan, self._every(f"id > {after:d} AND id <= {upto:d}"))
        pending = f"SELECT id FROM {self._pending} WHERE {where}"
        return self._ahead.range(pending, after, upto, low=low, limit=plan.limit), topics

    def delete_produced(self, ids: Sequence[int], fence: str) -> str:
        """With the same fence as `mark_produced`."""
        return self._delete.format(_ids(ids), fence)

    def reason(self, fence: str) -> str:
        """Says why a row is given up, before it is. Takes key, error, id and nonce."""
        return self._reason.format(fence)

    def dead_keys(self, limit: int) -> str:
        """Of the rows that this relay gave up: whose were given up before has long been overtaken."""
        return self._dead_keys.format(limit + 1)

    def waiting(self, limit: int, *, by_key: bool) -> str:
        """See Statements. The key is in the document, if anywhere: nobody looks into so many."""
        del by_key
        rows = (
            f"SELECT {self._topic} AS topic, {self._created_us()} AS created_us FROM {self._pending} "
            f"WHERE {self._every('id > 0')} LIMIT {limit:d}"
        )
        return self._grouped(rows, by_key=False)

    def sample(self, cap: int) -> str:
        """Counts no more than *cap* + 1 rows of each kind."""

        def some(which: str) -> str:
            return (
                f"(SELECT COUNT(*) FROM (SELECT 1 FROM {self._pending} WHERE {which} "
                f"LIMIT {cap + 1:d}) AS counted)"
            )

        def oldest(state: str) -> str:
            return (
                f"(SELECT {self._created_us()} FROM {self._pending} WHERE event_status = '{state}' "
                f"AND flush_counter < {MOST_FLUSHES:d} ORDER BY id LIMIT 1)"
            )

        given_up = f"event_status = 'NOT_PRODUCED' AND flush_counter >= {MOST_FLUSHES:d}"
        new, failed = map(oldest, PENDING_STATES)
        return (
            f"SELECT {some(self._every('id > 0'))}, {some(given_up)}, "
            f"LEAST(COALESCE({new}, {failed}), COALESCE({failed}, {new}))"
        )


def _types(dialect: Dialect, names: AdoptedTables) -> str:
    schema = names.outbox.schema
    here = "current_schema()" if dialect.name == "postgresql" else "DATABASE()"
    where = f"'{schema}'" if schema else here
    return (
        "SELECT column_name, data_type FROM information_schema.columns "
        f"WHERE table_name = '{names.outbox.name}' AND table_schema = {where}"
    )
