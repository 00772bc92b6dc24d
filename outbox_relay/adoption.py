"""
Taking over a table of python-cqrs: what is there, and what a relay needs beside it.

`look` and `planned` change nothing. `prepare` adds an index and tables of ours, and repeats safely.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import sqlalchemy as sa

from outbox_relay.adoption_prepare import make_missing, missing, relay_at_work
from outbox_relay.errors import StoreUnavailable
from outbox_relay.migrate import database_engine
from outbox_relay.python_cqrs import (
    MAX_PAYLOAD_BYTES,
    AdoptedTables,
    Layout,
    adopted_in,
)
from outbox_relay.store.login import hint, said
from outbox_relay.store.options import DatabaseOptions

INDEX_SECONDS: Final = 6 * 3600.0
"""An index over a large table takes its time; writers go on meanwhile."""

NEAR_THE_LIMIT: Final = 0.8
SAMPLED_ROWS: Final = 1000

Result = TypeVar("Result")
IsolationLevel = Literal["AUTOCOMMIT", "READ COMMITTED"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Rows of one state and topic; `given_up` are those that no relay selects any more."""

    state: str
    topic: str
    rows: int
    given_up: int
    flushes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandoned:
    """A row that was given up, in short."""

    id: int
    event_name: str
    topic: str
    created_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What `look` saw."""

    table: str
    layout: Layout
    counts: tuple[Count, ...]
    abandoned: tuple[Abandoned, ...]
    warnings: tuple[str, ...]
    missing: tuple[str, ...]
    """The statements that `prepare` would run."""

    ours_at_work: bool
    """Whether a relay of ours holds the lease: it marks rows too."""

    def total(self, state: str) -> int:
        """Rows of one state."""
        return sum(count.rows for count in self.counts if count.state == state)

    @property
    def given_up(self) -> int:
        """Rows that no relay selects any more."""
        return sum(count.given_up for count in self.counts)

    def moved_since(self, before: Found) -> bool:
        """Whether a relay of python-cqrs has marked or counted rows since *before*."""
        flushes = [sum(count.flushes for count in seen.counts) for seen in (before, self)]
        return self.total("PRODUCED") > before.total("PRODUCED") or flushes[1] > flushes[0]


def look(options: DatabaseOptions, *, shown: int = 20) -> Found:
    """
    The table as it stands; of the rows that were given up, the first *shown*.

    Raises SchemaMismatch if it is no table of python-cqrs, StoreUnavailable.
    """
    return connected(options, lambda connection: _look(connection, options, shown))


def prepare(
    options: DatabaseOptions, *, begins: Callable[[str], None] = lambda _: None
) -> list[str]:
    """
    Make what is missing beside the table, and its index: see `outbox_relay.adoption_prepare`.

    Calls *begins* with each statement before it is run. All of them are returned.
    """

    def work(connection: sa.Connection) -> list[str]:
        names = adopted_in(connection, options.table, options.schema or None)
        return make_missing(connection, names, begins, pooled=options.transaction_pooler)

    return connected(options, work)


def planned(options: DatabaseOptions) -> list[str]:
    """What `prepare` would run. Reads no row of the table."""

    def work(connection: sa.Connection) -> list[str]:
        return missing(connection, adopted_in(connection, options.table, options.schema or None))

    return connected(options, work)


def _look(connection: sa.Connection, options: DatabaseOptions, shown: int) -> Found:
    names = adopted_in(connection, options.table, options.schema or None)
    layout = names.layout
    c = names.outbox.c
    topic: Any = c.topic if layout.has_topic else sa.literal(options.layout_topic)
    chosen = sa.select(
        c.event_status.label("state"),
        topic.label("topic"),
        sa.func.count().label("rows"),
        sa.func.sum(sa.case((names.given_up(), 1), else_=0)).label("given_up"),
        sa.func.sum(c.flush_counter).label("flushes"),
    ).group_by(c.event_status, topic)
    counts = [
        Count(
            state=row.state,
            topic=row.topic or options.layout_topic,
            rows=int(row.rows),
            given_up=int(row.given_up),
            flushes=int(row.flushes),
        )
        for row in connection.execute(chosen)
    ]
    to_make = missing(connection, names)
    lost = (
        sa.select(c.id, c.event_name, topic.label("topic"), c.created_at)
        .where(names.given_up())
        .order_by(c.id)
        .limit(shown if any(count.given_up for count in counts) else 0)
    )
    if not to_make:
        lost = names.by_index(lost)
    return Found(
        table=options.table,
        layout=layout,
        counts=tuple(sorted(counts, key=lambda count: (count.state, count.topic))),
        abandoned=tuple(
            Abandoned(
                id=row.id,
                event_name=row.event_name,
                topic=row.topic,
                created_at=str(row.created_at),
            )
            for row in connection.execute(lost)
        ),
        warnings=tuple(_warnings(connection, options, names)),
        missing=tuple(to_make),
        ours_at_work=relay_at_work(connection, names),
    )


def _warnings(
    connection: sa.Connection, options: DatabaseOptions, names: AdoptedTables
) -> list[str]:
    found, layout = [], names.layout
    if not layout.has_topic and not options.layout_topic:
        found.append(
            "the table names no topics: set database.layout_topic to the topic of the old relay's "
            "settings; with several, each event went to all of them, and goes to this one now"
        )
    if connection.dialect.name == "postgresql":
        return found
    columns = sa.inspect(connection).get_columns(options.table, schema=options.schema or None)
    types: dict[str, Any] = {column["name"]: column["type"] for column in columns}
    if layout.text_ids and not layout.has_event_type:
        found.append(
            "event_id is text: python-cqrs 4.10.1 and later write 16 bytes there, which fails on utf8mb4 "
            "(error 1366) and is stored as noise on latin1. Before an application goes to 4.10.1 let this "
            "relay take over, which reads event_id_bin, and stop the old one; then run `ALTER TABLE "
            f"{options.table} MODIFY event_id VARBINARY(32) NOT NULL`, which copies the table while "
            "writers wait: applications of both kinds write there"
        )
    kind = type(types["payload"]).__name__.upper()
    if kind == "BLOB":
        found.append(
            f"payload is a BLOB of {MAX_PAYLOAD_BYTES:,} bytes: a larger event fails the application's "
            "transaction (error 1406); our own table holds 16 MiB"
        )
        found += _large_payloads(connection, names)
    return found


def _large_payloads(connection: sa.Connection, names: AdoptedTables) -> list[str]:
    c = names.outbox.c
    newest = sa.select(sa.func.length(c.payload).label("size")).order_by(c.id.desc())
    largest = connection.execute(
        sa.select(sa.func.max(newest.limit(SAMPLED_ROWS).subquery().c.size))
    ).scalar()
    if largest is None or largest < NEAR_THE_LIMIT * MAX_PAYLOAD_BYTES:
        return []
    return [f"of the newest {SAMPLED_ROWS:,} rows one has {largest:,} bytes: near that limit"]


def config_section(options: DatabaseOptions, found: Found) -> str:
    """The settings with which a relay works on the table, as TOML."""
    lines = ["[database]"]
    if options.table != "outbox":
        lines.append(f'table = "{options.table}"')
    if options.schema:
        lines.append(f'schema = "{options.schema}"')
    lines.append('layout = "python-cqrs"')
    if not found.layout.has_topic:
        lines.append(f'layout_topic = "{options.layout_topic}"')
    lines.append(f'layout_key_path = "{options.layout_key_path}"')
    return "\n".join([*lines, "", "[wire]", 'headers = "cloudevents"'])


def connected(
    options: DatabaseOptions,
    work: Callable[[sa.Connection], Result],
    *,
    seconds: float = INDEX_SECONDS,
    isolation: IsolationLevel = "AUTOCOMMIT",
) -> Result:
    """
    *work* on a connection that commits each statement unless told otherwise, within *seconds*.

    Raises StoreUnavailable if the database does not answer or refuses.
    """
    return asyncio.run(_connected(options, work, seconds, isolation))


async def _connected(
    options: DatabaseOptions,
    work: Callable[[sa.Connection], Result],
    seconds: float,
    isolation: IsolationLevel,
) -> Result:
    engine = database_engine(options)
    try:
        async with asyncio.timeout(options.connect_timeout_seconds):
            connection = await engine.connect()
        async with aclosing(connection):
            await connection.execution_options(isolation_level=isolation)
            async with asyncio.timeout(seconds):
                return await connection.run_sync(work)
    except TimeoutError as error:
        raise StoreUnavailable("the database does not answer in time: is it up?") from error
    except (sa.exc.DBAPIError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        raise StoreUnavailable(
            f"the database refuses or does not answer: {said(cause)}{hint(cause)}"
        ) from error
    finally:
        await engine.dispose()
