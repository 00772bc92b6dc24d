"""`PlainContainer`: constructor injection without a library."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar, get_type_hints

from outbox_relay.cqrs.binding import is_protocol
from outbox_relay.cqrs.container.protocol import LENT
from outbox_relay.cqrs.errors import HandlerNotResolved

T = TypeVar("T")
Path: TypeAlias = tuple[type, ...]
"""What is being made, for whom."""


class PlainContainer:
    """
    Makes an object from the annotations of its class's ``__init__``, and those of theirs.

    `bind` says what stands for a type, such as the implementation of a protocol.
    """

    def __init__(self) -> None:
        self._providers: dict[Any, Callable[[PlainContainer, Path], Any]] = {}
        self._values: Mapping[Any, Any] = {}

    def bind(self, type_: Any, provider: Any) -> None:
        """
        Who asks for *type_* gets *provider*: an object, the same for all; or, if it is a class or a
        function, what calling it gives, anew each time. A class is made as handlers are.

        Raises TypeError for an async function: nobody would await it.
        """
        if inspect.iscoroutinefunction(provider):
            raise TypeError(f"{provider.__qualname__} is async: bind what it answers, or a class")
        if isinstance(provider, type):
            self._providers[type_] = lambda scope, path: scope._make(provider, path)
        elif inspect.isfunction(provider) or inspect.ismethod(provider):
            self._providers[type_] = lambda _, __: provider()
        else:
            self._providers[type_] = lambda _, __: provider

    async def resolve(self, type_: type[T]) -> T:
        """An object of *type_*. Raises HandlerNotResolved."""
        made: T = self._get(type_, ())
        return made

    def open_scope(self, values: Mapping[Any, Any]) -> AbstractAsyncContextManager[PlainContainer]:
        """The same container, in which *values* come first."""
        scope = PlainContainer()
        scope._providers = self._providers
        scope._values = values
        return nullcontext(scope)

    def _get(self, type_: Any, path: Path) -> Any:
        if type_ in self._values:
            return self._values[type_]
        provider = self._providers.get(type_)
        return provider(self, path) if provider is not None else self._make(type_, path)

    def _make(self, type_: Any, path: Path) -> Any:
        if type_ in path:
            names = " -> ".join(one.__name__ for one in (*path, type_))
            raise HandlerNotResolved(f"{names}: asks for itself")
        wanted = _parameters(type_)
        return type_(**{name: self._get(kind, (*path, type_)) for name, kind in wanted.items()})


@lru_cache(maxsize=1024)
def _parameters(type_: Any) -> dict[str, Any]:
    """What ``__init__`` must be given, by name. Raises HandlerNotResolved if that cannot be told."""
    no_class = not isinstance(type_, type) or type_.__module__ == "builtins"
    if no_class or inspect.isabstract(type_) or is_protocol(type_):
        name = getattr(type_, "__name__", repr(type_))
        raise HandlerNotResolved(
            f"nothing is bound to {name}, and no object can be made of it: "
            f"container.bind({name}, ...)"
        )
    if issubclass(type_, LENT):
        raise HandlerNotResolved(
            f"no {type_.__name__} is lent here: pass unit_of_work=..., or "
            f"container.bind({type_.__name__}, ...)"
        )
    if type_.__init__ is object.__init__:
        return {}
    try:
        hints = get_type_hints(type_.__init__)
    except NameError as error:
        raise HandlerNotResolved(
            f"the annotations of {type_.__name__}.__init__ cannot be read, {error}: import what they "
            "name at run time, not for type checkers alone"
        ) from error
    wanted = {}
    for parameter in list(inspect.signature(type_).parameters.values()):
        if parameter.default is not parameter.empty or parameter.kind in _VARIABLE:
            continue
        if parameter.name not in hints:
            raise HandlerNotResolved(
                f"{type_.__name__}.__init__ does not say what {parameter.name!r} is: annotate it"
            )
        wanted[parameter.name] = hints[parameter.name]
    return wanted


_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
