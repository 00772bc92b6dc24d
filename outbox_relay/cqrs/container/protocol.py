"""Where handlers come from: the one thing that mediators ask of a container."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from outbox_relay.cqrs.unit_of_work import UnitOfWork
from outbox_relay.outbox import Outbox

T = TypeVar("T")

LENT: Final = (AsyncSession, Session, UnitOfWork, Outbox)
"""What a unit of work lends. One that a container made by itself would belong to no transaction."""


class Container(Protocol):
    """Makes objects of a class, with what their ``__init__`` asks for."""

    async def resolve(self, type_: type[T]) -> T:
        """An object of *type_*. Handlers must be new ones each time."""


@runtime_checkable
class ScopedContainer(Protocol):
    """A container that can also lend objects to what it makes, for one request."""

    async def resolve(self, type_: type[T]) -> T:
        """As `Container.resolve`."""

    def open_scope(self, values: Mapping[Any, Any]) -> AbstractAsyncContextManager[Container]:
        """
        A container for one request: whoever asks for a type in *values* gets the object there.

        Its end lets go of what was made in it.
        """
