"""Handlers of commands and queries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

Req_contra = TypeVar("Req_contra", contravariant=True)
Res_co = TypeVar("Res_co", covariant=True)


class HasEvents:
    """What a request causes; the mediator takes it once `handle` is done."""

    if TYPE_CHECKING:

        @property
        def events(self) -> Sequence[Any]: ...

    else:
        # No property: a handler may also set `self.events = []` in its __init__.
        events: Sequence[Any] = ()


class RequestHandler(HasEvents, ABC, Generic[Req_contra, Res_co]):
    """
    Handles one kind of command or query: ``RequestHandler[JoinMeeting, None]``.

    The container makes one for each request, with what its ``__init__`` asks for. Override `events`
    to let events follow from what `handle` did: domain events are handled in process, notification
    and ECST events leave it through the outbox (or the broker). If `handle` raises, nobody gets any.
    """

    @abstractmethod
    async def handle(self, request: Req_contra) -> Res_co:
        """Do what *request* asks. May be an ordinary function too."""


class StreamingRequestHandler(HasEvents, ABC, Generic[Req_contra, Res_co]):
    """
    Answers one request with many responses; `handle` is an async generator.

    `events` are taken after each response, before it reaches the caller. A handler that forgets
    its events in `clear_events` is asked to do so each time; otherwise those that are new count.
    """

    @abstractmethod
    def handle(self, request: Req_contra) -> AsyncIterator[Res_co]:
        """Yield the responses to *request*."""
