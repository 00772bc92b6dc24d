"""A database for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.cqrs.world import World, world


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[World]:
    """An application with an empty database."""
    async with world(f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}") as made:
        yield made
