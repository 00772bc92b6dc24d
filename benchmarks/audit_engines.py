"""
Which engine sorts and joins for `audit`: SQLite or DuckDB, on made-up rows and records.

    python -m benchmarks.audit_engines sqlite|duckdb [--rows 10000000]

DuckDB is no dependency: install `duckdb` (and numpy) to measure it. Each writes as many rows and as many
records to its file, chunk by chunk with a commit each, as the audit does, then finds rows without a
record, events with two, and orders that were turned round; of each kind a few are planted. Prints
seconds of each step, the largest resident memory, and the bytes on disk.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.child import memory_mb

CHUNK_ROWS = 50_000
PARTITIONS, KEYS, PLANTED = 16, 5000, 7
MEMORY_MB = 256

Chunk = list[tuple[Any, ...]]


def event(number: int) -> bytes:
    """An id at random, so that none is beside its neighbour."""
    return hashlib.blake2b(number.to_bytes(8, "big"), digest_size=16).digest()


def rows(count: int) -> Iterator[Chunk]:
    """id, event, topic, key, status, created, published."""
    for first in range(1, count + 1, CHUNK_ROWS):
        yield [
            (n, event(n), 0, b"customer-%d" % (n % KEYS), 1, n * 1000, n * 1000 + 500)
            for n in range(first, min(first + CHUNK_ROWS, count + 1))
        ]


def records(count: int) -> Iterator[Chunk]:
    """seq, event, topic, partition, offset, key, created, late."""
    step = count // PLANTED
    for first in range(1, count + 1, CHUNK_ROWS):
        chunk: Chunk = []
        for n in range(first, min(first + CHUNK_ROWS, count + 1)):
            if n % step == 5:
                continue  # lost
            offset, late = n, 0
            if n % step == 7:
                offset, late = n + 3 * KEYS + 1, 1  # behind later ones of its key
            key = n % KEYS
            chunk.append(
                (n, event(n), 0, key % PARTITIONS, offset, b"customer-%d" % key, n * 1000, late)
            )
            if n % step == 9:
                chunk.append(chunk[-1])
        yield chunk


FIND = {
    "lost": (
        "SELECT count(*) FROM audited_rows r WHERE r.status = 1 AND NOT EXISTS (SELECT 1 FROM records c "
        "WHERE c.seq = r.id AND c.event = r.event AND c.topic = r.topic)"
    ),
    "twice": (
        "SELECT count(*) FROM (SELECT topic, event FROM records GROUP BY topic, event "
        "HAVING count(*) > 1) AS found"
    ),
    "inverted": (
        "SELECT count(*) FROM (SELECT late, seq, max(seq) OVER (PARTITION BY topic, partition, key "
        'ORDER BY "offset" ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM records '
        "WHERE (topic, partition, key) IN (SELECT topic, partition, key FROM records WHERE late = 1)"
        ") AS found WHERE late = 1 AND seq < before"
    ),
}


class Sqlite:
    """Of the standard library."""

    def __init__(self, folder: Path) -> None:
        self.base = sqlite3.connect(folder / "file", isolation_level=None)
        self.base.executescript(
            f"PRAGMA journal_mode = TRUNCATE; PRAGMA synchronous = NORMAL; "
            f"PRAGMA cache_size = -{MEMORY_MB * 1024}; PRAGMA temp_store = FILE;"
            "CREATE TABLE audited_rows (id INTEGER PRIMARY KEY, event BLOB, topic INTEGER, key BLOB, "
            "status INTEGER, created INTEGER, published INTEGER);"
            'CREATE TABLE records (seq INTEGER, event BLOB, topic INTEGER, partition INTEGER, "offset" '
            "INTEGER, key BLOB, created INTEGER, late INTEGER);"
        )

    def insert(self, table: str, chunk: Chunk) -> None:
        """One chunk, committed."""
        marks = ", ".join("?" * len(chunk[0]))
        self.base.execute("BEGIN")
        self.base.executemany(f"INSERT INTO {table} VALUES ({marks})", chunk)
        self.base.execute("COMMIT")

    def index(self) -> None:
        """What it joins by."""
        self.base.execute("CREATE INDEX records_seq ON records (seq)")

    def number(self, query: str) -> int:
        """The one number."""
        return int(self.base.execute(query).fetchall()[0][0])


class Duck:
    """Columns come as numpy arrays: `executemany` is a thousand times slower."""

    COLUMNS: Final = {
        "audited_rows": ("id", "event", "topic", "key", "status", "created", "published"),
        "records": ("seq", "event", "topic", "partition", "offset", "key", "created", "late"),
    }

    def __init__(self, folder: Path) -> None:
        import duckdb  # type: ignore[import-not-found,unused-ignore]

        self.base = duckdb.connect(str(folder / "file"))
        self.base.execute(f"SET memory_limit = '{MEMORY_MB}MB'; SET threads = 2")
        for table, columns in self.COLUMNS.items():
            kinds = {"event": "BLOB", "key": "BLOB"}
            fields = ", ".join(f'"{name}" {kinds.get(name, "BIGINT")}' for name in columns)
            self.base.execute(f"CREATE TABLE {table} ({fields})")

    def insert(self, table: str, chunk: Chunk) -> None:
        """One chunk, committed."""
        import numpy

        arrays = {}
        for name, values in zip(self.COLUMNS[table], zip(*chunk, strict=True), strict=True):
            kind: Any = object if isinstance(values[0], bytes) else numpy.int64
            arrays[name] = numpy.array(values, dtype=kind)
        self.base.register("chunk", arrays)
        self.base.execute(f"INSERT INTO {table} SELECT * FROM chunk")
        self.base.unregister("chunk")

    def index(self) -> None:
        """It joins by hashing."""

    def number(self, query: str) -> int:
        """The one number."""
        return int(self.base.execute(query).fetchall()[0][0])


def timed(name: str, work: Callable[[], Any], into: dict[str, float]) -> Any:
    """What *work* returns; its seconds and CPU go *into*."""
    started, cpu = time.perf_counter(), time.process_time()
    found = work()
    into[name] = round(time.perf_counter() - started, 1)
    into[f"{name}_cpu"] = round(time.process_time() - cpu, 1)
    return found


def fill(engine: Sqlite | Duck, table: str, chunks: Iterator[Chunk]) -> None:
    """Write all *chunks*."""
    for chunk in chunks:
        engine.insert(table, chunk)


def main() -> None:
    """Measure one engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=("sqlite", "duckdb"))
    parser.add_argument("--rows", type=int, default=10_000_000)
    chosen = parser.parse_args()
    spent: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        engine = Sqlite(folder) if chosen.engine == "sqlite" else Duck(folder)
        # What it takes to make the chunks up is in both.
        for table, chunks in (("audited_rows", rows), ("records", records)):
            timed(table, partial(fill, engine, table, chunks(chosen.rows)), spent)
        timed("index", engine.index, spent)
        found = {kind: timed(kind, partial(engine.number, q), spent) for kind, q in FIND.items()}
        disk = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
    print(json.dumps({"found": found, **spent, "peak_mb": memory_mb("VmHWM"), "disk_mb": disk}))


if __name__ == "__main__":
    main()
