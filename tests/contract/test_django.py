"""
`DjangoOutbox`: rows through Django's own connection, in Django's own transactions.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from outbox_relay import AutocommitHandle, MissingKey, NotificationEvent, Outbox
from outbox_relay.schema import tables
from tests.services.database import Database

from tests.services.django_project import django_database  # isort: skip
from django.db import connections, transaction
from django.db.utils import DatabaseError

from outbox_relay.django import DjangoOutbox

ALIAS = "shop"


class Placed(NotificationEvent, name="order.placed", topic="orders", key="order_id"):
    order_id: int
    note: str = ""


@dataclass
class Project:
    """A Django project's database, and an observer that sees what is committed."""

    engine: sa.Engine
    outbox: Outbox

    def execute(self, statement: str) -> None:
        """One statement of the application, through Django."""
        with connections[ALIAS].cursor() as cursor:
            cursor.execute(statement)

    def committed(self) -> tuple[int, int]:
        """How many rows of the state and of the outbox are committed."""
        with self.engine.connect() as connection:
            count = sa.text("SELECT (SELECT count(*) FROM state), (SELECT count(*) FROM outbox)")
            return tuple(connection.execute(count).one())  # type: ignore[return-value]

    def rows(self) -> list[dict[str, Any]]:
        """All rows, without what differs from row to row."""
        table = self.outbox.table
        with self.engine.connect() as connection:
            found = connection.execute(sa.select(table).order_by(table.c.id)).mappings().all()
        return [
            {name: value for name, value in row.items() if name not in ("id", "created_at")}
            for row in found
        ]


@pytest.fixture(params=["mariadb", "mysql", "postgresql", "sqlite"])
def database(request: pytest.FixtureRequest) -> Database:
    """An empty database of each kind."""
    return request.getfixturevalue(f"{request.param}_database")


@pytest.fixture
def project(database: Database) -> Iterator[Project]:
    """A project whose database *ALIAS* is *database*."""
    engine = sa.create_engine(database.sync_url, poolclass=sa.NullPool)
    tables().metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE state (tag VARCHAR(40))"))
    with django_database(database, ALIAS):
        yield Project(engine, Outbox())
    engine.dispose()


def with_id(event: Placed, number: int) -> Placed:
    """*event* as if it had been made with this id."""
    event._event_id = UUID(int=number)
    return event


def test_rows_are_those_of_outbox_add(project):
    """
    Every column that a writer fills is equal, byte for byte: the same events, written by both.
    """
    outbox = Outbox(source="/shop", headers={"tenant": "blue"})
    calls = [
        ((with_id(Placed(order_id=7), 1), with_id(Placed(order_id=8, note="é" * 500), 2)), {}),
        ((with_id(Placed(order_id=9, note="100 % \\ ' \0"), 3),), {"headers": {"a": "b"}}),
        ((with_id(Placed(order_id=9), 4),), {"key": None, "topic": "other"}),
        ((with_id(Placed(order_id=9), 5),), {"key": b"\x00\xff%s\\'"}),
    ]
    with project.engine.begin() as connection:
        for events, said in calls:
            outbox.add(connection, *events, **said)
    with transaction.atomic(using=ALIAS):
        for events, said in calls:
            DjangoOutbox(outbox).add(*events, using=ALIAS, **said)

    rows = project.rows()
    assert len(rows) == 10
    assert rows[5:] == rows[:5]


def test_other_payloads_and_tombstones(project):
    """
    What is no event class has its own id, and is otherwise the same row.
    """
    outbox = Outbox()
    calls = [
        ({"state": "paid"}, {"name": "order.paid", "topic": "orders", "key": 1}),
        (b"\x00\x01\xff", {"name": "label.printed", "topic": "labels", "key": None}),
        (None, {"name": "order.forgotten", "topic": "orders", "key": UUID(int=5)}),
    ]
    with project.engine.begin() as connection:
        for payload, said in calls:
            outbox.add(connection, payload, **said)
    with transaction.atomic(using=ALIAS):
        for payload, said in calls:
            DjangoOutbox(outbox).add(payload, using=ALIAS, **said)

    rows = [{n: v for n, v in r.items() if n not in ("event_id", "lane")} for r in project.rows()]
    assert rows[3:] == rows[:3]


