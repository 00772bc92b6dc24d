"""`PlainContainer`: constructor injection without a library."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any, TypeVar, get_type_hints

from outbox_relay.cqrs.errors import HandlerNotResolved

T = TypeVar("T")


class PlainContainer:
    """
    Makes an object from the annotations of its class's ``__init__``, and those of theirs.

    `bind` says what stands for a type, such as the implementation of a protocol.
    """

    def __init__(self) -> None:
        self._providers: dict[Any, Callable[[], Any]] = {}
        self._values: Mapping[Any, Any] = {}

    def bind(self, type_: Any, provider: Any) -> None:
        """
        Who asks for *type_* gets *provider*: an object, the same for all; or, if it is a class or a
        function, what calling it gives, anew each time. A class is made as handlers are.
        """
        if isinstance(provider, type):
            self._providers[type_] = lambda: self._make(provider, ())
        elif inspect.isfunction(provider) or inspect.ismethod(provider):
            self._providers[type_] = provider
        else:
            self._providers[type_] = lambda: provider

    async def resolve(self, type_: type[T]) -> T:
        """An object of *type_*. Raises HandlerNotResolved."""
        made: T = self._get(type_, ())
        return made

    @asynccontextmanager
    async def open_scope(self, values: Mapping[Any, Any]) -> AsyncIterator[PlainContainer]:
        """The same container, in which *values* come first."""
        scope = PlainContainer()
        scope._providers = self._providers
        scope._values = values
        yield scope

    def _get(self, type_: Any, path: tuple[type, ...]) -> Any:
        if type_ in self._values:
            return self._values[type_]
        provider = self._providers.get(type_)
        return provider() if provider is not None else self._make(type_, path)

    def _make(self, type_: Any, path: tuple[type, ...]) -> Any:
        if type_ in path:
            names = " -> ".join(one.__name__ for one in (*path, type_))
            raise HandlerNotResolved(f"{names}: asks for itself")
        wanted = _parameters(type_)
        return type_(**{name: self._get(kind, (*path, type_)) for name, kind in wanted.items()})


@lru_cache(maxsize=1024)
def _parameters(type_: Any) -> dict[str, Any]:
    """What ``__init__`` must be given, by name. Raises HandlerNotResolved if that cannot be told."""
    if not isinstance(type_, type) or inspect.isabstract(type_) or _is_protocol(type_):
        name = getattr(type_, "__name__", repr(type_))
        raise HandlerNotResolved(
            f"nothing is bound to {name}, and no object can be made of it: "
            f"container.bind({name}, ...)"
        )
    if type_.__init__ is object.__init__:  # type: ignore[misc]
        return {}
    hints = get_type_hints(type_.__init__)  # type: ignore[misc]
    wanted = {}
    for parameter in list(inspect.signature(type_).parameters.values()):
        if parameter.default is not parameter.empty or parameter.kind in _VARIABLE:
            continue
        if parameter.name not in hints:
            raise HandlerNotResolved(
                f"{type_.__name__}.__init__ does not say what {parameter.name!r} is: annotate it"
            )
        wanted[parameter.name] = hints[parameter.name]
    if type_.__module__ == "builtins":
        raise HandlerNotResolved(f"nothing is bound to {type_.__name__}: container.bind(...)")
    return wanted


def _is_protocol(type_: type) -> bool:
    return bool(getattr(type_, "_is_protocol", False))


_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
