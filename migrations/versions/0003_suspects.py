"""
Suspects in the lease table, at version 3.

Which rows were looked at when a relay died: so the one that kills it is found. Relays of version 1
and 2 serve these tables as before and leave the columns alone.

Lock on MariaDB: exclusive on outbox_lease, four times for a moment; 128 rows, none rewritten.
Lock on MySQL: exclusive on outbox_lease, four times for a moment; 128 rows, none rewritten.
Lock on PostgreSQL: ACCESS EXCLUSIVE on outbox_lease, until the commit a moment later; none rewritten.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

VERSION = 3
MIN_READER = 1
COLUMNS = (
    ("suspect_first_id", sa.BigInteger()),
    ("suspect_last_id", sa.BigInteger()),
    ("suspect_term", sa.BigInteger()),
    ("suspect_count", sa.Integer()),
)


def upgrade(table: str = "outbox", schema: str | None = None) -> None:
    """Add the columns that are not there yet, then write the version."""
    there: set[str] = set()
    if not op.get_context().as_sql:
        columns = sa.inspect(op.get_bind()).get_columns(f"{table}_lease", schema)
        there.update(column["name"] for column in columns)
    for name, kind in COLUMNS:
        if name not in there:
            column: sa.Column[int] = sa.Column(name, kind, nullable=False, server_default="0")
            op.add_column(f"{table}_lease", column, schema=schema)
    _write_version(table, schema)


def downgrade(table: str = "outbox", schema: str | None = None) -> None:
    """There is no way back, and none is needed: older releases serve these tables."""
    raise NotImplementedError("migrations of the outbox go forward only")


def _write_version(table: str, schema: str | None) -> None:
    version = sa.table(
        f"{table}_version",
        sa.column("version", sa.Integer()),
        sa.column("min_reader", sa.Integer()),
        schema=schema,
    )
    op.bulk_insert(version, [{"version": VERSION, "min_reader": MIN_READER}])
