"""
Document 000: both examples, and what its text says of them.
"""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

import outbox_relay.cqrs as cqrs
from outbox_relay.cqrs.container import adapted
from tests.documents import d000_chat, d000_meetings
from tests.documents.d000_chat import (
    ChatRoomCreatedEvent,
    ChatRoomCreatedEventHandler,
    CreateChatRoomCommand,
    GetChatRoomMessagesQuery,
    GetUserChatRoomsQuery,
    JoinChatRoomCommand,
    LeaveChatRoomCommand,
    SendMessageCommand,
    WebSocketManager,
)


class Socket:
    """One that keeps what it is sent, or that is gone."""

    def __init__(self, *, gone: bool = False) -> None:
        self.gone = gone
        self.tries = 0
        self.messages: list[dict[str, Any]] = []

    async def send_json(self, message: dict[str, Any]) -> None:
        self.tries += 1
        if self.gone:
            raise ConnectionResetError
        self.messages.append(message)

    def types(self) -> list[str]:
        return [message["type"] for message in self.messages]


@pytest.fixture
def manager() -> WebSocketManager:
    return WebSocketManager()


@pytest.fixture(autouse=True)
def _empty() -> None:
    for storage in (
        d000_meetings.STORAGE,
        d000_chat.CHAT_ROOMS,
        d000_chat.MESSAGES,
        d000_chat.USER_ROOMS,
    ):
        storage.clear()


async def test_the_basic_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """
    Commands that answer nothing, a query that answers a model.
    """
    await d000_meetings.main()

    assert capsys.readouterr().out == "4 users are in the room\n"


async def test_the_chat_room_example_runs(
    manager: WebSocketManager, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Models, lists and None as answers; each event reaches its handler.
    """
    everyone = Socket()
    await manager.add_connection("user9", everyone)
    mediator = await d000_chat.main(manager)

    assert capsys.readouterr().out == "3 people, 2 messages, 1 room\n"
    assert everyone.types() == ["room_created"]
    [room_id] = d000_chat.CHAT_ROOMS
    again = await mediator.send(JoinChatRoomCommand(user_id="user2", room_id=room_id))
    assert again is None


async def test_messages_come_newest_first_by_limit_and_offset(manager: WebSocketManager) -> None:
    """
    Also beyond the end, and of a room without messages.
    """
    mediator = await d000_chat.main(manager)
    [room_id] = d000_chat.CHAT_ROOMS
    for number in range(5):
        await mediator.send(
            SendMessageCommand(user_id="user1", room_id=room_id, content=f"m{number}")
        )

    async def page(limit: int, offset: int) -> list[str]:
        query = GetChatRoomMessagesQuery(room_id=room_id, limit=limit, offset=offset)
        return [message.content for message in await mediator.send(query)]

    assert await page(3, 0) == ["m4", "m3", "m2"]
    assert await page(2, 4) == ["m0", "Hi there!"]
    assert await page(10, 6) == ["Hello everyone!"]
    assert await page(10, 7) == []
    assert await mediator.send(GetChatRoomMessagesQuery(room_id="none")) == []


async def test_broadcasts_reach_a_user_a_room_or_all(manager: WebSocketManager) -> None:
    """
    Through what the container injects; a socket that is gone is dropped and harms nobody.
    """
    mine, roommate, other, gone = Socket(), Socket(), Socket(), Socket(gone=True)
    mediator = await d000_chat.main(manager)
    [room_id] = d000_chat.CHAT_ROOMS
    for user_id, socket in (("ann", mine), ("bob", roommate), ("eve", other), ("zoe", gone)):
        await manager.add_connection(user_id, socket)
    for user_id, socket in (("bob", roommate), ("zoe", gone)):
        await manager.add_to_room(user_id, room_id, socket)

    await mediator.send(JoinChatRoomCommand(user_id="ann", room_id=room_id))
    await mediator.send(SendMessageCommand(user_id="ann", room_id=room_id, content="hi"))
    await mediator.send(LeaveChatRoomCommand(user_id="ann", room_id=room_id))
    await mediator.send(CreateChatRoomCommand(name="Second", creator_id="ann"))

    in_the_room = ["user_joined", "joined", "message", "message_sent", "user_left"]
    assert roommate.types() == [*in_the_room, "room_created"]
    assert mine.types() == ["room_created", "room_created"]
    assert other.types() == ["room_created"]
    assert gone.tries == 1


async def test_what_is_invalid_is_refused(manager: WebSocketManager) -> None:
    """
    By the fields, by a validator, by the rules in the handlers.
    """
    mediator = await d000_chat.main(manager)
    [room_id] = d000_chat.CHAT_ROOMS

    for wrong in ({"name": ""}, {"name": "x" * 101}):
        with pytest.raises(ValidationError):
            CreateChatRoomCommand(creator_id="ann", **wrong)
    with pytest.raises(ValidationError, match="words"):
        SendMessageCommand(user_id="user1", room_id=room_id, content="   ")
    with pytest.raises(ValueError, match="there is no room"):
        await mediator.send(JoinChatRoomCommand(user_id="ann", room_id="none"))
    with pytest.raises(ValueError, match="is not in room"):
        await mediator.send(SendMessageCommand(user_id="eve", room_id=room_id, content="hi"))
    d000_chat.CHAT_ROOMS[room_id].is_active = False
    with pytest.raises(ValueError, match="closed"):
        await mediator.send(JoinChatRoomCommand(user_id="ann", room_id=room_id))

    rooms = await mediator.send(GetUserChatRoomsQuery(user_id="ann"))
    assert rooms == []


async def test_one_event_may_have_several_handlers(manager: WebSocketManager) -> None:
    """
    Each of them handles it, in the order of the binds.
    """
    names = []

    class Notes(cqrs.EventHandler[ChatRoomCreatedEvent]):
        async def handle(self, event: ChatRoomCreatedEvent) -> None:
            names.append(event.room_name)

    def events(mapper: cqrs.EventMap) -> None:
        mapper.bind(ChatRoomCreatedEvent, ChatRoomCreatedEventHandler)
        mapper.bind(ChatRoomCreatedEvent, Notes)

    everyone = Socket()
    await manager.add_connection("user9", everyone)
    mediator = cqrs.bootstrap(
        d000_chat.setup_di(manager),
        commands_mapper=d000_chat.command_mapper,
        domain_events_mapper=events,
    )
    await mediator.send(CreateChatRoomCommand(name="Both", creator_id="ann"))

    assert (names, everyone.types()) == (["Both"], ["room_created"])


async def test_a_protocol_without_a_bind_is_named() -> None:
    """
    As in the document, where the class was bound and the handlers ask for the protocol.
    """
    import di
    from di.dependent import Dependent

    container = di.Container()
    manager = WebSocketManager()
    container.bind(di.bind_by_type(Dependent(lambda: manager, scope="singleton"), WebSocketManager))
    with pytest.raises(cqrs.HandlerNotResolved, match="WebSocketManagerProtocol"):
        await adapted(container).resolve(ChatRoomCreatedEventHandler)
