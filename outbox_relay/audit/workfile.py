"""
The work file: what an audit has read, and how far it is, in one SQLite database.

What was read and the position behind it are committed together, so a process that is killed goes on
without a gap and without reading twice. The tables are meant to be looked at: ``found_*`` hold all ids.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from outbox_relay.audit.plan import Plan
from outbox_relay.errors import AuditError

APPLICATION_ID: Final = 0x6F627861  # "obxa"
VERSION: Final = 1
CACHE_MB: Final = 128
"""Of pages, and of each sort, in memory."""

PROGRESS_STEPS: Final = 500_000
"""Steps of SQLite's machine between two looks at whether to stop."""

_TABLES: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE topics (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, is_there INTEGER, compacted INTEGER,
    unidentified INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE parts (
    topic INTEGER NOT NULL, partition INTEGER NOT NULL, low INTEGER NOT NULL, begin INTEGER NOT NULL,
    "end" INTEGER NOT NULL, position INTEGER NOT NULL, highest INTEGER NOT NULL DEFAULT 0,
    seen_from INTEGER, PRIMARY KEY (topic, partition)
) WITHOUT ROWID;
CREATE TABLE audited_rows (
    id INTEGER PRIMARY KEY, event BLOB NOT NULL, topic INTEGER NOT NULL, key BLOB,
    status INTEGER NOT NULL, created INTEGER NOT NULL, published INTEGER, codec INTEGER NOT NULL
);
CREATE TABLE records (
    seq INTEGER, event BLOB, topic INTEGER NOT NULL, partition INTEGER NOT NULL,
    "offset" INTEGER NOT NULL, key BLOB, created INTEGER NOT NULL, flags INTEGER NOT NULL,
    late INTEGER NOT NULL
);
"""

SETTINGS: Final = (
    "PRAGMA locking_mode = EXCLUSIVE",
    # New pages need no journal, and nearly all pages are new.
    "PRAGMA journal_mode = TRUNCATE",
    "PRAGMA synchronous = NORMAL",
    f"PRAGMA cache_size = -{CACHE_MB * 1024}",
    "PRAGMA temp_store = FILE",
    # The lock is taken by the first transaction that writes, and then kept.
    "BEGIN EXCLUSIVE",
    "COMMIT",
)


class WorkFile:
    """An open work file. Raises AuditError, with what to do, for whatever SQLite refuses."""

    def __init__(self, path: Path, *, is_stopped: Callable[[], bool] = lambda: False) -> None:
        self.path = path
        # SQLite sorts in files: beside this one, where there is room for it.
        os.environ["SQLITE_TMPDIR"] = str(path.resolve().parent)
        with contextlib.suppress(OSError):  # SQLite will say it
            # It holds the events' keys: nobody else reads them.
            path.touch(mode=0o600)
        with self.errors():
            self.base = sqlite3.connect(path, isolation_level=None, timeout=1.0)
            self.base.set_progress_handler(is_stopped, PROGRESS_STEPS)

    @classmethod
    def begin_or_go_on(
        cls, path: Path, plan: Plan, *, is_stopped: Callable[[], bool] = lambda: False
    ) -> WorkFile:
        """
        The file at *path*, made anew unless it holds an audit as *plan* asks that did not end.

        Raises AuditError if it is something else, or belongs to another audit that did not end.
        """
        file = cls(path, is_stopped=is_stopped)
        try:
            file._prepare(plan)
        except BaseException:
            file.close()
            raise
        return file

    def _prepare(self, plan: Plan) -> None:
        with self.errors():
            mark = self.number("PRAGMA application_id")
            holds_something = self.number("SELECT count(*) FROM sqlite_master") > 0
        if holds_something and mark != APPLICATION_ID:
            raise AuditError(f"{self.path} is no work file of an audit: name another one")
        with self.errors():
            # Not before: they would change a file of somebody else.
            for setting in SETTINGS:
                self.base.execute(setting)
        if holds_something and self.number("PRAGMA user_version") == VERSION:
            asked = json.loads(self.get("asked") or "{}")
            if self.get("phase") != "done":
                self._same(asked, plan)
                return
        self._make(plan)

    def _same(self, asked: Mapping[str, object], plan: Plan) -> None:
        if asked != plan.asked:
            names = sorted({*asked, *plan.asked})
            other = [name for name in names if asked.get(name) != plan.asked.get(name)]
            raise AuditError(
                f"{self.path} holds another audit that did not end ({', '.join(other)} differ): "
                "repeat that command, name another file, or remove this one"
            )

    def _make(self, plan: Plan) -> None:
        """Empty it: one that ended is begun anew."""
        with self.errors():
            names = self.base.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table'"
            ).fetchall()
        with self.transaction():
            for (name,) in names:
                self.base.execute(f'DROP TABLE "{name}"')
            for statement in _TABLES.split(";"):
                self.base.execute(statement)
            self.base.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self.base.execute(f"PRAGMA user_version = {VERSION}")
            self.put(
                asked=json.dumps(plan.asked), phase="table", since=plan.since, until=plan.until
            )

    def get(self, name: str) -> str | None:
        """What was put under *name*."""
        found = self.rows("SELECT value FROM meta WHERE name = ?", name)
        return found[0][0] if found else None

    def get_number(self, name: str, default: int = 0) -> int:
        """The same as a number."""
        found = self.get(name)
        return default if found is None else int(found)

    def put(self, **values: object) -> None:
        """Keep *values*, each under its name."""
        with self.errors():
            self.base.executemany(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                [(name, str(value)) for name, value in values.items()],
            )

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """All that *query* finds."""
        with self.errors():
            return self.base.execute(query, parameters).fetchall()

    def number(self, query: str, *parameters: object) -> int:
        """The one number that *query* finds; 0 if it is NULL."""
        return int(self.rows(query, *parameters)[0][0] or 0)

    def run(self, statement: str, **parameters: object) -> None:
        """One statement with named parameters."""
        with self.errors():
            self.base.execute(statement, parameters)

    def add(self, table: str, rows: Sequence[Sequence[object]]) -> None:
        """Insert *rows*."""
        if rows:
            marks = ", ".join("?" * len(rows[0]))
            with self.errors():
                self.base.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)

    def change(self, statement: str, parameters: Iterable[Sequence[object]]) -> None:
        """*statement* for each of *parameters*."""
        with self.errors():
            self.base.executemany(statement, parameters)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing."""
        with self.errors():
            self.base.execute("BEGIN")
        try:
            yield
        except BaseException:
            if self.base.in_transaction:  # a full disk has rolled it back already
                self.base.execute("ROLLBACK")
            raise
        with self.errors():
            self.base.execute("COMMIT")

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn SQLite's errors into ours."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def _explained(self, error: sqlite3.Error) -> AuditError:
        said = str(error)
        if "locked" in said:
            return AuditError(f"{self.path} is in use: another audit works with it")
        if "full" in said or "disk I/O" in said:
            return AuditError(
                f"the disk of {self.path} is full or fails ({said}): make room: about 200 bytes an event"
            )
        if "unable to open" in said:
            return AuditError(
                f"{self.path} cannot be opened: its folder must be there and writable"
            )
        if "not a database" in said:
            return AuditError(f"{self.path} is no work file of an audit: name another one")
        if "interrupted" in said:
            return AuditError("stopped")
        return AuditError(f"{self.path}: {said}: remove it and begin anew")

    def close(self) -> None:
        """Let go of it."""
        self.base.close()
