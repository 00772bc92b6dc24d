"""
`Outboxed`, `MemoryRelay` and `crash_at`: what tests of applications are told.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from outbox_relay import NotificationEvent, Outbox, OutboxRelayError
from outbox_relay.relay.outcomes import Rejected, RejectReason
from outbox_relay.schema import tables
from outbox_relay.testing import (
    Crashed,
    MemoryRelay,
    NotDrained,
    Outboxed,
    crash_at,
    memory_broker,
)

ROOT = Path(__file__).resolve().parents[2]


class Placed(NotificationEvent, name="order.placed", topic="orders", key="n"):
    n: int
    note: str = ""


@pytest.fixture
def engine(sqlite_database) -> Iterator[sa.Engine]:
    """A database with the tables; transactions begin when they say so, for SAVEPOINTs."""
    engine = sa.create_engine(sqlite_database.sync_url)
    tables().metadata.create_all(engine)
    begin_for_real(engine)
    yield engine
    engine.dispose()


@pytest.fixture
async def async_engine(engine, sqlite_database) -> AsyncIterator[AsyncEngine]:
    """The same database, async."""
    made = create_async_engine(sqlite_database.async_url)
    begin_for_real(made.sync_engine)
    yield made
    await made.dispose()


def begin_for_real(engine: sa.Engine) -> None:
    """SQLAlchemy's recipe for SAVEPOINTs on SQLite."""
    engine.dispose()
    sa.event.listen(engine, "connect", lambda raw, _: setattr(raw, "isolation_level", None))
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))


@pytest.fixture
def outboxed() -> Iterator[Outboxed]:
    with Outboxed() as recorded:
        yield recorded


def numbers(outboxed: Outboxed) -> list[int]:
    return [placed.n for placed in outboxed.of(Placed)]


