"""
A connection to the database that cannot be had is an outage, whatever the driver says.
"""

from __future__ import annotations

from typing import Any

import pytest

from outbox_relay.errors import StoreUnavailable
from outbox_relay.store.channel import Channel


class NoConnection:
    """An engine whose driver raises *error* instead of connecting."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def connect(self) -> Any:
        raise self._error


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
    channel = Channel(
        NoConnection(error),
        session=(),
        timeout_seconds=1,
        connect_timeout_seconds=1,
        no_such_table=(),
        on_connect=lambda _: None,
    )

    with pytest.raises(StoreUnavailable, match=str(error)):
        await channel.execute("SELECT 1")
