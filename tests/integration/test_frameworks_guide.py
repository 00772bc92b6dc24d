"""
docs/guide/frameworks.md: its programs run as they stand, in the real frameworks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import httpx
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from outbox_relay.brokers.kafka import KafkaBroker
from outbox_relay.brokers.options import KafkaOptions
from outbox_relay.migrate import check
from outbox_relay.relay.producer import EventProducer
from outbox_relay.store import DatabaseOptions, open_store
from tests.contract.stores import create_tables
from tests.integration.guide_programs import imported, programs
from tests.services.database import Database
from tests.services.kafka import Kafka

from tests.services.django_project import django_database  # isort: skip
from django.db import connection as django_connection
from django.db.migrations.state import ProjectState
from django.test import Client, override_settings

PAGE = "frameworks.md"
SCOPE = ', scope="function"'

Program = Callable[..., ModuleType]


@pytest.fixture(params=["mariadb", "postgresql", "sqlite"])
def database(request: pytest.FixtureRequest) -> Database:
    """An empty database of each kind."""
    return request.getfixturevalue(f"{request.param}_database")


@pytest.fixture
def observer(database: Database) -> Iterator[sa.Engine]:
    """Sees what is committed."""
    engine = sa.create_engine(database.sync_url, poolclass=sa.NullPool)
    yield engine
    engine.dispose()


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Imports a program of the page, with the environment that it reads."""

    def load(name: str, *, text: str | None = None, **environment: str) -> ModuleType:
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)
        return imported(PAGE, name, tmp_path, monkeypatch, text)

    return load


def make_tables(observer: sa.Engine, module: ModuleType) -> None:
    create_tables(observer)
    module.Base.metadata.create_all(observer)


def committed(observer: sa.Engine) -> tuple[int, int]:
    """How many orders, how many events."""
    counts = sa.text("SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM outbox)")
    with observer.connect() as connection:
        orders, events = connection.execute(counts).one()
    return orders, events


