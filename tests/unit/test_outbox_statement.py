"""
`Outbox` itself: statements, handles that it refuses, settings that it refuses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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
