"""Aggregates: they change by their own methods, and remember what happened to them."""

from __future__ import annotations

from typing import Any


class AggregateRoot:
    """
    Collects its domain events until somebody publishes them. A mixin: also for mapped classes of
    SQLAlchemy, whose ``__init__`` is not called when they are loaded.
    """

    def record(self, event: Any) -> None:
        """*event* happened to this aggregate."""
        self.__dict__.setdefault("_domain_events", []).append(event)

    def get_domain_events(self) -> list[Any]:
        """What happened since it was made, loaded or cleared, in its order."""
        return list(self.__dict__.get("_domain_events", ()))

    def clear_domain_events(self) -> None:
        """They are published."""
        self.__dict__.pop("_domain_events", None)
