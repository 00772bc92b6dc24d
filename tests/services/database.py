"""
The address of one empty database.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A database of its own for one test, with both kinds of SQLAlchemy URL."""

    name: str
    async_url: str
    sync_url: str
