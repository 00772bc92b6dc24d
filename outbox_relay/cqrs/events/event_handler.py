"""Handlers of events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from outbox_relay.cqrs.requests.request_handler import HasEvents

Event_contra = TypeVar("Event_contra", contravariant=True)


class EventHandler(HasEvents, ABC, Generic[Event_contra]):
    """
    Handles one kind of event: ``EventHandler[UserJoined]``. One event may have several handlers.

    Its own `events`, if any, follow in the same unit of work.
    """

    @abstractmethod
    async def handle(self, event: Event_contra) -> None:
        """Do what follows from *event*. May be an ordinary function too."""
