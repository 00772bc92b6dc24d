"""
Document 004: its flow, on SQLite and on MariaDB; and that no kill parts state, events, read model.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

import outbox_relay.cqrs as cqrs
from outbox_relay.cqrs.buses import (
    BaseQuery,
    CommandBus,
    HandlerNotFoundError,
    QueryBus,
    ValidationError,
)
from outbox_relay.schema import tables
from tests.documents import d004_machines
from tests.documents.d004_machines import (
    READ_MODELS,
    Application,
    Base,
    CreateRequestCommand,
    GetRequestQuery,
    ListRequestsQuery,
    Request,
    RequestDto,
    RequestStatus,
    Template,
    TemplateNotFoundError,
    UpdateRequestStatusCommand,
    configure_cqrs,
)
from tests.services.database import Database

ROOT = Path(__file__).parents[2]
DATABASES = ("sqlite", "mariadb")
KILLS = 10


async def prepare(url: str) -> None:
    """Tables, and one template."""
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.run_sync(tables().metadata.create_all)
        await connection.execute(sa.insert(Template).values(template_id="template-1"))
    await engine.dispose()


@pytest.fixture(params=DATABASES)
async def application(request: pytest.FixtureRequest) -> AsyncIterator[Application]:
    database: Database = request.getfixturevalue(f"{request.param}_database")
    await prepare(database.async_url)
    made = configure_cqrs(database.async_url)
    yield made
    await made.engine.dispose()


async def committed(application: Application) -> tuple[set[str], set[str], set[str]]:
    """Ids in the state, in the events, in the read model."""
    events = application.units.outbox.table.c.payload
    async with application.engine.connect() as connection:
        state = await connection.scalars(sa.select(Request.request_id))
        payloads = await connection.scalars(sa.select(events))
        documents = await connection.scalars(sa.select(READ_MODELS.c.document_id))
        return (
            set(state),
            {json.loads(bytes(payload))["request_id"] for payload in payloads},
            set(documents),
        )


async def test_a_request_is_created_saved_published_and_read(application: Application) -> None:
    """
    Validate, aggregate, save, events, read model, query: one commit.
    """
    command = CreateRequestCommand(
        template_id="template-1", machine_count=3, tags={"team": "backend"}, priority=5
    )
    request_id = await application.command_bus.dispatch(command)
    found = await application.query_bus.dispatch(GetRequestQuery(request_id=request_id))

    assert isinstance(found, RequestDto)
    assert (found.template_id, found.machine_count, found.status) == ("template-1", 3, "pending")
    assert (found.tags, found.priority, found.updated_at) == ({"team": "backend"}, 5, None)
    assert await committed(application) == ({request_id}, {request_id}, {request_id})
    assert await application.query_bus.dispatch(GetRequestQuery(request_id="none")) is None


async def test_the_read_model_follows_with_filter_sort_and_page(application: Application) -> None:
    """
    Newest first; each later event shows in the document.
    """
    ids = [
        await application.command_bus.dispatch(
            CreateRequestCommand(template_id="template-1", machine_count=number)
        )
        for number in range(1, 5)
    ]
    await application.command_bus.dispatch(
        UpdateRequestStatusCommand(request_id=ids[1], new_status=RequestStatus.RUNNING)
    )

    async def listed(**query: Any) -> list[str]:
        found = await application.query_bus.dispatch(ListRequestsQuery(**query))
        return [one.request_id for one in found]

    assert await listed() == ids[::-1]
    assert await listed(limit=2, offset=1) == [ids[2], ids[1]]
    assert await listed(status=RequestStatus.RUNNING) == [ids[1]]
    assert await listed(status=RequestStatus.PENDING) == [ids[3], ids[2], ids[0]]
    assert await listed(template_id="other") == []
    found = await application.query_bus.dispatch(GetRequestQuery(request_id=ids[1]))
    assert found.updated_at is not None


@pytest.mark.parametrize(
    "command",
    [
        CreateRequestCommand(template_id="", machine_count=1),
        CreateRequestCommand(template_id="template-1", machine_count=0),
        CreateRequestCommand(template_id="template-1", machine_count=101),
        UpdateRequestStatusCommand(request_id="x", new_status="running"),  # type: ignore[arg-type]
    ],
)
async def test_what_is_invalid_touches_nothing(command: Any) -> None:
    """
    `validate` is called before the handler is made and before a connection is opened.
    """
    nowhere = configure_cqrs("sqlite+aiosqlite:////nowhere/at/all.db")
    with pytest.raises(ValidationError):
        await nowhere.command_bus.dispatch(command)
    for query in (ListRequestsQuery(limit=0), ListRequestsQuery(offset=-1), GetRequestQuery("")):
        with pytest.raises(ValidationError):
            await nowhere.query_bus.dispatch(query)


async def test_many_at_once_do_not_wait_for_one_another(mariadb_database: Database) -> None:
    """
    New documents of one read model: no deadlock, and each command has its own transaction.
    """
    await prepare(mariadb_database.async_url)
    application = configure_cqrs(mariadb_database.async_url)
    commands = [CreateRequestCommand("template-1", number) for number in range(1, 51)]
    ids = await asyncio.gather(*map(application.command_bus.dispatch, commands))

    assert await committed(application) == (set(ids), set(ids), set(ids))
    await application.engine.dispose()


async def test_an_error_rolls_back_state_events_and_read_model(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Of the handler, and of a read model's handler after everything was written.
    """
    with pytest.raises(TemplateNotFoundError):
        await application.command_bus.dispatch(CreateRequestCommand("other", 1))

    save = d004_machines.RequestReadModel.save_request

    async def broken(self: Any, *arguments: Any) -> None:
        await save(self, *arguments)
        raise ZeroDivisionError

    monkeypatch.setattr(d004_machines.RequestReadModel, "save_request", broken)
    with pytest.raises(ZeroDivisionError):
        await application.command_bus.dispatch(CreateRequestCommand("template-1", 1))

    assert await committed(application) == (set(), set(), set())


