"""The router by package id: what a frame's `pkg_id` calls, who may call it, and with which data."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jsonschema import Draft202012Validator
from pydantic import BaseModel

from examples.bookstore.auth import Identity
from examples.bookstore.errors import answer_to
from examples.bookstore.ws.constants import NO_REQUEST, PkgID, RSPCode
from examples.bookstore.ws.frames import BadFrame, RequestModel, ResponseModel, read_frame

if TYPE_CHECKING:
    from examples.bookstore.store import Bookstore

Handler = Callable[[RequestModel, "Bookstore"], Awaitable[ResponseModel]]
JsonSchema = type[BaseModel] | Mapping[str, Any]


class SchemaViolation(ValueError):
    """`data` is not what the package asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A handler with its conditions."""

    pkg_id: PkgID
    handler: Handler
    roles: tuple[str, ...]
    json_schema: JsonSchema | None

    def check(self, data: dict[str, Any]) -> None:
        """Raises SchemaViolation or pydantic's ValidationError."""
        if self.json_schema is None:
            return
        if isinstance(self.json_schema, Mapping):
            problems = sorted(
                Draft202012Validator(self.json_schema).iter_errors(data),
                key=lambda problem: list(map(str, problem.path)),
            )
            if problems:
                raise SchemaViolation(
                    "; ".join(f"{problem.json_path}: {problem.message}" for problem in problems)
                )
        else:
            self.json_schema.model_validate(data)


class PackageRouter:
    """Handlers by package id."""

    def __init__(self) -> None:
        self._registrations: dict[int, Registration] = {}

    def register(
        self, pkg_id: PkgID, *, roles: Sequence[str] = (), json_schema: JsonSchema | None = None
    ) -> Callable[[Handler], Handler]:
        """
        Let the decorated function answer *pkg_id*.

        * roles: the caller must have every one of them; none: anybody may call
        * json_schema: a pydantic model or a JSON Schema that `data` must fit

        Raises ValueError for a second handler of one package, TypeError for a function that is not
        async or roles that are one text.
        """
        if isinstance(roles, str):
            raise TypeError(f"{pkg_id!r}: roles must be a list, such as [{roles!r}]")
        if isinstance(json_schema, Mapping):
            Draft202012Validator.check_schema(json_schema)

        def decorate(handler: Handler) -> Handler:
            if not inspect.iscoroutinefunction(handler):
                raise TypeError(f"{pkg_id!r}: {handler.__qualname__} must be an async function")
            if pkg_id in self._registrations:
                other = self._registrations[pkg_id].handler
                raise ValueError(f"{pkg_id!r} has a handler already: {other.__qualname__}")
            self._registrations[pkg_id] = Registration(
                pkg_id=pkg_id, handler=handler, roles=tuple(roles), json_schema=json_schema
            )
            return handler

        return decorate

    def registrations(self) -> Iterator[Registration]:
        """Every handler, by package id."""
        yield from (self._registrations[number] for number in sorted(self._registrations))

    async def answer(
        self, frame: str | bytes, identity: Identity, bookstore: Bookstore
    ) -> ResponseModel:
        """The answer to *frame*. Raises nothing: whatever goes wrong is an answer too."""
        try:
            request = read_frame(frame, max_bytes=bookstore.settings.max_frame_bytes)
        except BadFrame as error:
            return ResponseModel.err_msg(
                PkgID.UNREADABLE, NO_REQUEST, str(error), RSPCode.INVALID_DATA
            )
        try:
            return await self._call(request, identity, bookstore)
        except SchemaViolation as error:
            status, msg = RSPCode.INVALID_DATA, str(error)
        except Exception as error:  # noqa: BLE001 - the caller waits for an answer
            told = answer_to(error)
            status, msg = told.status, told.msg
        return ResponseModel.err_msg(request.pkg_id, request.req_id, msg, status)

    async def _call(
        self, request: RequestModel, identity: Identity, bookstore: Bookstore
    ) -> ResponseModel:
        registration = self._registrations.get(request.pkg_id)
        if registration is None:
            raise SchemaViolation(f"no handler for pkg_id {request.pkg_id}")
        identity.require(registration.roles)
        registration.check(request.data)
        return await registration.handler(request, bookstore)


pkg_router: Final = PackageRouter()
"""The router of the application; the modules of `handlers/` register with it."""


def load_handlers() -> PackageRouter:
    """The router of the application, with every module of `handlers/` imported."""
    package = importlib.import_module("examples.bookstore.ws.handlers")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return pkg_router
