"""
${message}

Say which lock this takes, on which table, for how long; the table in docs/guide/migrations.md says the same.

Lock on MariaDB:
Lock on MySQL:
Lock on PostgreSQL:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    """Forward only. Safe to repeat after a stop in the middle."""
    ${upgrades if upgrades else "raise NotImplementedError"}


def downgrade() -> None:
    """There is no way back: restore a backup, or write the next revision."""
    raise NotImplementedError("migrations of the outbox go forward only")
