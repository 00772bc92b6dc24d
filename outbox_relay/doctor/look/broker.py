"""The broker that is chosen. Its client library alone is loaded."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
from collections.abc import Awaitable, Collection
from pathlib import Path
from typing import Final

from outbox_relay.brokers.options import JsonlOptions
from outbox_relay.config import Config
from outbox_relay.doctor.facts import BrokerFacts, JsonlFacts, KafkaFacts, Unreachable
from outbox_relay.doctor.findings import Skipped
from outbox_relay.errors import BrokerUnavailable, CredentialsError

LEAST_BYTES: Final = 64 * 1024 * 1024
_LOGIN_WORDS: Final = (
    "authentication",
    "access_refused",
    "wrongpass",
    "noauth",
    "login was refused",
)


def refused(error: BrokerUnavailable) -> Unreachable:
    """What a client of ours said when nobody let it in."""
    what, _, mend = str(error).partition(": start it")
    cause = error.__cause__
    text = f"{type(cause).__name__} {what}".lower()
    is_login = isinstance(cause, (CredentialsError, ssl.SSLError))
    if is_login or any(word in text for word in _LOGIN_WORDS):
        return Unreachable(
            kind="login", what=what, mend="Correct user and password, and what the server asks for."
        )
    advice = f"Start it{mend}." if mend else "Start it, or correct its address."
    return Unreachable(kind="away", what=what, mend=advice)


async def look_at_broker(
    config: Config, topics: asyncio.Future[Collection[str]]
) -> tuple[BrokerFacts, list[Skipped]]:
    """The broker; *topics* are known a moment later, from the database."""
    match config.broker.section:
        case "kafka":
            return await _kafka(config, topics)
        case "amqp":
            from outbox_relay.doctor.look.amqp import look_at_amqp  # noqa: PLC0415

            return await look_at_amqp(config.amqp, topics)
        case "redis":
            from outbox_relay.doctor.look.redis import look_at_redis  # noqa: PLC0415

            return await look_at_redis(config.redis)
    return look_at_jsonl(config.jsonl), []


async def _kafka(
    config: Config, topics: Awaitable[Collection[str]]
) -> tuple[BrokerFacts, list[Skipped]]:
    from outbox_relay.doctor.look.kafka import KafkaLook  # noqa: PLC0415

    look = KafkaLook(config.kafka)
    try:
        away = await look.connect()
        if away is not None:
            return KafkaFacts(unreachable=away), []
        return await look.look(await topics), look.skipped
    finally:
        await look.close()


def look_at_jsonl(options: JsonlOptions) -> JsonlFacts:
    """Whether the file can be appended to. Does not open it."""
    if options.path == "-":
        return JsonlFacts()
    path = Path(options.path)
    target = path if path.exists() else path.parent
    if not os.access(target, os.W_OK):
        return JsonlFacts(problem=f"{target} may not be written")
    free = shutil.disk_usage(target).free
    if free < LEAST_BYTES:
        return JsonlFacts(problem=f"the disk has {free // 1024} KiB left")
    return JsonlFacts()
