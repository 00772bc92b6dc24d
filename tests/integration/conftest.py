"""
What several modules share: a command line, an engine, and what `audit`, `doctor` and tables of python-cqrs are
tried on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from tests.integration.adopted_site import site_of
from tests.integration.auditing import new_shop, server
from tests.integration.command import black_hole, folder, run
from tests.integration.doctoring import as_before, site, sites
from tests.integration.operating_by_hand import outbox

__all__ = [
    "as_before",
    "black_hole",
    "engine",
    "folder",
    "new_shop",
    "outbox",
    "run",
    "server",
    "site",
    "site_of",
    "sites",
]


@pytest.fixture
def engine(database: Any) -> Iterator[sa.Engine]:
    """Over the module's own `database`; each connection is a new one."""
    made = sa.create_engine(database.sync_url, poolclass=sa.NullPool)
    yield made
    made.dispose()
