"""Where handlers come from: `PlainContainer`, or a container of di or dishka."""

from __future__ import annotations

import sys
from typing import Any
from weakref import WeakValueDictionary

from outbox_relay.cqrs.container.plain import PlainContainer
from outbox_relay.cqrs.container.protocol import Container, ScopedContainer

__all__ = ["Container", "PlainContainer", "ScopedContainer", "adapted"]


def adapted(container: Any) -> Container:
    """
    *container* as mediators use it: a container of di or dishka in its adapter, others as they are.

    Raises TypeError if it cannot `resolve`.
    """
    if container is None:
        return PlainContainer()
    # Who passes an object of theirs has imported them.
    if "di" in sys.modules and _is_of(container, "di", "Container"):
        from outbox_relay.cqrs.container.di import DIContainer  # noqa: PLC0415

        # One for all who pass it: it has its singletons.
        adapter = _adapters.get(id(container))
        if adapter is None:
            adapter = _adapters[id(container)] = DIContainer(container)
        return adapter
    if "dishka" in sys.modules and _is_of(container, "dishka", "AsyncContainer"):
        from outbox_relay.cqrs.container.dishka import DishkaContainer  # noqa: PLC0415

        return DishkaContainer(container)
    if not callable(getattr(container, "resolve", None)):
        raise TypeError(
            f"a {type(container).__name__} is no container: pass one of di or dishka, a "
            "PlainContainer, or an object with `async def resolve(self, type_)`"
        )
    resolved: Container = container
    return resolved


# By the container's id, which is its own as long as its adapter, which holds it, is there.
_adapters: WeakValueDictionary[int, Any] = WeakValueDictionary()


def _is_of(container: Any, module: str, name: str) -> bool:
    kind = getattr(sys.modules[module], name, None)
    return isinstance(kind, type) and isinstance(container, kind)
