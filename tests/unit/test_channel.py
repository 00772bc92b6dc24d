"""
A connection to the database that cannot be had is an outage, whatever the driver says.
"""

from __future__ import annotations

from typing import Any

import pytest

from outbox_relay.errors import ServerReadOnly, StoreUnavailable
from outbox_relay.store.channel import Channel


class NoConnection:
    """An engine whose driver raises *error* instead of connecting."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def connect(self) -> Any:
        raise self._error


async def nothing(_connection: object) -> None:
    pass


def channel_of(engine: Any, **more: Any) -> Channel:
    return Channel(
        engine,
        session=(),
        timeout_seconds=1,
        connect_timeout_seconds=1,
        no_such_table=(),
        on_connect=nothing,
        **more,
    )


@pytest.mark.parametrize(
    "error",
    [
        OSError("refused"),
        # asyncmy, where the server has closed the connection before it is set up.
        RuntimeError("Transport does not expose socket instance"),
        EOFError("0 bytes read"),
    ],
)
async def test_a_connection_that_fails_in_whatever_way_is_tried_again(error: Exception) -> None:
    """
    I8. The relay waits for its database; no error of a driver ends it.
    """
    channel = channel_of(NoConnection(error))

    with pytest.raises(StoreUnavailable, match=str(error)):
        await channel.execute("SELECT 1")


class Answering:
    """An engine whose connection does what it is told to."""

    def __init__(self) -> None:
        self.say: Exception | None = None

    async def connect(self) -> Answering:
        return self

    async def exec_driver_sql(self, _sql: str, _parameters: object = ()) -> Any:
        if self.say is not None:
            raise self.say
        return type("Result", (), {"returns_rows": False, "rowcount": 0})()

    async def invalidate(self) -> None:
        pass

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError("broken pipe"), "error"),
        (TimeoutError(), "timeout"),
        (ServerReadOnly("a standby"), "server"),
    ],
    ids=["error", "timeout", "server"],
)
async def test_connections_that_are_lost_are_counted_by_reason(
    error: Exception, reason: str
) -> None:
    """
    Each that is given up because of an error, and each that could not be had; not those that are let go.
    """
    engine, lost = Answering(), []
    channel = channel_of(engine, on_lost=lost.append)
    await channel.execute("SELECT 1")
    engine.say = error
    with pytest.raises(StoreUnavailable):
        await channel.execute("SELECT 1")
    engine.say = None
    await channel.execute("SELECT 1")
    channel.let_go()
    await channel.execute("SELECT 1")
    await channel.reconnect()
    await channel.close()

    assert lost == [reason]


async def test_a_connection_that_cannot_be_had_is_counted() -> None:
    """
    It was never there: the reason is another one.
    """
    lost: list[str] = []
    channel = channel_of(NoConnection(OSError("refused")), on_lost=lost.append)
    with pytest.raises(StoreUnavailable):
        await channel.execute("SELECT 1")

    assert lost == ["connect"]
