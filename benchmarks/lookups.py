"""
What an operator's questions cost beside many rows: one event by its ce_id, pages, the standing.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from benchmarks.servers import DatabaseServer, Kind, database_server
from outbox_relay.operations import (
    Access,
    EventFilter,
    event,
    find_event,
    read_standing,
    search_events,
)
from outbox_relay.schema import Status
from outbox_relay.store.options import DatabaseOptions

ROWS_A_SECOND = 1000
CHUNK_ROWS = 100_000
RANDOM_EVERY = 1000
"""Every so many rows have an id of version 4, which says no time."""

TOPICS = 20
PAYLOAD_BYTES = 330


@dataclass(frozen=True, slots=True)
class Answer:
    """What one kind of question took."""

    question: str
    seconds: list[float]
    rows_read: list[int]

    def line(self) -> str:
        """For the table."""
        milliseconds = [1000 * s for s in self.seconds]
        read = f"{statistics.median(self.rows_read):,.0f}" if self.rows_read else "-"
        return (
            f"{self.question:<52}{statistics.median(milliseconds):>10,.1f}{max(milliseconds):>10,.1f}"
            f"{read:>14}"
        )


def fill(server: DatabaseServer, database: str, rows: int, *, status: int) -> None:
    """*rows* of a thousand a second, the last one now, with ids of version 7."""
    with server.connect(database) as connection, connection.cursor() as cursor:
        for start in range(1, rows + 1, CHUNK_ROWS):
            last = min(start + CHUNK_ROWS - 1, rows)
            cursor.execute(
                (_on_mariadb if server.kind is Kind.MARIADB else _on_postgresql)(
                    start, last, rows, status
                )
            )
        if server.kind is Kind.POSTGRESQL:
            cursor.execute("ANALYZE outbox")


def _on_mariadb(start: int, last: int, rows: int, status: int) -> str:
    at = f"(utc_timestamp(6) - INTERVAL ({rows} - seq) * 1000 MICROSECOND)"
    ms = f"CAST(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {at}) DIV 1000 AS UNSIGNED)"
    noise = "LPAD(HEX(FLOOR(RAND() * 4096)), 3, '0'), '8', LPAD(HEX(FLOOR(RAND() * 4096)), 3, '0')"
    seven = f"CONCAT(LPAD(HEX({ms}), 12, '0'), '7', {noise}, LPAD(HEX(seq), 12, '0'))"
    four = f"CONCAT(LEFT(MD5(seq), 12), '4', {noise}, LPAD(HEX(seq), 12, '0'))"
    event_id = f"UNHEX(IF(seq % {RANDOM_EVERY} = 0, {four}, {seven}))"
    produced = "utc_timestamp(6)" if status else "'1970-01-01'"
    return (
        "INSERT INTO outbox (event_id, event_name, topic, `key`, payload, status, created_at, "
        f"produced_at) SELECT {event_id}, 'order.placed', CONCAT('topic-', seq % {TOPICS}), "
        f"CONCAT('customer-', seq % 50000), RANDOM_BYTES({PAYLOAD_BYTES}), {status}, {at}, {produced} "
        f"FROM seq_{start}_to_{last}"
    )


def _on_postgresql(start: int, last: int, rows: int, status: int) -> str:
    at = f"(now() - ({rows} - seq) * INTERVAL '1 millisecond')"
    noise = (
        "lpad(to_hex(floor(random() * 4096)::int), 3, '0') || '8' || "
        "lpad(to_hex(floor(random() * 4096)::int), 3, '0')"
    )
    ms = f"to_hex((extract(epoch FROM {at}) * 1000)::bigint)"
    seven = f"lpad({ms}, 12, '0') || '7' || {noise} || lpad(to_hex(seq), 12, '0')"
    four = f"left(md5(seq::text), 12) || '4' || {noise} || lpad(to_hex(seq), 12, '0')"
    event_id = f"(CASE WHEN seq % {RANDOM_EVERY} = 0 THEN {four} ELSE {seven} END)::uuid"
    produced = "now()" if status else "'1970-01-01'"
    return (
        'INSERT INTO outbox (event_id, event_name, topic, "key", payload, status, created_at, '
        f"produced_at) SELECT {event_id}, 'order.placed', 'topic-' || seq % {TOPICS}, "
        f"convert_to('customer-' || seq % 50000, 'UTF8'), convert_to(repeat('x', {PAYLOAD_BYTES}), "
        f"'UTF8'), {status}, {at}, {produced} FROM generate_series({start}, {last}) AS numbers (seq)"
    )


class Questions:
    """Asks, and counts what the server read for it."""

    def __init__(self, server: DatabaseServer, database: Any) -> None:
        self._server = server
        self._name = database.name
        self.access = Access(DatabaseOptions(url=database.async_url, timeout_seconds=60.0))

    def _reads(self) -> int | None:
        if self._server.kind is not Kind.MARIADB:
            return None
        rows = self._server.execute(self._name, "SHOW GLOBAL STATUS LIKE 'Handler_read%'")
        return sum(int(row[1]) for row in rows)

    async def ask(self, question: str, asks: list[Callable[[], Awaitable[Any]]]) -> Answer:
        """Each of *asks*; the first connection of all is not counted."""
        seconds, read = [], []
        for asked in asks:
            before = self._reads()
            started = time.perf_counter()
            await asked()
            seconds.append(time.perf_counter() - started)
            after = self._reads()
            if before is not None and after is not None:
                read.append(after - before)
        return Answer(question, seconds, read)

    def event_ids(self, row_ids: list[int]) -> list[uuid.UUID]:
        """The ids of these rows."""
        wanted = ",".join(map(str, row_ids))
        rows = self._server.execute(
            self._name, f"SELECT event_id FROM outbox WHERE id IN ({wanted})"
        )
        return [
            row[0] if isinstance(row[0], uuid.UUID) else uuid.UUID(bytes=bytes(row[0]))
            for row in rows
        ]


async def _about_produced(questions: Questions, rows: int, times: int) -> list[Answer]:
    rng, access = random.Random(1), questions.access
    sevens = [n for n in (rng.randint(1, rows) for _ in range(3 * times)) if n % RANDOM_EVERY][
        :times
    ]
    newest = (await search_events(access, EventFilter(), limit=1)).events[0].created_at
    oldest_four = questions.event_ids([RANDOM_EVERY])
    middle = newest - timedelta(seconds=rows / ROWS_A_SECOND / 2)
    minute = EventFilter(since=middle, until=middle + timedelta(minutes=1), topics=("topic-3",))
    rare = EventFilter(keys=(b"customer-77",))

    def finds(ids: list[uuid.UUID]) -> list[Callable[[], Awaitable[Any]]]:
        return [partial(find_event, access, wanted, seconds=60.0) for wanted in ids]

    return [
        await questions.ask("by ce_id, version 7", finds(questions.event_ids(sevens))),
        await questions.ask("by ce_id, version 4, of one of the first rows", finds(oldest_four)),
        await questions.ask("by ce_id, version 4, that is not there", finds([uuid.uuid4()])),
        await questions.ask("show a row", [partial(event, access, n) for n in sevens]),
        await questions.ask(
            "the newest 50", [lambda: search_events(access, EventFilter())] * times
        ),
        await questions.ask(
            "50 of one topic in a minute, in the middle",
            [lambda: search_events(access, minute)] * times,
        ),
        await questions.ask(
            "50 of one key of 50,000", [lambda: search_events(access, rare, seconds=60.0)]
        ),
        await questions.ask("status", [lambda: read_standing(access)] * times),
    ]


async def _about_pending(questions: Questions, rows: int, times: int) -> list[Answer]:
    access = questions.access
    dead = EventFilter(statuses=(Status.DEAD,))
    return [
        await questions.ask("status, all rows pending", [lambda: read_standing(access)] * times),
        await questions.ask("show the last pending row", [lambda: event(access, rows)] * times),
        await questions.ask("search dead letters", [lambda: search_events(access, dead)] * times),
    ]


def measure(kind: Kind, *, rows: int, times: int) -> list[Answer]:
    """Fill a table with produced rows and one with pending rows; ask both."""
    found: list[Answer] = []
    with database_server(kind) as server:
        for status, about in ((1, _about_produced), (0, _about_pending)):
            database = server.create_outbox()
            fill(server, database.name, rows, status=status)
            questions = Questions(server, database)
            found += asyncio.run(about(questions, rows, times))
            server.drop(database.name)
    return found


def report(found: list[Answer]) -> str:
    """A table."""
    head = f"{'question':<52}{'median ms':>10}{'max ms':>10}{'rows read':>14}"
    return "\n".join([head, *[answer.line() for answer in found]])
