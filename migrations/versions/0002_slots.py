"""
Slots of active relays in the lease table, at version 2.

Relays of version 1 serve these tables as before: while a newer relay is active they stand by, and
when one of them is active it holds the slots too.

Lock on MariaDB: 64 new rows of outbox_lease, until the commit; none that is there.
Lock on MySQL: 64 new rows of outbox_lease, until the commit; none that is there.
Lock on PostgreSQL: ROW EXCLUSIVE on outbox_lease, as every writer of it has, until the commit.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

VERSION = 2
MIN_READER = 1
SLOTS = range(64, 128)


def upgrade(table: str = "outbox", schema: str | None = None) -> None:
    """Insert the slots that are not there yet, then write the version."""
    if op.get_context().dialect.name != "sqlite":  # one lane, so one active relay
        _slots(table, schema)
    _write_version(table, schema)


def downgrade(table: str = "outbox", schema: str | None = None) -> None:
    """There is no way back, and none is needed: older releases serve these tables."""
    raise NotImplementedError("migrations of the outbox go forward only")


def _slots(table: str, schema: str | None) -> None:
    lease = sa.table(f"{table}_lease", sa.column("lane", sa.SmallInteger()), schema=schema)
    there: set[int] = set()
    if not op.get_context().as_sql:
        there.update(op.get_bind().execute(sa.select(lease.c.lane)).scalars())
    missing = [{"lane": lane} for lane in SLOTS if lane not in there]
    if missing:
        op.execute(sa.insert(lease).values(missing))


def _write_version(table: str, schema: str | None) -> None:
    version = sa.table(
        f"{table}_version",
        sa.column("version", sa.Integer()),
        sa.column("min_reader", sa.Integer()),
        schema=schema,
    )
    op.bulk_insert(version, [{"version": VERSION, "min_reader": MIN_READER}])