def test_state_and_event_share_their_fate(project):
    """
    I1. Both are committed with `atomic`, or neither is; also within a SAVEPOINT of it.
    """
    outbox = DjangoOutbox()
    with transaction.atomic(using=ALIAS):
        project.execute("INSERT INTO state VALUES ('kept')")
        outbox.add(Placed(order_id=1), using=ALIAS)
        with pytest.raises(ZeroDivisionError):
            lose(project, outbox, order_id=2)
    with pytest.raises(ZeroDivisionError):
        lose(project, outbox, order_id=3)

    assert project.committed() == (1, 1)
    assert [row["key"] for row in project.rows()] == [b"1"]


@transaction.atomic(using=ALIAS)
def lose(project: Project, outbox: DjangoOutbox, *, order_id: int) -> None:
    """A unit of work that fails at its end."""
    project.execute("INSERT INTO state VALUES ('lost')")
    outbox.add(Placed(order_id=order_id), using=ALIAS)
    raise ZeroDivisionError


def test_autocommit_is_refused(project):
    """
    Outside `atomic` each statement commits by itself: the event is refused, and nothing is written.
    """
    with pytest.raises(AutocommitHandle, match=r"order.placed.*atomic\(using='shop'\)"):
        DjangoOutbox().add(Placed(order_id=1), using=ALIAS)

    assert project.committed() == (0, 0)


def test_a_transaction_by_hand_is_taken(project):
    """
    Where autocommit is off, whoever switched it off commits.
    """
    if connections[ALIAS].vendor == "sqlite":
        return  # Django itself refuses it there
    transaction.set_autocommit(False, using=ALIAS)
    try:
        DjangoOutbox(Outbox(wake="udp:127.0.0.1:9")).add(Placed(order_id=1), using=ALIAS)
        before = project.committed()
        transaction.commit(using=ALIAS)
    finally:
        transaction.set_autocommit(True, using=ALIAS)

    assert before == (0, 0)
    assert project.committed() == (0, 1)


def test_a_refused_event_leaves_the_transaction_as_it_was(project):
    """
    It is refused before anything is written.
    """
    with transaction.atomic(using=ALIAS):
        project.execute("INSERT INTO state VALUES ('kept')")
        with pytest.raises(MissingKey):
            DjangoOutbox().add({"a": 1}, name="a", topic="b", using=ALIAS)

    assert project.committed() == (1, 0)


def test_a_failed_insert_that_is_swallowed_commits_nothing(project):
    """
    I1. The state change is not committed without its event; a SAVEPOINT around the add lets go on.
    """
    broken = DjangoOutbox(Outbox(table="no_such_outbox"))
    with transaction.atomic(using=ALIAS):
        project.execute("INSERT INTO state VALUES ('lost')")
        with pytest.raises(DatabaseError):
            broken.add(Placed(order_id=1), using=ALIAS)
    lost = project.committed()
    with transaction.atomic(using=ALIAS):
        project.execute("INSERT INTO state VALUES ('kept')")
        with pytest.raises(DatabaseError), transaction.atomic(using=ALIAS):
            broken.add(Placed(order_id=1), using=ALIAS)

    assert lost == (0, 0)
    assert project.committed() == (1, 0)


def test_many_events_in_one_call(project):
    """
    More than one statement takes, by its parameters and by its bytes; in their order.
    """
    most = connections[ALIAS].features.max_query_params or 65_535
    statements: list[int] = []

    def count(execute, sql, params, many, context):
        statements.append(len(params or ()))
        return execute(sql, params, many, context)

    with transaction.atomic(using=ALIAS), connections[ALIAS].execute_wrapper(count):
        outbox = DjangoOutbox(Outbox(max_statement_bytes=1_000_000))
        outbox.add(*(Placed(order_id=n) for n in range(5000)), using=ALIAS)

    assert len(statements) > 1
    assert max(statements) <= most
    assert [int(row["key"]) for row in project.rows()] == list(range(5000))


def test_a_hint_follows_the_commit(project, tmp_path):
    """
    One hint after the outermost commit, none after a rollback, and none before.
    """
    path = tmp_path / "wake"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as relay:
        relay.bind(str(path))
        relay.setblocking(False)
        outbox = DjangoOutbox(Outbox(wake=f"unix:{path}"))
        with transaction.atomic(using=ALIAS):
            for number in range(3):
                outbox.add(Placed(order_id=number), using=ALIAS)
            before = _received(relay)
        after_commit = _received(relay)
        with transaction.atomic(using=ALIAS):
            outbox.add(Placed(order_id=4), using=ALIAS)
            transaction.set_rollback(True, using=ALIAS)
        after_rollback = _received(relay)

    assert (before, after_commit, after_rollback) == (0, 1, 0)


def _received(relay: socket.socket) -> int:
    count = 0
    while True:
        try:
            relay.recv(1)
        except BlockingIOError:
            return count
        count += 1
