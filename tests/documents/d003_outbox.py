"""
Document 003, "Transactional Outbox": a handler over the repository, and the relay to Kafka.

Repairs: the handler uses the name under which it keeps the repository; the loop runs the producer that
was made; the ECST event has no topic, so the outbox has a default one.
"""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import outbox_relay.cqrs as cqrs
from outbox_relay import Outbox
from outbox_relay.cqrs import events, requests
from outbox_relay.cqrs.adapters import kafka as kafka_adapter
from outbox_relay.cqrs.compressors import zlib
from outbox_relay.cqrs.message_brokers import kafka as kafka_broker


class Base(DeclarativeBase):
    pass


class MeetingRoom(Base):
    __tablename__ = "meeting_rooms"
    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(sa.String(10))


class CloseMeetingRoomCommand(requests.Request):
    meeting_room_id: int


def do_some_logic(meeting_room_id: int, session: AsyncSession) -> None:
    session.add(MeetingRoom(id=meeting_room_id, state="closed"))


class CloseMeetingRoomCommandHandler(requests.RequestHandler[CloseMeetingRoomCommand, None]):
    def __init__(self, repository: cqrs.SqlAlchemyOutboxedEventRepository):
        self._repository = repository
        self._events: list[events.Event] = []

    @property
    def events(self):
        return self._events

    async def handle(self, request: CloseMeetingRoomCommand) -> None:
        async with self._repository as session:
            do_some_logic(request.meeting_room_id, session)
            self._repository.add(
                session,
                events.ECSTEvent(
                    event_name="MeetingRoomClosed",
                    payload=dict(message="foo"),
                ),
            )
            await self._repository.commit(session)


def make_repository(
    session_factory: async_sessionmaker[AsyncSession], default_topic: str | None = None
) -> cqrs.SqlAlchemyOutboxedEventRepository:
    if default_topic is None:
        return cqrs.SqlAlchemyOutboxedEventRepository(session_factory, zlib.ZlibCompressor())
    outbox = Outbox(compressor=zlib.ZlibCompressor(), default_topic=default_topic)
    return cqrs.SqlAlchemyOutboxedEventRepository(session_factory, outbox=outbox)


def make_sessions(url: str) -> async_sessionmaker[AsyncSession]:
    return async_sessionmaker(create_async_engine(url, isolation_level="REPEATABLE READ"))


def make_mediator(repository: cqrs.SqlAlchemyOutboxedEventRepository) -> cqrs.RequestMediator:
    container = cqrs.PlainContainer()
    container.bind(cqrs.SqlAlchemyOutboxedEventRepository, repository)
    return requests.bootstrap.bootstrap(
        di_container=container,
        commands_mapper=lambda mapper: mapper.bind(
            CloseMeetingRoomCommand, CloseMeetingRoomCommandHandler
        ),
    )


def make_broker(dsn: str, topics: list[str]) -> kafka_broker.KafkaMessageBroker:
    producer = kafka_adapter.kafka_producer_factory(dsn=dsn, topics=topics)
    return kafka_broker.KafkaMessageBroker(producer, "DEBUG")


def make_producer(
    repository: cqrs.SqlAlchemyOutboxedEventRepository, broker: kafka_broker.KafkaMessageBroker
) -> cqrs.EventProducer:
    return cqrs.EventProducer(repository, broker)
