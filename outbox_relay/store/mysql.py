"""MariaDB and MySQL: what differs and nothing else."""

from __future__ import annotations

from outbox_relay.store.dialect import Dialect
from outbox_relay.store.login import MYSQL_ESCAPING
from outbox_relay.store.options import DatabaseOptions


def dialect(options: DatabaseOptions) -> Dialect:
    """MariaDB 10.6 and MySQL 8 or later, through asyncmy."""
    lock_wait = max(1, int(options.timeout_seconds / 2))
    return Dialect(
        name="mysql",
        placeholder="%s",
        key="`key`",
        now="UTC_TIMESTAMP(6)",
        seconds_ahead="UTC_TIMESTAMP(6) + INTERVAL %s SECOND",
        microseconds="TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {})",
        blob="{}",
        uuid="{}",
        # utf8mb4_bin pads with spaces: 'orders' = 'orders '.
        exact="CAST(CONVERT({} USING utf8mb4) AS BINARY)",
        # Unhinted, MySQL reads by the primary key when many produced rows lie above the cursor.
        pending_hint="FORCE INDEX ({})",
        primary_hint="FORCE INDEX (PRIMARY)",
        # Only a DELETE that names its table twice takes a hint.
        delete_from="DELETE {0} FROM {0} FORCE INDEX (PRIMARY)",
        # MariaDB has no server_uuid, and skips comments with the version numbers of MySQL 8.
        # Nothing where it only reads, whatever the user may do: that is a replica, or an old primary.
        identity=(
            "SELECT IF(@@global.read_only, NULL, "
            "CONCAT_WS(':', @@hostname, @@port, @@server_id /*!80000 , @@server_uuid */))"
        ),
        session=(
            # Under REPEATABLE READ an UPDATE would lock gaps and so block the writers' inserts.
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
            # MariaDB makes a table of a long list of ids, and may then look for each row of the outbox
            # in it: a DELETE so waits for every row that a writer has not committed.
            f"SET SESSION innodb_lock_wait_timeout = {lock_wait}, wait_timeout = 120 "
            "/*M! , in_predicate_conversion_threshold = 0 */",
        ),
        dirty_session=("SET SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED",),
        settle_seconds=2.0,
        no_such_table=(1146, 1054),
        # No read_timeout: asyncmy would use asyncio.wait_for, which on Python 3.11 loses a
        # cancellation that arrives together with the answer. The channel has its own limits.
        connect_args={"connect_timeout": options.connect_timeout_seconds, **MYSQL_ESCAPING},
        engine_options={},
    )
