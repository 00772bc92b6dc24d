"""
Headers and content types of an outboxed event.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from outbox_relay import (
    InvalidHeader,
    Outbox,
)
from outbox_relay.events import RELAY_HEADERS
from tests.unit.test_outbox_encode import Unkeyed, row


def test_headers_of_outbox_and_call() -> None:
    """
    The call adds to the outbox's headers and overrides them; the source is one of them.
    """
    outbox = Outbox(source="/shop", headers={"team": "a", "zone": "x"})
    alone = json.loads(row(Unkeyed(), outbox=outbox)["headers"])
    mixed = json.loads(row(Unkeyed(), outbox=outbox, headers={"team": "b", "ü": "ż"})["headers"])

    assert alone == {"ce_source": "/shop", "team": "a", "zone": "x"}
    assert mixed == {"ce_source": "/shop", "team": "b", "zone": "x", "ü": "ż"}


@pytest.mark.parametrize(
    "headers",
    [
        *({name: "x"} for name in sorted(RELAY_HEADERS)),
        {"Content-Type": "x"},
        {"n": 1},
        {1: "x"},
        {"": "x"},
        {"n": None},
        {"n": "\ud800"},
        {"n": "x" * 60_000},
        {"n": "ü" * 30_000},
    ],
)
def test_headers_that_are_refused(headers: Any) -> None:
    """
    Not text, too many bytes, or the relay's own.
    """
    with pytest.raises(InvalidHeader, match="Unkeyed"):
        row(Unkeyed(), headers=headers)
    with pytest.raises(InvalidHeader):
        Outbox(headers=headers)


@pytest.mark.parametrize("content_type", ["x" * 256, "ü", "a\nb"])
def test_content_types_that_are_refused(content_type: str) -> None:
    """
    It becomes a header of the record.
    """
    with pytest.raises(InvalidHeader):
        row(Unkeyed(), content_type=content_type)
