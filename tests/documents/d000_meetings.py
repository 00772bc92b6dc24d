"""Document 000, the basic example: people join a meeting, a query reads who is there."""

import asyncio
from collections import defaultdict

import di

import outbox_relay.cqrs as cqrs
from outbox_relay.cqrs.requests import bootstrap

STORAGE = defaultdict[str, list[str]](list)


class JoinMeetingCommand(cqrs.Request):
    user_id: str
    meeting_id: str


class ReadMeetingQuery(cqrs.Request):
    meeting_id: str


class ReadMeetingQueryResult(cqrs.Response):
    users: list[str]


class JoinMeetingCommandHandler(cqrs.RequestHandler[JoinMeetingCommand, None]):
    @property
    def events(self):
        return []

    async def handle(self, request: JoinMeetingCommand) -> None:
        STORAGE[request.meeting_id].append(request.user_id)


class ReadMeetingQueryHandler(cqrs.RequestHandler[ReadMeetingQuery, ReadMeetingQueryResult]):
    @property
    def events(self):
        return []

    async def handle(self, request: ReadMeetingQuery) -> ReadMeetingQueryResult:
        return ReadMeetingQueryResult(users=STORAGE[request.meeting_id])


def command_mapper(mapper: cqrs.RequestMap) -> None:
    mapper.bind(JoinMeetingCommand, JoinMeetingCommandHandler)


def query_mapper(mapper: cqrs.RequestMap) -> None:
    mapper.bind(ReadMeetingQuery, ReadMeetingQueryHandler)


async def main() -> None:
    mediator = bootstrap.bootstrap(
        di_container=di.Container(),
        queries_mapper=query_mapper,
        commands_mapper=command_mapper,
    )
    for user_id in "1234":
        await mediator.send(JoinMeetingCommand(user_id=user_id, meeting_id="1"))
    users_in_room = await mediator.send(ReadMeetingQuery(meeting_id="1"))
    print(f"{len(users_in_room.users)} users are in the room")


if __name__ == "__main__":
    asyncio.run(main())