def test_killed_at_any_point_state_and_events_are_equal(mariadb_database: Database) -> None:
    """
    A real process, SIGKILL before and after each statement and around the commit, on MariaDB.
    """
    asyncio.run(prepare(mariadb_database.async_url))
    done = subprocess.run(
        [
            *[sys.executable, "-m", "tests.documents.d004_killed"],
            *[mariadb_database.async_url, str(KILLS)],
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    points = int(done.stdout)

    async def look() -> tuple[set[str], set[str], set[str]]:
        application = configure_cqrs(mariadb_database.async_url)
        try:
            return await committed(application)
        finally:
            await application.engine.dispose()

    state, events, documents = asyncio.run(look())
    assert state == events == documents
    assert points == KILLS
    # The last point is after the commit: that one, and the one that lived.
    assert len(state) == 2


def test_the_same_buses_serve_a_command_line(mariadb_database: Database) -> None:
    """
    In a process of its own; what is invalid has an exit code.
    """
    url = mariadb_database.async_url
    asyncio.run(prepare(url))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tests.documents.d004_machines", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    created = run("create", url, "template-1", "--machine-count", "3")
    assert created.returncode == 0, created.stderr
    assert run("requests", url).stdout == f"{created.stdout.strip()} 3 pending\n"
    refused = run("create", url, "template-1", "--machine-count", "0")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "between 1 and 100" in refused.stderr


async def test_a_sync_handler_is_executed_within_a_running_loop() -> None:
    """
    As the document does in a route: there is nothing to await.
    """

    class ListTemplatesQuery(BaseQuery):
        pass

    class Handler:
        def handle(self, query: ListTemplatesQuery) -> list[str]:
            return ["template-1"]

    query_bus = QueryBus()
    query_bus.register_handler(ListTemplatesQuery, Handler())

    assert query_bus.execute(ListTemplatesQuery()) == ["template-1"]
    assert await query_bus.dispatch(ListTemplatesQuery()) == ["template-1"]


async def test_unknown_commands_are_not_found() -> None:
    """
    By dispatch and by execute, with what to do.
    """
    with pytest.raises(HandlerNotFoundError, match="register_handler"):
        await CommandBus().dispatch(GetRequestQuery("x"))
    with pytest.raises(cqrs.HandlerNotFoundError, match="@query_handler"):
        QueryBus().execute(object())
