"""
What importing the write side loads, and what the package offers.
"""

from __future__ import annotations

import subprocess
import sys

import outbox_relay

LOADED = """
import sys
import outbox_relay
from outbox_relay import Outbox, NotificationEvent, ZlibCompressor
heavy = ("aiokafka", "alembic", "starlette", "uvicorn", "typer", "rich", "outbox_relay.relay",
         "outbox_relay.store", "outbox_relay.brokers", "prometheus_client", "structlog")
print([name for name in heavy if name in sys.modules])
"""


def test_the_write_side_loads_neither_kafka_nor_http() -> None:
    """
    An application pays for what it uses: statements, not a relay.
    """
    output = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True
    )

    assert output.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    """
    Names are loaded when first used, so a wrong home would show only then.
    """
    missing = [
        name
        for name in outbox_relay.__all__
        if name != "EventProducer" and not hasattr(outbox_relay, name)
    ]

    assert missing == []
    assert set(outbox_relay.__all__) <= set(dir(outbox_relay))
    assert not hasattr(outbox_relay, "nothing_of_the_kind")
