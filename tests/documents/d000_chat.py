"""
Document 000, the advanced example: a chat room with validation, injection, WebSockets and paging.

Repairs: `defaultdict` is imported; `Dependent` comes from ``di.dependent``, where di has it; the
manager is bound to the protocol that the handlers ask for; sockets that are gone are dropped.
"""

import asyncio
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import uuid4

import di
from di.dependent import Dependent
from pydantic import BaseModel, Field, field_validator

import outbox_relay.cqrs as cqrs
from outbox_relay.cqrs.events import Event
from outbox_relay.cqrs.requests import bootstrap


def now() -> datetime:
    return datetime.now(UTC)


class ChatRoom(BaseModel):
    id: str
    name: str
    participants: list[str] = []
    created_at: datetime
    is_active: bool = True


class CreateChatRoomCommand(cqrs.Request):
    name: str = Field(..., min_length=1, max_length=100)
    creator_id: str
    description: str | None = None


class JoinChatRoomCommand(cqrs.Request):
    user_id: str
    room_id: str


class LeaveChatRoomCommand(cqrs.Request):
    user_id: str
    room_id: str


class SendMessageCommand(cqrs.Request):
    user_id: str
    room_id: str
    content: str = Field(..., min_length=1, max_length=1000)
    message_type: str = "text"

    @field_validator("content")
    @classmethod
    def validate_content(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("a message has words in it")
        return value.strip()


class GetChatRoomQuery(cqrs.Request):
    room_id: str


class GetUserChatRoomsQuery(cqrs.Request):
    user_id: str


class GetChatRoomMessagesQuery(cqrs.Request):
    room_id: str
    limit: int = 50
    offset: int = 0


class CreateChatRoomResponse(cqrs.Response):
    room_id: str
    room_name: str
    creator_id: str


class JoinChatRoomResponse(cqrs.Response):
    user_id: str
    room_id: str
    joined_at: datetime


class SendMessageResponse(cqrs.Response):
    message_id: str
    user_id: str
    room_id: str
    timestamp: datetime


class ChatRoomResponse(cqrs.Response):
    id: str
    name: str
    participants: list[str]
    participant_count: int
    is_active: bool


class MessageResponse(cqrs.Response):
    id: str
    user_id: str
    content: str
    message_type: str
    timestamp: datetime
    room_id: str


class ChatRoomCreatedEvent(Event):
    room_id: str
    creator_id: str
    room_name: str
    created_at: datetime


class UserJoinedRoomEvent(Event):
    user_id: str
    room_id: str
    joined_at: datetime


class UserLeftRoomEvent(Event):
    user_id: str
    room_id: str
    left_at: datetime


class MessageSentEvent(Event):
    message_id: str
    user_id: str
    room_id: str
    content: str
    message_type: str
    timestamp: datetime


CHAT_ROOMS: dict[str, ChatRoom] = {}
MESSAGES: dict[str, list[MessageResponse]] = defaultdict(list)
USER_ROOMS: dict[str, list[str]] = defaultdict(list)


class WebSocketManagerProtocol(Protocol):
    async def add_connection(self, user_id: str, websocket: Any) -> None: ...
    async def remove_connection(self, user_id: str, websocket: Any) -> None: ...
    async def add_to_room(self, user_id: str, room_id: str, websocket: Any) -> None: ...
    async def broadcast_to_user(self, user_id: str, message: dict) -> None: ...
    async def broadcast_to_room(self, room_id: str, message: dict) -> None: ...
    async def broadcast_to_all(self, message: dict) -> None: ...


class WithEvents:
    def __init__(self, websocket_manager: WebSocketManagerProtocol):
        self._websocket_manager = websocket_manager
        self._events: list[Event] = []

    @property
    def events(self) -> list[Event]:
        return self._events


def room_of(room_id: str) -> ChatRoom:
    if room_id not in CHAT_ROOMS:
        raise ValueError(f"there is no room {room_id}")
    return CHAT_ROOMS[room_id]


def as_response(room: ChatRoom) -> ChatRoomResponse:
    return ChatRoomResponse(
        id=room.id,
        name=room.name,
        participants=room.participants,
        participant_count=len(room.participants),
        is_active=room.is_active,
    )


class CreateChatRoomHandler(
    WithEvents, cqrs.RequestHandler[CreateChatRoomCommand, CreateChatRoomResponse]
):
    async def handle(self, request: CreateChatRoomCommand) -> CreateChatRoomResponse:
        room = ChatRoom(
            id=str(uuid4()),
            name=request.name,
            participants=[request.creator_id],
            created_at=now(),
        )
        CHAT_ROOMS[room.id] = room
        USER_ROOMS[request.creator_id].append(room.id)
        self._events.append(
            ChatRoomCreatedEvent(
                room_id=room.id,
                creator_id=request.creator_id,
                room_name=request.name,
                created_at=room.created_at,
            )
        )
        await self._websocket_manager.broadcast_to_user(
            request.creator_id,
            {"type": "room_created", "room_id": room.id, "room_name": request.name},
        )
        return CreateChatRoomResponse(
            room_id=room.id, room_name=request.name, creator_id=request.creator_id
        )


class JoinChatRoomHandler(
    WithEvents, cqrs.RequestHandler[JoinChatRoomCommand, JoinChatRoomResponse | None]
):
    async def handle(self, request: JoinChatRoomCommand) -> JoinChatRoomResponse | None:
        room = room_of(request.room_id)
        if not room.is_active:
            raise ValueError(f"room {request.room_id} is closed")
        if request.user_id in room.participants:
            return None
        room.participants.append(request.user_id)
        USER_ROOMS[request.user_id].append(request.room_id)
        joined = {"user_id": request.user_id, "room_id": request.room_id}
        self._events.append(UserJoinedRoomEvent(**joined, joined_at=now()))
        await self._websocket_manager.broadcast_to_room(
            request.room_id, {"type": "user_joined", **joined}
        )
        return JoinChatRoomResponse(**joined, joined_at=now())


class LeaveChatRoomHandler(WithEvents, cqrs.RequestHandler[LeaveChatRoomCommand, None]):
    async def handle(self, request: LeaveChatRoomCommand) -> None:
        room_of(request.room_id).participants.remove(request.user_id)
        USER_ROOMS[request.user_id].remove(request.room_id)
        self._events.append(
            UserLeftRoomEvent(user_id=request.user_id, room_id=request.room_id, left_at=now())
        )


class SendMessageHandler(WithEvents, cqrs.RequestHandler[SendMessageCommand, SendMessageResponse]):
    async def handle(self, request: SendMessageCommand) -> SendMessageResponse:
        room = room_of(request.room_id)
        if request.user_id not in room.participants:
            raise ValueError(f"{request.user_id} is not in room {request.room_id}")
        message = MessageResponse(
            id=str(uuid4()), timestamp=now(), **request.model_dump(mode="python")
        )
        MESSAGES[request.room_id].append(message)
        fields = message.model_dump(exclude={"id"})
        self._events.append(MessageSentEvent(message_id=message.id, **fields))
        await self._websocket_manager.broadcast_to_room(
            request.room_id,
            {"type": "message", "message_id": message.id, "content": request.content},
        )
        return SendMessageResponse(
            message_id=message.id,
            user_id=request.user_id,
            room_id=request.room_id,
            timestamp=message.timestamp,
        )


class GetChatRoomHandler(cqrs.RequestHandler[GetChatRoomQuery, ChatRoomResponse]):
    @property
    def events(self) -> list[Event]:
        return []

    async def handle(self, request: GetChatRoomQuery) -> ChatRoomResponse:
        return as_response(room_of(request.room_id))


class GetUserChatRoomsHandler(cqrs.RequestHandler[GetUserChatRoomsQuery, list[ChatRoomResponse]]):
    @property
    def events(self) -> list[Event]:
        return []

    async def handle(self, request: GetUserChatRoomsQuery) -> list[ChatRoomResponse]:
        rooms = USER_ROOMS.get(request.user_id, [])
        return [as_response(CHAT_ROOMS[room_id]) for room_id in rooms if room_id in CHAT_ROOMS]


class GetChatRoomMessagesHandler(
    cqrs.RequestHandler[GetChatRoomMessagesQuery, list[MessageResponse]]
):
    @property
    def events(self) -> list[Event]:
        return []

    async def handle(self, request: GetChatRoomMessagesQuery) -> list[MessageResponse]:
        if request.room_id not in MESSAGES:
            return []
        newest_first = MESSAGES[request.room_id][::-1]
        return newest_first[request.offset : request.offset + request.limit]


class WithManager:
    def __init__(self, websocket_manager: WebSocketManagerProtocol):
        self._websocket_manager = websocket_manager


class ChatRoomCreatedEventHandler(WithManager, cqrs.EventHandler[ChatRoomCreatedEvent]):
    async def handle(self, event: ChatRoomCreatedEvent) -> None:
        await self._websocket_manager.broadcast_to_all(
            {"type": "room_created", "room_name": event.room_name}
        )


class UserJoinedRoomEventHandler(WithManager, cqrs.EventHandler[UserJoinedRoomEvent]):
    async def handle(self, event: UserJoinedRoomEvent) -> None:
        await self._websocket_manager.broadcast_to_room(
            event.room_id, {"type": "joined", "user_id": event.user_id}
        )


class UserLeftRoomEventHandler(WithManager, cqrs.EventHandler[UserLeftRoomEvent]):
    async def handle(self, event: UserLeftRoomEvent) -> None:
        await self._websocket_manager.broadcast_to_room(
            event.room_id, {"type": "user_left", "user_id": event.user_id}
        )


class MessageSentEventHandler(WithManager, cqrs.EventHandler[MessageSentEvent]):
    async def handle(self, event: MessageSentEvent) -> None:
        await self._websocket_manager.broadcast_to_room(
            event.room_id, {"type": "message_sent", "message_id": event.message_id}
        )


class WebSocketManager(WebSocketManagerProtocol):
    def __init__(self) -> None:
        self._connections: dict[str, set] = defaultdict(set)
        self._room_connections: dict[str, set] = defaultdict(set)

    async def add_connection(self, user_id: str, websocket: Any) -> None:
        self._connections[user_id].add(websocket)

    async def remove_connection(self, user_id: str, websocket: Any) -> None:
        self._connections[user_id].discard(websocket)

    async def add_to_room(self, user_id: str, room_id: str, websocket: Any) -> None:
        self._room_connections[room_id].add(websocket)

    async def broadcast_to_user(self, user_id: str, message: dict) -> None:
        await self._send(self._connections[user_id], message)

    async def broadcast_to_room(self, room_id: str, message: dict) -> None:
        await self._send(self._room_connections[room_id], message)

    async def broadcast_to_all(self, message: dict) -> None:
        for connections in self._connections.values():
            await self._send(connections, message)

    async def _send(self, connections: set, message: dict) -> None:
        for websocket in list(connections):
            try:
                await websocket.send_json(message)
            except Exception:  # noqa: BLE001 - whatever it is, this socket is of no use
                self._drop(websocket)

    def _drop(self, websocket: Any) -> None:
        for group in (*self._connections.values(), *self._room_connections.values()):
            group.discard(websocket)


def command_mapper(mapper: cqrs.RequestMap) -> None:
    mapper.bind(CreateChatRoomCommand, CreateChatRoomHandler)
    mapper.bind(JoinChatRoomCommand, JoinChatRoomHandler)
    mapper.bind(SendMessageCommand, SendMessageHandler)
    mapper.bind(LeaveChatRoomCommand, LeaveChatRoomHandler)


def query_mapper(mapper: cqrs.RequestMap) -> None:
    mapper.bind(GetChatRoomQuery, GetChatRoomHandler)
    mapper.bind(GetUserChatRoomsQuery, GetUserChatRoomsHandler)
    mapper.bind(GetChatRoomMessagesQuery, GetChatRoomMessagesHandler)


def event_mapper(mapper: cqrs.EventMap) -> None:
    mapper.bind(ChatRoomCreatedEvent, ChatRoomCreatedEventHandler)
    mapper.bind(UserJoinedRoomEvent, UserJoinedRoomEventHandler)
    mapper.bind(UserLeftRoomEvent, UserLeftRoomEventHandler)
    mapper.bind(MessageSentEvent, MessageSentEventHandler)


def setup_di(websocket_manager: WebSocketManager) -> di.Container:
    container = di.Container()
    container.bind(
        di.bind_by_type(
            Dependent(lambda: websocket_manager, scope="singleton"), WebSocketManagerProtocol
        )
    )
    return container


async def main(websocket_manager: WebSocketManager | None = None) -> cqrs.RequestMediator:
    mediator = bootstrap.bootstrap(
        di_container=setup_di(websocket_manager or WebSocketManager()),
        queries_mapper=query_mapper,
        commands_mapper=command_mapper,
        domain_events_mapper=event_mapper,
    )
    room = await mediator.send(
        CreateChatRoomCommand(name="General Chat", creator_id="user1", description="for all")
    )
    await mediator.send(JoinChatRoomCommand(user_id="user2", room_id=room.room_id))
    await mediator.send(JoinChatRoomCommand(user_id="user3", room_id=room.room_id))
    for user_id, content in (("user1", "Hello everyone!"), ("user2", "  Hi there!  ")):
        await mediator.send(
            SendMessageCommand(user_id=user_id, room_id=room.room_id, content=content)
        )
    info = await mediator.send(GetChatRoomQuery(room_id=room.room_id))
    messages = await mediator.send(GetChatRoomMessagesQuery(room_id=room.room_id, limit=10))
    rooms = await mediator.send(GetUserChatRoomsQuery(user_id="user1"))
    print(f"{info.participant_count} people, {len(messages)} messages, {len(rooms)} room")
    return mediator


if __name__ == "__main__":
    asyncio.run(main())