class Shop:
    """The FastAPI program, served in this process; what was committed when each answer began."""

    def __init__(self, app: object, observer: sa.Engine) -> None:
        self._app = app
        self._observer = observer
        self.at_answers: list[tuple[int, int]] = []

    async def __call__(self, scope, receive, send) -> None:
        async def seen(message) -> None:
            if message["type"] == "http.response.start":
                self.at_answers.append(await asyncio.to_thread(committed, self._observer))
            await send(message)

        await self._app(scope, receive, seen)

    async def order(self, number: str) -> int:
        """The status of POST /orders."""
        transport = httpx.ASGITransport(self, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            return (await client.post("/orders", params={"number": number})).status_code


def refuse_commits(_session: Session) -> None:
    raise RuntimeError("the commit fails")


async def test_fastapi_commits_before_it_answers(database, observer, program):
    """
    I1. Order and event are there when the answer begins; a handler or commit that fails leaves neither.
    """
    module = program("shop_fastapi", DATABASE_URL=database.async_url)
    make_tables(observer, module)
    shop = Shop(module.app, observer)
    try:
        placed, again = await shop.order("a1"), await shop.order("a1")
        sa.event.listen(Session, "before_commit", refuse_commits)
        refused = await shop.order("a2")
    finally:
        sa.event.remove(Session, "before_commit", refuse_commits)
        await module.engine.dispose()

    assert (placed, again, refused) == (201, 500, 500)
    assert shop.at_answers[0] == (1, 1)
    assert committed(observer) == (1, 1)


async def test_why_fastapi_needs_the_scope(sqlite_database, program):
    """
    Without it the client holds a 201 for what the commit refuses afterwards.
    """
    text = programs(PAGE)["shop_fastapi.py"]
    assert SCOPE in text
    module = program(
        "shop_fastapi", text=text.replace(SCOPE, ""), DATABASE_URL=sqlite_database.async_url
    )
    observer = sa.create_engine(sqlite_database.sync_url, poolclass=sa.NullPool)
    make_tables(observer, module)
    shop = Shop(module.app, observer)
    status = await shop.order("a1")
    await module.engine.dispose()

    assert status == 201
    assert shop.at_answers == [(0, 0)]


def test_flask_commits_both_or_neither(database, observer, program):
    """
    I1. In a scoped session; a request that fails leaves nothing for the next one on its thread.
    """
    module = program("shop_flask", DATABASE_URL=database.sync_url)
    make_tables(observer, module)
    client = module.app.test_client()
    statuses = [
        client.post("/orders", query_string={"number": number}).status_code
        for number in ("a1", "a1", "a2")
    ]
    module.engine.dispose()

    assert statuses == [201, 500, 201]
    assert committed(observer) == (2, 2)


def test_django_commits_both_or_neither(database, observer, program):
    """
    I1. In `atomic`, on Django's own connection; the tables come from Django's own migration.
    """
    with django_database(database):
        migration = program("shop_migration").Migration("0001_outbox", "shop")
        with django_connection.schema_editor(atomic=migration.atomic) as editor:
            migration.apply(ProjectState(), editor)
        module = program("shop_django")
        with django_connection.schema_editor() as editor:
            editor.create_model(module.Order)
        with override_settings(ROOT_URLCONF="shop_django"):
            client = Client(raise_request_exception=False)
            statuses = [
                client.get("/orders", {"number": number}).status_code
                for number in ("a1", "a1", "a2")
            ]
        del module.Order._meta.apps.all_models["shop"]["order"]

    assert statuses == [201, 500, 201]
    assert committed(observer) == (2, 2)
    assert check(DatabaseOptions(url=database.async_url)) == []


async def relay(database: Database, kafka: Kafka) -> None:
    """Publish what waits, as `outbox-relay run` would."""
    options = KafkaOptions(bootstrap_servers=kafka.bootstrap_servers)
    store = open_store(DatabaseOptions(url=database.async_url))
    await EventProducer(store, KafkaBroker(options)).run(until_empty=True)


async def test_faststream_consumes_what_the_relay_publishes(
    sqlite_database, kafka, topic_name, program, monkeypatch
):
    """
    From a real Kafka: each order is billed once, although an event comes twice and a handler fails.
    """
    kafka.create_topic(topic_name)
    module = program(
        "billing_faststream",
        DATABASE_URL=sqlite_database.async_url,
        KAFKA=kafka.bootstrap_servers,
        TOPIC=topic_name,
    )
    observer = sa.create_engine(sqlite_database.sync_url, poolclass=sa.NullPool)
    outbox = create_tables(observer).outbox
    module.Base.metadata.create_all(observer)
    module.inbox.create(observer)
    payloads = [b'{"order_id": %d, "number": "a%d"}' % (n, n) for n in range(3)]
    with observer.begin() as connection:
        for payload in payloads:
            connection.execute(
                outbox.insert().values(event_name="order.placed", topic=topic_name, payload=payload)
            )
        connection.execute(
            outbox.insert().values(event_name="order.lost", topic=topic_name, payload=b'"other"')
        )
    await relay(sqlite_database, kafka)
    with observer.begin() as connection:
        connection.execute(outbox.update().where(outbox.c.id == 2).values(status=0))
        last = {"event_name": "order.placed", "topic": topic_name}
        connection.execute(
            outbox.insert().values(**last, payload=b'{"order_id": 9, "number": "last"}')
        )
    await relay(sqlite_database, kafka)

    numbers = await billed(module, observer)

    assert len(kafka.consume_all(topic_name)) == 6
    assert numbers == ["a0", "a1", "a2", "last"]


async def billed(module: ModuleType, observer: sa.Engine) -> list[str]:
    """The numbers on the invoices, once the last is there; the first handler that runs fails."""
    begin, failures = module.sessions.begin, ["the database is away"]

    def fails_once():
        if failures:
            raise ConnectionError(failures.pop())
        return begin()

    module.sessions.begin = fails_once
    numbers: list[str] = []
    async with module.broker, asyncio.timeout(60):
        await module.broker.start()
        while "last" not in numbers:
            await asyncio.sleep(0.05)
            with observer.connect() as connection:
                found = connection.execute(sa.text("SELECT number FROM invoices ORDER BY id"))
                numbers = list(found.scalars())
    await module.engine.dispose()
    assert failures == []
    return numbers
