"""
Document 003, "Mediator": a command whose notification event goes straight to RabbitMQ.

Repairs: colons and commas that its text leaves out; an event handler is generic in its event, not in
itself; the API of meetings and the container, which it supposes.
"""

import typing

import di
from di.dependent import Dependent

from outbox_relay.cqrs import requests
from outbox_relay.cqrs.events import DomainEvent, EventEmitter, EventHandler, EventMap
from outbox_relay.cqrs.events import event as events
from outbox_relay.cqrs.mediator import RequestMediator
from outbox_relay.cqrs.message_brokers.amqp import AMQPMessageBroker
from outbox_relay.cqrs.requests import RequestMap
from outbox_relay.cqrs.requests.request_handler import RequestHandler
from outbox_relay.cqrs.response import Response


class MeetingAPIProtocol(typing.Protocol):
    async def join_user(self, user_id: int, meeting_id: int) -> None: ...
    async def notify_room(self, meeting_id: int, text: str) -> None: ...
    async def get_link(self, meeting_id: int) -> str: ...


class JoinMeetingCommand(requests.Request):
    user_id: int
    meeting_id: int


class CloseMeetingRoomCommand(requests.Request):
    meeting_room_id: int


class ReadMeetingQuery(requests.Request):
    meeting_id: int


class ReadMeetingQueryResult(Response):
    meeting_id: int
    link: str


class UserJoinedDomainEvent(DomainEvent):
    meeting_id: int


class UserJoinedEventHandler(EventHandler[UserJoinedDomainEvent]):
    def __init__(self, meetings_api: MeetingAPIProtocol) -> None:
        self._meetings_api = meetings_api

    async def handle(self, event: UserJoinedDomainEvent) -> None:
        await self._meetings_api.notify_room(event.meeting_id, "a user joined")


class JoinMeetingCommandHandler(RequestHandler[JoinMeetingCommand, None]):
    def __init__(self, meetings_api: MeetingAPIProtocol) -> None:
        self._meetings_api = meetings_api
        self.events: list[events.Event] = []

    async def handle(self, request: JoinMeetingCommand) -> None:
        await self._meetings_api.join_user(request.user_id, request.meeting_id)
        self.events.append(UserJoinedDomainEvent(meeting_id=request.meeting_id))


class ReadMeetingQueryHandler(RequestHandler[ReadMeetingQuery, ReadMeetingQueryResult]):
    def __init__(self, meetings_api: MeetingAPIProtocol) -> None:
        self._meetings_api = meetings_api
        self.events: list[events.Event] = []

    async def handle(self, request: ReadMeetingQuery) -> ReadMeetingQueryResult:
        link = await self._meetings_api.get_link(request.meeting_id)
        return ReadMeetingQueryResult(link=link, meeting_id=request.meeting_id)


class CloseMeetingRoomCommandHandler(requests.RequestHandler[CloseMeetingRoomCommand, None]):
    def __init__(self) -> None:
        self._events: list[events.Event] = []

    @property
    def events(self) -> list[events.Event]:
        return self._events

    async def handle(self, request: CloseMeetingRoomCommand) -> None:
        event = events.NotificationEvent(
            event_topic="meeting_room_notifications",
            event_name="meeting_room_closed",
            payload=dict(meeting_room_id=request.meeting_room_id),
        )
        self._events.append(event)


def build(
    dsn: str, queue_name: str, exchange_name: str, meetings_api: MeetingAPIProtocol
) -> tuple[RequestMediator, AMQPMessageBroker]:
    message_broker = AMQPMessageBroker(dsn=dsn, queue_name=queue_name, exchange_name=exchange_name)
    container = di.Container()
    container.bind(
        di.bind_by_type(Dependent(lambda: meetings_api, scope="singleton"), MeetingAPIProtocol)
    )
    event_map = EventMap()
    event_map.bind(UserJoinedDomainEvent, UserJoinedEventHandler)
    request_map = RequestMap()
    request_map.bind(JoinMeetingCommand, JoinMeetingCommandHandler)
    request_map.bind(ReadMeetingQuery, ReadMeetingQueryHandler)
    request_map.bind(CloseMeetingRoomCommand, CloseMeetingRoomCommandHandler)
    event_emitter = EventEmitter(event_map, container, message_broker)
    mediator = RequestMediator(
        request_map=request_map,
        container=container,
        event_emitter=event_emitter,
    )
    return mediator, message_broker
