"""
Fills the outbox: orders that wait, rows that were produced, rows of a paused topic.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from typing import Any

from benchmarks.orders import CUSTOMERS, EVENT_NAME, customer, order, order_json
from benchmarks.servers import DatabaseServer, Kind

HEADERS = json.dumps({"ce_source": "/bench"})
SHAPES = 2000
CHUNK_ROWS = 100_000
KEPT_BYTES = 330

_COLUMNS = "event_name, topic, {key}, headers, payload, codec"
# One run after the other fills with the same orders.
MOST_REMEMBERED = 200_000
_compressed: list[bytes] = []


def fill(
    server: DatabaseServer,
    database: str,
    topic: str,
    rows: int,
    *,
    first: int = 0,
    topics: int = 1,
) -> None:
    """
    Orders that wait, numbered from *first* in the order of their ids, compressed with zlib.

    With several *topics* they go in turn to the topics named *topic* and a number.
    """
    with server.connect(database) as connection, connection.cursor() as cursor:
        if server.kind is Kind.POSTGRESQL:
            _copy(cursor, [topic_of(topic, n, topics) for n in range(topics)], rows, first)
            cursor.execute("ANALYZE outbox")
            return
        make_shapes(cursor)
        topic_sql = f"'{topic}'" if topics == 1 else f"CONCAT('{topic}-', seq % {topics})"
        for start in range(first, first + rows, CHUNK_ROWS):
            last = min(start + CHUNK_ROWS, first + rows) - 1
            cursor.execute(_mariadb_fill(topic_sql, start, last))


def topic_of(topic: str, number: int, topics: int) -> str:
    """Where `fill` puts an order."""
    return topic if topics == 1 else f"{topic}-{number % topics}"


def orders(first: int, last: int) -> str:
    """A SELECT of these orders for MariaDB, as seq, customer and order_json; see `make_shapes`."""
    key = f"CONCAT('customer-', seq * 2654435761 % 4294967296 % {CUSTOMERS})"
    text = (
        f'CONCAT(\'{{"order_id": \', seq, \', "customer": "\', {key}, '
        "'\", \"lines\": ', lines_json, '}')"
    )
    return (
        f"SELECT seq, {key} AS customer, CAST({text} AS BINARY) AS order_json "
        f"FROM seq_{first}_to_{last} JOIN bench_shapes ON shape = seq % {SHAPES} "
        f"LIMIT {CHUNK_ROWS}"
    )


def _mariadb_fill(topic_sql: str, first: int, last: int) -> str:
    """An INSERT of these orders, made by the server: ten times faster than to send them."""
    # zlib's own bytes begin behind the length that COMPRESS() puts in front. It ends them with a
    # dot if they end with a space, so what ends with a dot is stored as it is: 1 row of 128. Without
    # LIMIT it would compress for each use of the column.
    return (
        f"INSERT INTO outbox ({_COLUMNS.format(key='`key`')}) "
        f"SELECT '{EVENT_NAME}', {topic_sql}, customer, '{HEADERS}', "
        "IF(RIGHT(packed, 1) = '.', order_json, SUBSTRING(packed, 5)), RIGHT(packed, 1) <> '.' "
        "FROM (SELECT seq, customer, order_json, COMPRESS(order_json) AS packed FROM ("
        f"{orders(first, last)}) AS orders LIMIT {CHUNK_ROWS}) AS packed_orders ORDER BY seq"
    )


def fill_kept(
    server: DatabaseServer, database: str, rows: int, *, status: int = 1, topic: str = "earlier"
) -> None:
    """Rows that no relay publishes: produced ones, or with status 0 those of a paused topic."""
    # Produced now, so that no purge comes in between.
    now = "utc_timestamp(6)" if server.kind is Kind.MARIADB else "now()"
    produced_at = now if status else "'1970-01-01'"
    with server.connect(database) as connection, connection.cursor() as cursor:
        for start in range(0, rows, CHUNK_ROWS):
            count = min(CHUNK_ROWS, rows - start)
            if server.kind is Kind.MARIADB:
                key, payload = "`key`", f"RANDOM_BYTES({KEPT_BYTES})"
                numbers = f"(SELECT seq AS n FROM seq_1_to_{count}) AS numbers"
                key_value = f"CONCAT('customer-', n % {CUSTOMERS})"
            else:
                key, payload = '"key"', f"convert_to(repeat('x', {KEPT_BYTES}), 'UTF8')"
                numbers = f"generate_series(1, {count}) AS numbers (n)"
                key_value = f"convert_to('customer-' || n % {CUSTOMERS}, 'UTF8')"
            cursor.execute(
                f"INSERT INTO outbox ({_COLUMNS.format(key=key)}, status, produced_at) "
                f"SELECT '{EVENT_NAME}', '{topic}', {key_value}, '{HEADERS}', {payload}, 1, "
                f"{status}, {produced_at} FROM {numbers}"
            )
        if server.kind is Kind.POSTGRESQL:
            cursor.execute("ANALYZE outbox")


def make_shapes(cursor: Any) -> None:
    """What `orders` needs in its database."""
    cursor.execute(
        "CREATE TABLE IF NOT EXISTS bench_shapes (shape INT PRIMARY KEY, lines_json TEXT NOT NULL)"
    )
    cursor.executemany(
        "INSERT IGNORE INTO bench_shapes (shape, lines_json) VALUES (%s, %s)",
        [(shape, json.dumps(order(shape)["lines"])) for shape in range(SHAPES)],
    )


def _copy(cursor: Any, topics: Sequence[str], rows: int, first: int) -> None:
    for number in range(len(_compressed), min(first + rows, MOST_REMEMBERED)):
        _compressed.append(zlib.compress(order_json(number)))
    columns = _COLUMNS.format(key='"key"')
    with cursor.copy(f"COPY outbox ({columns}) FROM STDIN") as copy:
        for number in range(first, first + rows):
            if number < len(_compressed):
                payload = _compressed[number]
            else:
                payload = zlib.compress(order_json(number))
            topic, key = topics[number % len(topics)], customer(number).encode()
            copy.write_row((EVENT_NAME, topic, key, HEADERS, payload, 1))
