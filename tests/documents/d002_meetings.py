"""
Document 002: dataclasses, a domain event handled in process, a notification event to Redis.

Repairs: colons and imports that its text leaves out; the domain event derives from `DomainEvent`,
which it imports; a meeting's API and a container of di, which it supposes.
"""

import dataclasses
from datetime import UTC, datetime

import di
import redis.asyncio as redis
from di.dependent import Dependent

from outbox_relay.cqrs.dataclass_models import (
    DomainEvent,
    Event,
    NotificationEvent,
    Request,
    Response,
)
from outbox_relay.cqrs.events.event_emitter import EventEmitter
from outbox_relay.cqrs.events.event_handler import EventHandler
from outbox_relay.cqrs.events.map import EventMap
from outbox_relay.cqrs.mediator import Mediator
from outbox_relay.cqrs.message_brokers.redis import RedisMessageBroker
from outbox_relay.cqrs.requests.map import RequestMap
from outbox_relay.cqrs.requests.request_handler import RequestHandler


class MeetingAPI:
    def __init__(self) -> None:
        self.joined: list[tuple[int, int]] = []
        self.notified: list[tuple[int, str]] = []

    async def join(self, meeting_id: int, user_id: int) -> None:
        self.joined.append((meeting_id, user_id))

    async def notify(self, meeting_id: int, text: str) -> None:
        self.notified.append((meeting_id, text))

    async def get_link(self, meeting_id: int) -> str:
        return f"https://meet.example/{meeting_id}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class JoinMeetingCommand(Request):
    meeting_id: int = dataclasses.field(default=1)
    user_id: int = dataclasses.field(default=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadMeetingQuery(Request):
    meeting_id: int = dataclasses.field(default=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadMeetingQueryResult(Response):
    meeting_id: int = dataclasses.field(default=1)
    link: str = dataclasses.field()


@dataclasses.dataclass(frozen=True, kw_only=True)
class UserJoinedDomainEvent(DomainEvent):
    user_id: int = dataclasses.field()
    meeting_id: int = dataclasses.field()
    timestamp: datetime = dataclasses.field()


@dataclasses.dataclass(frozen=True, kw_only=True)
class UserJoinedNotificationEvent(NotificationEvent):
    user_id: int = dataclasses.field()


class JoinMeetingCommandHandler(RequestHandler[JoinMeetingCommand, None]):
    def __init__(self, meeting_api: MeetingAPI) -> None:
        self._meeting_api = meeting_api
        self._events: list[Event] = []

    @property
    def events(self) -> list[Event]:
        return self._events

    async def handle(self, request: JoinMeetingCommand) -> None:
        await self._meeting_api.join(request.meeting_id, request.user_id)
        self._events.append(
            UserJoinedDomainEvent(
                user_id=request.user_id,
                timestamp=datetime.now(UTC),
                meeting_id=request.meeting_id,
            )
        )
        self._events.append(UserJoinedNotificationEvent(user_id=request.user_id))


class UserJoinedDomainEventHandler(EventHandler[UserJoinedDomainEvent]):
    def __init__(self, meeting_api: MeetingAPI) -> None:
        self._meeting_api = meeting_api

    async def handle(self, event: UserJoinedDomainEvent) -> None:
        await self._meeting_api.notify(event.meeting_id, "a user joined")


class ReadMeetingQueryHandler(RequestHandler[ReadMeetingQuery, ReadMeetingQueryResult]):
    def __init__(self, meeting_api: MeetingAPI) -> None:
        self._meeting_api = meeting_api
        self._events: list[Event] = []

    @property
    def events(self) -> list[Event]:
        return self._events

    async def handle(self, request: ReadMeetingQuery) -> ReadMeetingQueryResult:
        link = await self._meeting_api.get_link(request.meeting_id)
        return ReadMeetingQueryResult(meeting_id=request.meeting_id, link=link)


async def main(url: str, meeting_api: MeetingAPI) -> ReadMeetingQueryResult:
    container = di.Container()
    container.bind(di.bind_by_type(Dependent(lambda: meeting_api, scope="singleton"), MeetingAPI))

    event_map = EventMap()
    event_map.bind(UserJoinedDomainEvent, UserJoinedDomainEventHandler)
    request_map = RequestMap()
    request_map.bind(JoinMeetingCommand, JoinMeetingCommandHandler)
    request_map.bind(ReadMeetingQuery, ReadMeetingQueryHandler)

    redis_client = redis.Redis.from_url(url)
    event_emitter = EventEmitter(
        message_broker=RedisMessageBroker(redis_client),
        event_map=event_map,
        container=container,
    )
    mediator = Mediator(request_map=request_map, event_emitter=event_emitter, container=container)

    await mediator.send(JoinMeetingCommand(user_id=123))
    response = await mediator.send(ReadMeetingQuery(meeting_id=1))
    await redis_client.aclose()
    return response
