"""
Document 004: machines are requested. Validate, aggregate, save, events, read model, query.

One repair besides what the document leaves to its reader: the handler does not publish after it has
saved. Its `EventPublisher` writes to the outbox, in the transaction of the dispatch.
"""

from __future__ import annotations

import enum
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import sqlalchemy as sa
import typer
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import outbox_relay.cqrs as cqrs
from outbox_relay import NotificationEvent, Outbox
from outbox_relay.cqrs.aggregates import AggregateRoot
from outbox_relay.cqrs.buses import (
    BaseCommand,
    BaseQuery,
    CommandBus,
    EventPublisher,
    QueryBus,
    Registry,
    ValidationError,
    current_session,
)
from outbox_relay.cqrs.read_models import ReadModelStorage, SqlReadModels, read_model_table


class RequestStatus(enum.StrEnum):
    PENDING = "pending"
    RUNNING = "running"


class TemplateNotFoundError(Exception):
    """Nobody has such a template."""


# Events


class RequestCreated(NotificationEvent, topic="machines", key="request_id"):
    request_id: str
    template_id: str
    machine_count: int
    created_at: datetime
    tags: dict[str, str] | None = None
    priority: int | None = None


class RequestStatusChanged(NotificationEvent, topic="machines", key="request_id"):
    request_id: str
    status: RequestStatus
    changed_at: datetime


# Write side


class Base(DeclarativeBase):
    pass


class Template(Base):
    __tablename__ = "templates"
    template_id: Mapped[str] = mapped_column(sa.String(40), primary_key=True)


class Request(AggregateRoot, Base):
    __tablename__ = "requests"
    request_id: Mapped[str] = mapped_column(sa.String(40), primary_key=True)
    template_id: Mapped[str] = mapped_column(sa.String(40))
    machine_count: Mapped[int]
    status: Mapped[str] = mapped_column(sa.String(20))

    @classmethod
    def create_new_request(
        cls,
        template_id: str,
        machine_count: int,
        tags: dict[str, str] | None = None,
        priority: int | None = None,
    ) -> Request:
        request = cls(
            request_id=f"req-{uuid4().hex[:12]}",
            template_id=template_id,
            machine_count=machine_count,
            status=RequestStatus.PENDING,
        )
        request.record(
            RequestCreated(
                request_id=request.request_id,
                template_id=template_id,
                machine_count=machine_count,
                created_at=datetime.now(UTC),
                tags=tags,
                priority=priority,
            )
        )
        return request

    def update_status(self, status: RequestStatus) -> None:
        self.status = status
        self.record(
            RequestStatusChanged(
                request_id=self.request_id, status=status, changed_at=datetime.now(UTC)
            )
        )


class RequestRepository:
    async def save(self, request: Request) -> None:
        current_session().add(request)
        await current_session().flush()

    async def get_by_id(self, request_id: str) -> Request | None:
        return await current_session().get(Request, request_id, with_for_update=True)


class TemplateRepository:
    async def get_by_id(self, template_id: str) -> Template | None:
        return await current_session().get(Template, template_id)


@dataclass(frozen=True)
class CreateRequestCommand(BaseCommand):
    template_id: str
    machine_count: int
    tags: dict[str, str] | None = None
    priority: int | None = None

    def validate(self) -> None:
        if not self.template_id:
            raise ValidationError("template_id is required")
        if not 0 < self.machine_count <= 100:
            raise ValidationError("machine_count must be between 1 and 100")


@dataclass(frozen=True)
class UpdateRequestStatusCommand:
    request_id: str
    new_status: RequestStatus
    reason: str | None = None

    def validate(self) -> None:
        if not isinstance(self.new_status, RequestStatus):
            raise ValidationError("new_status must be a RequestStatus")


class CreateRequestCommandHandler:
    def __init__(
        self,
        request_repository: RequestRepository,
        template_repository: TemplateRepository,
        event_publisher: EventPublisher,
    ) -> None:
        self._request_repository = request_repository
        self._template_repository = template_repository
        self._event_publisher = event_publisher

    async def handle(self, command: CreateRequestCommand) -> str:
        if await self._template_repository.get_by_id(command.template_id) is None:
            raise TemplateNotFoundError(f"template {command.template_id} is not there")
        request = Request.create_new_request(
            template_id=command.template_id,
            machine_count=command.machine_count,
            tags=command.tags,
            priority=command.priority,
        )
        await self._request_repository.save(request)
        await self._event_publisher.publish_events(request.get_domain_events())
        return request.request_id


registry = Registry()


@registry.command_handler(UpdateRequestStatusCommand)
class UpdateRequestStatusHandler:
    def __init__(
        self, request_repository: RequestRepository, event_publisher: EventPublisher
    ) -> None:
        self._request_repository = request_repository
        self._event_publisher = event_publisher

    async def handle(self, command: UpdateRequestStatusCommand) -> None:
        request = await self._request_repository.get_by_id(command.request_id)
        if request is None:
            raise LookupError(f"request {command.request_id} is not there")
        request.update_status(command.new_status)
        await self._request_repository.save(request)
        await self._event_publisher.publish_events(request.get_domain_events())


# Read side


