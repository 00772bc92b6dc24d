"""`DishkaContainer`: handlers from a container of dishka."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import dishka
from dishka.exceptions import NoContextValueError, NoFactoryError

from outbox_relay.cqrs.errors import HandlerNotResolved

T = TypeVar("T")


class DishkaContainer:
    """
    Over a ``dishka.AsyncContainer``. Handlers are provided in ``Scope.REQUEST``, and what a unit of
    work lends is declared there: ``from_context(AsyncSession, scope=Scope.REQUEST)``.
    """

    def __init__(self, container: dishka.AsyncContainer) -> None:
        self._container = container

    async def resolve(self, type_: type[T]) -> T:
        """An object of *type_*. Raises HandlerNotResolved if nobody provides it."""
        try:
            return await self._container.get(type_)
        except NoFactoryError as error:
            raise HandlerNotResolved(
                f"the container of dishka cannot make {type_.__name__}: {error}"
            ) from error
        except NoContextValueError as error:
            raise HandlerNotResolved(
                f"the container of dishka cannot make {type_.__name__}, nobody lends it {error}: pass "
                "unit_of_work=..."
            ) from error

    @asynccontextmanager
    async def open_scope(self, values: Mapping[Any, Any]) -> AsyncIterator[DishkaContainer]:
        """dishka's own request scope, with *values* as its context."""
        async with self._container(context=dict(values)) as scope:
            yield DishkaContainer(scope)
