"""Redis, asked by INFO."""

from __future__ import annotations

import asyncio
from typing import Any

from outbox_relay.brokers.options import RedisOptions
from outbox_relay.brokers.redis_client import CLIENT_ERRORS, RedisClient
from outbox_relay.doctor.facts import RedisFacts, Unreachable
from outbox_relay.doctor.findings import Area, Skipped
from outbox_relay.doctor.look.broker import refused
from outbox_relay.errors import BrokerUnavailable
from outbox_relay.relay.watching import Silent

CLOSE_SECONDS = 1.0
_SECTIONS = ("replication", "persistence", "memory")


async def look_at_redis(options: RedisOptions) -> tuple[RedisFacts, list[Skipped]]:
    """Its role, its replicas, and whether it keeps what it took."""
    client = RedisClient(options, Silent())
    try:
        async with asyncio.timeout(options.request_timeout_seconds):
            answers = await client.place(None).ask([("INFO", name) for name in _SECTIONS])
    except BrokerUnavailable as error:
        return RedisFacts(unreachable=refused(error)), []
    except CLIENT_ERRORS as error:
        what = f"{client.server} does not answer ({type(error).__name__})"
        away = Unreachable(kind="away", what=what, mend="Start it, or correct redis.url.")
        return RedisFacts(unreachable=away), []
    finally:
        await client.close(CLOSE_SECONDS)
    return facts_of(answers)


def facts_of(answers: list[Any]) -> tuple[RedisFacts, list[Skipped]]:
    """What INFO said; an error of the server stands in the place of its answer."""
    said: dict[str, str] = {}
    for answer in answers:
        if isinstance(answer, BaseException):
            if "NOAUTH" in str(answer):
                away = Unreachable(
                    kind="login",
                    what=str(answer),
                    mend="Name user and password in redis.url, or redis.password_file.",
                )
                return RedisFacts(unreachable=away), []
            continue
        text = answer.decode() if isinstance(answer, bytes) else str(answer)
        lines = (line.partition(":") for line in text.splitlines() if ":" in line)
        said |= {name: value for name, _, value in lines}
    if not said:
        needs = "the right to INFO (ACL SETUSER relay +info)"
        return RedisFacts(), [Skipped(area=Area.BROKER, what="role and durability", needs=needs)]
    return (
        RedisFacts(
            role=said.get("role"),
            replicas=int(said["connected_slaves"]) if "connected_slaves" in said else None,
            has_log=said["aof_enabled"] == "1" if "aof_enabled" in said else None,
            policy=said.get("maxmemory_policy"),
            max_memory=int(said["maxmemory"]) if "maxmemory" in said else None,
        ),
        [],
    )