class RequestReadModel:
    def __init__(self, storage: ReadModelStorage) -> None:
        self._storage = storage

    async def get_request(self, request_id: str) -> dict[str, Any] | None:
        return await self._storage.get_document("requests", request_id)

    async def list_requests(
        self, filters: dict[str, Any] | None = None, limit: int = 50, offset: int = 0
    ) -> list[dict[str, Any]]:
        return await self._storage.query_documents(
            "requests",
            filters=filters or {},
            limit=limit,
            offset=offset,
            sort_by="created_at",
            sort_order="desc",
        )

    async def save_request(self, request_id: str, data: dict[str, Any]) -> None:
        await self._storage.save_document("requests", request_id, data)


class RequestProjection(cqrs.EventHandler[RequestCreated]):
    def __init__(self, read_model: RequestReadModel) -> None:
        self._read_model = read_model

    async def handle(self, event: RequestCreated) -> None:
        data = event.model_dump(mode="json") | {"status": RequestStatus.PENDING.value}
        await self._read_model.save_request(event.request_id, data)


class StatusProjection(cqrs.EventHandler[RequestStatusChanged]):
    def __init__(self, read_model: RequestReadModel) -> None:
        self._read_model = read_model

    async def handle(self, event: RequestStatusChanged) -> None:
        data = await self._read_model.get_request(event.request_id) or {}
        updated = {"status": event.status.value, "updated_at": event.changed_at.isoformat()}
        await self._read_model.save_request(event.request_id, data | updated)


@dataclass
class RequestDto:
    request_id: str
    template_id: str
    machine_count: int
    status: str
    created_at: datetime
    updated_at: datetime | None = None
    tags: dict[str, str] | None = None
    priority: int | None = None

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RequestDto:
        updated_at = data.get("updated_at")
        return cls(
            request_id=data["request_id"],
            template_id=data["template_id"],
            machine_count=data["machine_count"],
            status=data["status"],
            created_at=datetime.fromisoformat(data["created_at"]),
            updated_at=datetime.fromisoformat(updated_at) if updated_at else None,
            tags=data.get("tags"),
            priority=data.get("priority"),
        )


@dataclass(frozen=True)
class GetRequestQuery(BaseQuery):
    request_id: str

    def validate(self) -> None:
        if not self.request_id:
            raise ValidationError("request_id is required")


@dataclass(frozen=True)
class ListRequestsQuery(BaseQuery):
    status: RequestStatus | None = None
    template_id: str | None = None
    limit: int = 50
    offset: int = 0

    def validate(self) -> None:
        if not 0 < self.limit <= 1000:
            raise ValidationError("limit must be between 1 and 1000")
        if self.offset < 0:
            raise ValidationError("offset must be non-negative")


class GetRequestQueryHandler:
    def __init__(self, request_read_model: RequestReadModel) -> None:
        self._read_model = request_read_model

    async def handle(self, query: GetRequestQuery) -> RequestDto | None:
        data = await self._read_model.get_request(query.request_id)
        return RequestDto.from_dict(data) if data else None


@registry.query_handler(ListRequestsQuery)
class ListRequestsQueryHandler:
    def __init__(self, request_read_model: RequestReadModel) -> None:
        self._read_model = request_read_model

    async def handle(self, query: ListRequestsQuery) -> list[RequestDto]:
        filters = {"status": query.status and query.status.value, "template_id": query.template_id}
        found = await self._read_model.list_requests(
            filters={name: value for name, value in filters.items() if value},
            limit=query.limit,
            offset=query.offset,
        )
        return [RequestDto.from_dict(data) for data in found]


# Together

READ_MODELS = read_model_table(Base.metadata)


@dataclass(frozen=True)
class Application:
    engine: AsyncEngine
    units: cqrs.UnitOfWorkFactory
    command_bus: CommandBus
    query_bus: QueryBus


def configure_cqrs(url: str) -> Application:
    engine = create_async_engine(url)
    units = cqrs.UnitOfWorkFactory(
        async_sessionmaker(engine, expire_on_commit=False), Outbox(source="/machines")
    )
    container = cqrs.PlainContainer()
    read_model = RequestReadModel(SqlReadModels(READ_MODELS))
    container.bind(RequestReadModel, read_model)
    event_map = cqrs.EventMap()
    event_map.bind(RequestCreated, RequestProjection)
    event_map.bind(RequestStatusChanged, StatusProjection)
    event_publisher = EventPublisher(event_map, container)
    container.bind(EventPublisher, event_publisher)

    command_bus = CommandBus(container, unit_of_work=units, registry=registry)
    query_bus = QueryBus(container, unit_of_work=units, registry=registry)
    command_bus.register_handler(
        CreateRequestCommand,
        CreateRequestCommandHandler(RequestRepository(), TemplateRepository(), event_publisher),
    )
    query_bus.register_handler(GetRequestQuery, GetRequestQueryHandler(read_model))
    return Application(engine, units, command_bus, query_bus)


# The same buses behind a command line

cli = typer.Typer()


@cli.command()
def create(url: str, template_id: str, machine_count: Annotated[int, typer.Option()] = 1) -> None:
    """Request machines."""
    command = CreateRequestCommand(template_id=template_id, machine_count=machine_count)
    try:
        typer.echo(configure_cqrs(url).command_bus.execute(command))
    except (ValidationError, TemplateNotFoundError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error


@cli.command()
def requests(url: str) -> None:
    """List what was requested."""
    for found in configure_cqrs(url).query_bus.execute(ListRequestsQuery()):
        typer.echo(f"{found.request_id} {found.machine_count} {found.status}")


if __name__ == "__main__":
    sys.argv[0] = Path(__file__).name
    cli()
