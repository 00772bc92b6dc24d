"""RabbitMQ: exchanges and queues are asked for passively, which makes none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection
from contextlib import suppress
from typing import Any, Final

from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity

from outbox_relay.brokers.amqp_client import CONNECTION_ERRORS, AmqpClient, closed
from outbox_relay.brokers.options import AmqpOptions
from outbox_relay.doctor.facts import AmqpFacts
from outbox_relay.doctor.findings import Area, Skipped
from outbox_relay.doctor.look.broker import refused
from outbox_relay.errors import BrokerUnavailable
from outbox_relay.relay.watching import Silent

TOPIC: Final = "{topic}"
CLOSE_SECONDS: Final = 1.0


def places(options: AmqpOptions, topics: Collection[str]) -> tuple[list[str], list[str]]:
    """
    The exchanges that events go to, and the queues of the default exchange, as far as they are known.

    >>> places(AmqpOptions(exchange="events"), ["orders"])
    (['events'], [])
    """
    if options.exchange:
        return sorted({options.exchange.replace(TOPIC, topic) for topic in topics}), []
    if "{event}" in options.routing_key or "{key}" in options.routing_key:
        return [], []
    return [], sorted({options.routing_key.replace(TOPIC, topic) for topic in topics})


async def look_at_amqp(
    options: AmqpOptions, topics: Awaitable[Collection[str]]
) -> tuple[AmqpFacts, list[Skipped]]:
    """Whether it lets us in, and whether what events go to is there."""
    client = AmqpClient(options, Silent())
    try:
        try:
            connection: Any = await client.connected()
        except BrokerUnavailable as error:
            return AmqpFacts(unreachable=refused(error)), []
        used = await topics
        exchanges, queues = places(options, used)
        skipped: list[Skipped] = []
        facts = AmqpFacts(
            exchanges={
                name: await _is_there(connection, "get_exchange", name, skipped)
                for name in exchanges
            },
            queues={
                name: await _is_there(connection, "get_queue", name, skipped) for name in queues
            },
        )
        if used and not queues:
            skipped.append(
                Skipped(
                    area=Area.BROKER,
                    what="which queues the exchanges lead to",
                    needs="rabbitmqctl list_bindings",
                )
            )
        return facts, skipped
    finally:
        with suppress(BrokerUnavailable, *CONNECTION_ERRORS):
            async with asyncio.timeout(CLOSE_SECONDS):
                await closed(await client.connected(), CLOSE_SECONDS)


async def _is_there(connection: Any, method: str, name: str, skipped: list[Skipped]) -> bool:
    # An answer that it is not there closes the channel.
    channel = await connection.channel()
    try:
        await getattr(channel, method)(name, ensure=True)
    except ChannelNotFoundEntity:
        return False
    except ChannelAccessRefused:
        skipped.append(
            Skipped(area=Area.BROKER, what=f"whether {name} is there", needs="a right on it")
        )
    finally:
        with suppress(*CONNECTION_ERRORS):
            await channel.close()
    return True