def committed_rows(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return connection.scalar(sa.text("SELECT count(*) FROM outbox"))


def test_a_row_that_cannot_be_read_is_seen_as_it_is(engine, outboxed):
    """
    What is watched works as without: an INSERT by hand of whatever bytes does not fail.
    """
    row = {
        "event_name": "odd",
        "topic": "t",
        "payload": b"no zlib",
        "codec": 1,
        "headers": "no JSON",
    }
    with engine.begin() as connection:
        connection.execute(sa.insert(tables().outbox), row)

    assert [(event.value, event.headers) for event in outboxed] == [(b"no zlib", {})]
    assert committed_rows(engine) == 1


async def test_every_handle_and_statement_is_seen(engine, async_engine, outboxed):
    """
    add and insert, one event or several, sync and async, in the order in which they were executed.
    """
    outbox = Outbox(table="outbox")
    with engine.begin() as connection:
        outbox.add(connection, Placed(n=1))
        connection.execute(outbox.insert(Placed(n=2)))
        connection.execute(outbox.insert(*(Placed(n=n) for n in range(3, 15))))
    with Session(engine) as session:
        outbox.add(session, Placed(n=15), Placed(n=16))
        session.commit()
    async with async_engine.begin() as connection:
        await outbox.add(connection, Placed(n=17))
        await connection.execute(outbox.insert(Placed(n=18)))
    async with AsyncSession(async_engine) as session:
        await outbox.add(session, Placed(n=19))
        await session.commit()

    assert numbers(outboxed) == list(range(1, 20))
    assert len(outboxed.committed()) == 19


def test_what_was_written_is_what_was_said(engine, outboxed):
    """
    Payloads come back as they were given, also stored compressed; ids are those of the events.
    """
    outbox = Outbox(source="/shop")
    event = Placed(n=1, note="é" * 500)
    with engine.begin() as connection:
        outbox.add(connection, event, headers={"tenant": "blue"})
        outbox.add(connection, b"\x00\xff", name="label", topic="labels", key=None)
        outbox.add(connection, "text", name="said", topic="words", key="k")
        outbox.add(connection, None, name="gone", topic="orders", key=1)
        row = {"event_name": "plain", "topic": "t", "payload": b"[1]"}
        connection.execute(sa.insert(outbox.table).values(**row))

    placed, label, said, gone, plain = outboxed
    assert (placed.event_id, placed.payload) == (event.event_id, {"n": 1, "note": "é" * 500})
    assert placed.headers == {"ce_source": "/shop", "tenant": "blue"}
    assert outboxed.of(Placed)[0].event_id == event.event_id
    assert [label.payload, said.payload, gone.payload, plain.payload] == [
        b"\x00\xff",
        "text",
        None,
        [1],
    ]
    assert (label.key, said.key, gone.value) == (None, b"k", None)
    assert outboxed.named("plain") == [plain]


def test_rollbacks_take_away_what_they_cover(engine, outboxed):
    """
    Of the transaction, of a SAVEPOINT and those within it, and of what nobody ended.
    """
    outbox = Outbox()
    with Session(engine) as session:
        outbox.add(session, Placed(n=1))
        with session.begin_nested() as outer:
            outbox.add(session, Placed(n=2))
            with session.begin_nested():
                outbox.add(session, Placed(n=3))
            outer.rollback()
        with session.begin_nested():
            outbox.add(session, Placed(n=4))
        session.commit()
        outbox.add(session, Placed(n=5))
        session.rollback()
    connection = engine.connect()
    outbox.add(connection, Placed(n=6))
    connection.close()
    with engine.connect() as connection:
        outbox.add(connection, Placed(n=7))
        connection.rollback()
        outbox.add(connection, Placed(n=8))
        connection.commit()

    assert numbers(outboxed) == [1, 4, 8]
    assert committed_rows(engine) == 3


def test_within_a_transaction_that_the_test_rolls_back(engine, outboxed):
    """
    What the application commits into a transaction of the test is seen; nothing is really committed.
    """
    outbox = Outbox()
    with engine.connect() as connection:
        outer = connection.begin()
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            outbox.add(session, Placed(n=1))
            session.commit()
            outbox.add(session, Placed(n=2))
            session.rollback()
        seen = numbers(outboxed)
        outer.rollback()

    assert seen == [1]
    assert outboxed.committed() == []
    assert committed_rows(engine) == 0


async def test_a_commit_that_fails_has_committed_nothing(async_engine, engine, outboxed):
    """
    Also when the write side itself refuses it, since an add was never awaited.
    """
    outbox = Outbox()
    connection = await async_engine.connect()
    await outbox.add(connection, Placed(n=1))
    pending = outbox.add(connection, Placed(n=2))
    with pytest.raises(OutboxRelayError, match="not awaited"):
        await connection.commit()
    await connection.close()
    with pytest.warns(RuntimeWarning, match="never awaited"):
        del pending

    assert numbers(outboxed) == []
    assert committed_rows(engine) == 0


def test_only_while_it_is_entered(engine):
    """
    What another test wrote is not this one's; two at once are refused.
    """
    outbox = Outbox()
    with Outboxed() as first, engine.begin() as connection:
        outbox.add(connection, Placed(n=1))
        with pytest.raises(RuntimeError, match="one `outboxed` at a time"):
            Outboxed().__enter__()
    with Outboxed() as second:
        pass
    with engine.begin() as connection:
        outbox.add(connection, Placed(n=2))
    first.clear()

    assert (len(first), len(second)) == (0, 0)
    assert repr(second) == "<outboxed: nothing>"


def test_the_relay_keeps_order_and_repeats_nothing(engine, outboxed):
    """
    I4, I6. Each call relays what is new; keys keep their order; headers are those of production.
    """
    outbox, broker = Outbox(), memory_broker({"orders": 3})
    relay = MemoryRelay(outboxed, broker)
    with engine.begin() as connection:
        outbox.add(connection, *(Placed(n=n % 4) for n in range(40)))
        outbox.add(connection, None, name="gone", topic="orders", key=1)
    first = relay()
    with engine.begin() as connection:
        outbox.add(connection, Placed(n=9))
        connection.rollback()
    second = relay()

    by_key: dict[bytes, list[int]] = {}
    for published in first:
        by_key.setdefault(published.record.key, []).append(published.seq)
    assert len(first) == 41
    assert all(seqs == sorted(seqs) for seqs in by_key.values())
    assert first[-1].record.value is None or None in broker.values("orders")
    assert second == []


def test_what_the_broker_refuses_is_a_dead_letter(engine, outboxed):
    """
    With the reason, and the others go on.
    """
    outbox, broker = Outbox(), memory_broker()
    relay = MemoryRelay(outboxed, broker)
    refused = Rejected(reason=RejectReason.INVALID_RECORD, detail="no such field")
    broker.answer = lambda topic, *_: refused if topic == "bad" else None
    with engine.begin() as connection:
        outbox.add(connection, Placed(n=1), topic="bad")
        outbox.add(connection, Placed(n=2))
    published = relay()

    [(event, reason)] = relay.dead_letters()
    assert [p.topic for p in published] == ["orders"]
    assert event.topic == "bad"
    assert "no such field" in reason


def test_a_missing_topic_is_told(engine, outboxed):
    """
    With create_topics=False its events wait, and the call says which.
    """
    relay = MemoryRelay(outboxed, memory_broker())
    with engine.begin() as connection:
        Outbox().add(connection, Placed(n=1))

    with pytest.raises(NotDrained, match=r"order\.placed for topic orders"):
        relay(seconds=5, create_topics=False)


def test_crash_points_leave_transactions_without_events_alone(engine, outboxed):
    """
    Only a commit with an event in it crashes; outside the block nothing does.
    """
    with crash_at("before_commit"):
        with engine.begin() as connection:
            connection.execute(sa.text("CREATE TABLE state (tag TEXT)"))
        with pytest.raises(Crashed, match="before_commit"), engine.begin() as connection:
            Outbox().add(connection, Placed(n=1))
    with engine.begin() as connection:
        Outbox().add(connection, Placed(n=2))

    assert numbers(outboxed) == [2]
    assert committed_rows(engine) == 1


async def test_an_async_application_crashes_too(engine, async_engine, outboxed):
    """
    After the commit, past every `except Exception`, and what was committed stays.
    """

    async def place() -> None:
        try:
            async with AsyncSession(async_engine) as session, session.begin():
                await Outbox().add(session, Placed(n=1))
        except Exception as error:  # noqa: BLE001 - what an application might do
            pytest.fail(f"hidden: {error}")

    with crash_at("after_commit"), pytest.raises(Crashed):
        await place()

    assert [event.payload["n"] for event in outboxed.committed()] == [1]
    assert committed_rows(engine) == 1


def test_after_the_ack_the_event_comes_again(engine, outboxed):
    """
    I3, I6. The relay that died had not marked it; the next one publishes it once more, and no other.
    """
    relay = MemoryRelay(outboxed, memory_broker())
    with engine.begin() as connection:
        Outbox().add(connection, Placed(n=1))
    with crash_at("after_ack"), pytest.raises(Crashed):
        relay()
    again, then = relay(), relay()

    assert (len(again), len(then)) == (1, 0)


def test_a_crash_point_is_one_of_three():
    """
    A wrong name, and one that is on already, are refused.
    """
    with pytest.raises(ValueError, match="choose of before_commit"):
        crash_at("sometime").__enter__()
    with crash_at("after_ack"), pytest.raises(RuntimeError, match="is on already"):
        crash_at("after_ack").__enter__()


@pytest.mark.parametrize(("point", "left"), [("before_commit", 0), ("after_commit", 1)])
def test_kill_ends_the_process(engine, sqlite_database, point, left):
    """
    With SIGKILL: no exception, no farewell.
    """
    program = f"""
import sqlalchemy as sa
from outbox_relay import Outbox
from outbox_relay.testing import crash_at
with crash_at({point!r}, kill=True):
    with sa.create_engine({sqlite_database.sync_url!r}).begin() as connection:
        Outbox().add(connection, {{}}, name="a", topic="b", key=None)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)

    assert done.returncode == -signal.SIGKILL
    assert committed_rows(engine) == left


def test_pytest_is_needed_by_the_plugin_alone():
    """
    `outbox_relay.testing` works where pytest is not installed.
    """
    program = "import sys, outbox_relay.testing; print('pytest' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "False"
