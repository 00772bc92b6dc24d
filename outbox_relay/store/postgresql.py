"""PostgreSQL: what differs and nothing else."""

from __future__ import annotations

from outbox_relay.store.dialect import Dialect
from outbox_relay.store.login import asyncpg_arguments
from outbox_relay.store.options import DatabaseOptions

# A promoted standby keeps the system's identifier and begins a timeline.
_IDENTITY = (
    "SELECT CASE WHEN NOT pg_is_in_recovery() THEN (SELECT system_identifier::text FROM "
    "pg_control_system()) || ':' || left(pg_walfile_name(pg_current_wal_lsn()), 8) END"
)

# An INSERT holds this lock from before it takes an id until its transaction has ended, prepared
# ones included, and any role may see it.
_HOLDERS = (
    "SELECT (SELECT MAX(id) FROM {table} WHERE id > {at_least:d}), (SELECT string_agg(virtualtransaction, ',') "
    "FROM pg_locks WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted "
    "AND relation = '{table}'::regclass "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
)


def dialect(options: DatabaseOptions) -> Dialect:
    """PostgreSQL 13 or later, through asyncpg."""
    limits = {
        "lock_timeout": int(options.timeout_seconds * 500),
        # Nobody waits for the answer any more.
        "statement_timeout": int(options.timeout_seconds * 1000),
        # By the index, in its order: what the planner knows of how many rows have which status is
        # soon wrong, and then it reads and sorts the whole table for a few rows.
        "enable_seqscan": "off",
        "enable_bitmapscan": "off",
        "enable_sort": "off",
        "jit": "off",
    }
    pooled = options.transaction_pooler
    settings = ", ".join(
        f"set_config('{name}', '{value}', {str(pooled).lower()})" for name, value in limits.items()
    )
    return Dialect(
        name="postgresql",
        placeholder="$#",
        key='"key"',
        now="statement_timestamp()",
        seconds_ahead="statement_timestamp() + $# * INTERVAL '1 second'",
        microseconds="(EXTRACT(EPOCH FROM {}) * 1000000)::bigint",
        blob="{}",
        uuid="uuid_send({})",
        pending_hint="",
        primary_hint="",
        # So that the index of pending rows does not serve: by ids it would be read as a whole.
        status_by_id="status + 0",
        # Behind a pooler, settings of a session would be those of whoever gets the connection next.
        identity=f"{_IDENTITY}, {settings}" if pooled else _IDENTITY,
        session=() if pooled else (f"SELECT {settings}",),
        dirty_session=None,
        holders=_HOLDERS,
        each_in_transaction=pooled,
        settle_seconds=0.0,
        returning_id=" RETURNING id",
        no_such_table=("42P01", "42703", "3F000"),
        connect_args=asyncpg_arguments(options),
        engine_options={},
    )
