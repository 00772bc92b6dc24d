"""
docs/guide/consuming.md: its examples run as they stand.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import sqlite3
from pathlib import Path

import pytest

from outbox_relay.consumer import Delivery, KafkaSource
from outbox_relay.consumer.source import Process
from tests.pages import texts

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "consuming.md"


def delivery(offset: int, order_id: int, name: str = "order.placed") -> Delivery:
    """An order, as the relay publishes it."""
    headers = {"ce_specversion": "1.0", "ce_id": f"order-{order_id}", "ce_type": name}
    return Delivery(
        topic="orders",
        partition=0,
        offset=offset,
        key=b"%d" % order_id,
        value=b'{"order_id": %d, "total": 42}' % order_id,
        headers=tuple((header, value.encode()) for header, value in headers.items()),
    )


async def test_the_guides_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Every Python block, in their order, on an empty SQLite file. Kafka delivers three events, one of
    them twice, and one that nobody handles.
    """

    async def deliver(
        source: KafkaSource, process: Process, stopping: asyncio.Event, stop_seconds: float
    ) -> None:
        for message in (
            delivery(0, 1),
            delivery(1, 2),
            delivery(2, 1),
            delivery(3, 3, "order.paid"),
        ):
            assert await process(message, stopping)

    monkeypatch.setattr(KafkaSource, "run", deliver)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "guide"}
    for block in texts(GUIDE, "python"):
        code = compile(block, str(GUIDE), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        result = eval(code, names)
        if inspect.iscoroutine(result):
            await result
    await names["engine"].dispose()  # type: ignore[attr-defined]

    with sqlite3.connect("billing.db") as connection:
        invoices = connection.execute("SELECT order_id FROM invoices ORDER BY id").fetchall()

    printed = [
        line
        for line in capsys.readouterr().out.splitlines()
        if not re.match(r"\d{4}-", line)  # a log line
    ]
    assert invoices == [(1,), (2,)]
    assert printed == [
        "sent order_id=1 total=42",
        "sent order_id=2 total=42",
        "sent order_id=1 total=42",
        "True",
        "False",
        "0",
        "2",
    ]
