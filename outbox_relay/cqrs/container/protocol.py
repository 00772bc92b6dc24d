"""Where handlers come from: the one thing that mediators ask of a container."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar, runtime_checkable

T = TypeVar("T")


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
