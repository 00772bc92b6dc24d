"""
`Outbox` itself: statements, handles that it refuses, settings that it refuses.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from outbox_relay import ECSTEvent, EventTooLarge, Outbox
from outbox_relay.schema import Codec


class Unkeyed(ECSTEvent, topic="states", key=None):
    text: str = ""


def test_insert_refuses_more_than_one_statement_holds() -> None:
    """
    `insert` cannot split; the error names the first event that does not fit.
    """
    outbox = Outbox(compressor=None, max_statement_bytes=2_000)
    events = [Unkeyed(text="x" * 500) for _ in range(4)]
    with pytest.raises(EventTooLarge, match=str(events[2].event_id)):
        outbox.insert(*events)
    with pytest.raises(EventTooLarge, match="max_statement_bytes"):
        outbox.insert(Unkeyed(text="x" * 2_000))


def test_several_events_are_one_statement_in_their_order() -> None:
    """
    One multi-row INSERT, so that ids follow the arguments.
    """
    events = [Unkeyed(text=str(number)) for number in range(3)]
    params = Outbox().insert(*events).compile().params

    assert [params[f"event_id_m{number}"] for number in range(3)] == [e.event_id for e in events]


@pytest.fixture
def connection() -> Iterator[sa.Connection]:
    engine = sa.create_engine("sqlite://")
    with engine.begin() as opened:
        Outbox().table.metadata.create_all(opened)
        yield opened
    engine.dispose()


def names(connection: sa.Connection) -> list[str]:
    return list(connection.execute(sa.text("SELECT event_name FROM outbox ORDER BY id")).scalars())


def executed(connection: sa.Connection) -> list[tuple[str, Any]]:
    """What is executed from now on, as the driver gets it."""
    seen: list[tuple[str, Any]] = []

    @sa.event.listens_for(connection, "before_cursor_execute")
    def note(_: Any, __: Any, sql: str, parameters: Any, *others: Any) -> None:
        seen.append((sql, parameters))

    return seen


def test_insert_gives_an_ordinary_statement(connection: sa.Connection) -> None:
    """
    It may be compiled, printed, extended and executed more than once, in any order.
    """
    outbox = Outbox()
    statement = outbox.insert({"n": 1}, name="first", topic="t", key=None)

    assert statement.compile().params["event_name"] == "first"
    assert "INSERT INTO outbox" in str(statement)
    assert connection.execute(statement).inserted_primary_key == (1,)
    assert connection.execute(statement.returning(outbox.table.c.event_name)).scalar() == "first"
    assert connection.execute(statement.values(event_name="second").prefix_with("OR FAIL")).rowcount
    assert names(connection) == ["first", "first", "second"]


def test_a_copy_of_a_statement_is_executed_with_what_was_added(connection: sa.Connection) -> None:
    """
    Also when its original is gone, and it may stand where that stood.
    """
    outbox = Outbox()
    for _ in range(50):
        statement = outbox.insert({"n": 1}, name="first", topic="t", key=None)
        statement = statement.values(event_name="second")
        statement = statement.prefix_with("OR FAIL")
        connection.execute(statement)

    assert names(connection) == ["second"] * 50


def test_an_executed_statement_and_its_compiled_form_say_the_same(
    connection: sa.Connection,
) -> None:
    """
    What goes as parameters is what the statement holds.
    """
    seen = executed(connection)
    statement = Outbox(source="/shop").insert({"n": 1}, name="first", topic="t", key="k")
    connection.execute(statement)
    connection.execute(statement.execution_options(extended=True))

    assert seen[0] == seen[1]


def test_parameters_of_the_caller_go_before(connection: sa.Connection) -> None:
    """
    As with any statement that holds values.
    """
    statement = Outbox().insert({"n": 1}, name="first", topic="t", key=None)
    connection.execute(statement, {"event_name": "second"})

    assert names(connection) == ["second"]


def test_no_event_is_an_error() -> None:
    """
    An empty INSERT would be a row of defaults.
    """
    with pytest.raises(TypeError, match="at least one"):
        Outbox().insert()


@pytest.mark.parametrize("handle", [None, "session", object(), Path()])
def test_other_handles_are_refused(handle: Any) -> None:
    """
    The error says what to pass.
    """
    with pytest.raises(TypeError, match=r"Session, AsyncSession, Connection or AsyncConnection"):
        Outbox().add(handle, Unkeyed())


class Zstd:
    codec = Codec.ZSTD

    def compress(self, data: bytes) -> bytes:
        return data


def test_settings_that_no_relay_could_serve_are_refused() -> None:
    """
    At construction, once, not at each event.
    """
    with pytest.raises(ValueError, match="ZlibCompressor"):
        Outbox(compressor=Zstd())
    with pytest.raises(ValueError, match="source"):
        Outbox(source="")
    with pytest.raises(ValueError, match="cannot name a table"):
        Outbox(table="out box")
