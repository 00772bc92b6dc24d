"""SQLite: what differs and nothing else. One writer at a time, so ids commit in order."""

from __future__ import annotations

from outbox_relay.store.dialect import Dialect
from outbox_relay.store.options import DatabaseOptions

_NOW = "strftime('%Y-%m-%d %H:%M:%f000','now')"


def dialect(options: DatabaseOptions) -> Dialect:
    """SQLite 3.31 or later, through aiosqlite."""
    busy_ms = int(options.timeout_seconds * 500)
    return Dialect(
        name="sqlite",
        placeholder="?",
        key='"key"',
        now=_NOW,
        seconds_ahead="strftime('%Y-%m-%d %H:%M:%f000','now', ? || ' seconds')",
        # %f has milliseconds; julianday() would lose them to rounding.
        microseconds=(
            "(CAST(strftime('%s', {0}) AS INTEGER) * 1000000"
            " + CAST(substr(strftime('%f', {0}), 4, 3) AS INTEGER) * 1000)"
        ),
        # Columns hold what was inserted: text, where a writer inserted text.
        blob="CAST({} AS BLOB)",
        uuid="CAST({} AS BLOB)",
        pending_hint="INDEXED BY {}",
        primary_hint="",
        identity="SELECT 'sqlite'",
        session=(f"PRAGMA busy_timeout = {busy_ms}", "PRAGMA journal_mode = WAL"),
        dirty_session=None,
        writes_side_by_side=False,
        settle_seconds=0.0,
        last_id="SELECT last_insert_rowid()",
        no_such_table=("no such table", "no such column"),
        connect_args={},
        engine_options={},
    )
