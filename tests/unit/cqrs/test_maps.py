"""
Maps: what may be bound, and what an error says.
"""

from __future__ import annotations

from typing import Any

import pytest

import outbox_relay.cqrs as cqrs


class Join(cqrs.Request):
    user: str


class Leave(cqrs.Request):
    user: str


class Joined(cqrs.DomainEvent):
    user: str


class JoinHandler(cqrs.RequestHandler[Join, None]):
    async def handle(self, request: Join) -> None:
        pass


class OtherJoinHandler(cqrs.RequestHandler[Join, None]):
    async def handle(self, request: Join) -> None:
        pass


class Notes(cqrs.EventHandler[Joined]):
    async def handle(self, event: Joined) -> None:
        pass


class AlsoNotes(Notes):
    pass


async def test_an_unknown_request_is_an_error() -> None:
    """
    Named, and with the line that is missing.
    """
    mediator = cqrs.bootstrap()
    with pytest.raises(
        cqrs.HandlerNotFoundError, match=r"Leave has no handler: mapper\.bind\(Leave"
    ):
        await mediator.send(Leave(user="a"))


async def test_a_handler_without_a_map_is_named() -> None:
    """
    Whoever forgot to bind a handler is told which.
    """
    with pytest.raises(cqrs.HandlerNotFoundError, match=r"mapper\.bind\(Join, JoinHandler\)"):
        await cqrs.bootstrap().send(Join(user="a"))


def test_a_request_has_one_handler() -> None:
    """
    Also across the maps for commands and queries, which are one.
    """
    requests = cqrs.RequestMap()
    requests.bind(Join, JoinHandler)
    with pytest.raises(cqrs.HandlerAlreadyBound, match=r"Join is handled by JoinHandler already"):
        requests.bind(Join, OtherJoinHandler)
    with pytest.raises(cqrs.HandlerAlreadyBound):
        cqrs.bootstrap(
            commands_mapper=lambda mapper: mapper.bind(Join, JoinHandler),
            queries_mapper=lambda mapper: mapper.bind(Join, JoinHandler),
        )
    assert requests.get(Join) is JoinHandler
    assert Join in requests


def test_an_event_has_any_number_of_handlers() -> None:
    """
    In the order of the binds; each of them once.
    """
    events = cqrs.EventMap()
    events.bind(Joined, AlsoNotes)
    events.bind(Joined, Notes)
    with pytest.raises(cqrs.HandlerAlreadyBound, match="twice"):
        events.bind(Joined, Notes)

    assert events.get(Joined) == [AlsoNotes, Notes]
    assert events.get(Join) == []


class NoHandle:
    pass


class Unfinished(cqrs.RequestHandler[Join, None]):
    pass


@pytest.mark.parametrize(
    ("handler", "text"),
    [
        (NoHandle, "no method `handle`"),
        (Unfinished, "leaves out handle"),
        (JoinHandler(), "bind the class"),
        ("JoinHandler", "no class"),
        (Notes, "handles Joined by its own words, but is bound to Join"),
    ],
)
def test_what_is_no_handler_is_refused(handler: Any, text: str) -> None:
    """
    When it is bound, not at the first request.
    """
    with pytest.raises(cqrs.InvalidHandler, match=text):
        cqrs.RequestMap().bind(Join, handler)


def test_only_classes_are_handled() -> None:
    """
    An instance is no kind of request.
    """
    with pytest.raises(cqrs.InvalidHandler, match="bind the class"):
        cqrs.RequestMap().bind(Join(user="a"), JoinHandler)  # type: ignore[arg-type]


def test_a_handler_of_a_base_may_be_bound_to_what_derives_from_it() -> None:
    """
    It says that it handles both.
    """

    class JoinLate(Join):
        pass

    requests = cqrs.RequestMap()
    requests.bind(JoinLate, JoinHandler)

    assert dict(requests.items()) == {JoinLate: JoinHandler}


class AsMethod(cqrs.RequestHandler[Join, None]):
    def events(self) -> list[Any]:
        return []

    async def handle(self, request: Join) -> None:
        pass


class OneList(cqrs.RequestHandler[Join, None]):
    events: list[Any] = []  # noqa: RUF012 - that is the mistake

    async def handle(self, request: Join) -> None:
        pass


@pytest.mark.parametrize(
    ("handler", "text"),
    [(AsMethod, "write @property above it"), (OneList, r"one list for all requests.*__init__")],
)
def test_events_belong_to_one_request(handler: type, text: str) -> None:
    """
    A method would be taken for events, and a list of the class mixes those of two requests.
    """
    with pytest.raises(cqrs.InvalidHandler, match=text):
        cqrs.RequestMap().bind(Join, handler)


class HandlesBoth(cqrs.RequestHandler[Join | Leave, None]):
    async def handle(self, request: Join | Leave) -> None:
        pass


def test_a_handler_of_a_union_may_be_bound_to_each() -> None:
    """
    And to nothing else.
    """
    requests = cqrs.RequestMap()
    requests.bind(Join, HandlesBoth)
    requests.bind(Leave, HandlesBoth)
    with pytest.raises(cqrs.InvalidHandler, match="HandlesBoth handles Join and Leave"):
        requests.bind(Joined, HandlesBoth)
