"""Why nobody answers at an address: no such name, nobody listens, or somebody who speaks another language."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Final

REACH_SECONDS: Final = 2.0
MOST_SERVERS: Final = 5

TAKES: Final = (
    "takes the connection and does not answer as asked: another security_protocol, or it hangs"
)


async def reach(servers: str, *, port: int) -> str:
    """What becomes of a connection to each of *servers*, `host:port` with commas; one line."""
    named = [server.strip() for server in servers.split(",") if server.strip()][:MOST_SERVERS]
    answers = await asyncio.gather(*(_one(*_parts(server, port)) for server in named))
    by_answer: dict[str, list[str]] = {}
    for server, answer in zip(named, answers, strict=True):
        by_answer.setdefault(answer, []).append(server)
    return "; ".join(f"{', '.join(some)}: {answer}" for answer, some in by_answer.items())


def _parts(server: str, port: int) -> tuple[str, int]:
    """
    Host and port.

    >>> _parts("kafka", 9092), _parts("[::1]:9093", 9092)
    (('kafka', 9092), ('::1', 9093))
    """
    host, colon, number = server.rpartition(":")
    if not colon or not number.isdigit():
        host, number = server, str(port)
    return host.strip("[]"), int(number)


async def _one(host: str, port: int) -> str:
    try:
        async with asyncio.timeout(REACH_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return f"no answer within {REACH_SECONDS:g} s: a firewall, or the machine is away"
    except socket.gaierror:
        return "there is no such name"
    except ConnectionRefusedError:
        return "nobody listens there"
    except OSError as error:
        return os.strerror(error.errno) if error.errno else type(error).__name__
    writer.close()
    return TAKES
