"""
Where the relay takes hints: a hint is sent, and the relay's own count of them is looked at.

A hint carries nothing and changes nothing: the relay reads a moment sooner.
"""

from __future__ import annotations

import asyncio
import re
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from outbox_relay.config import Config, HttpOptions
from outbox_relay.doctor.facts import WakeFacts
from outbox_relay.wake import HINT, WakeAddress, parse_wake_address

ANSWER_SECONDS: Final = 0.2
COUNT_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 0.05
MOST_BYTES: Final = 4 * 1024 * 1024
_COUNT: Final = re.compile(
    rb'^outbox_relay_hints_total\{kind="received"\} ([0-9.e+]+)$', re.MULTILINE
)
_OURS: Final = re.compile(rb"^outbox_relay_build_info", re.MULTILINE)
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where others listen


async def look_at_wake(config: Config) -> tuple[WakeFacts, ...]:
    """Each address of relay.wake_address."""
    found = []
    for text in config.relay.wake_address.split(","):
        if not text:
            continue
        address = parse_wake_address(text, any_port=True)
        before = await _counted(config.http)
        facts = await _send(address, text.strip())
        if facts.state == "taken" and before is not None:
            grew = await _grows(config.http, before)
            facts = WakeFacts(address=facts.address, state="taken", counted=grew)
        found.append(facts)
    return tuple(found)


async def _send(address: WakeAddress, text: str) -> WakeFacts:
    if address.path:
        return _send_to_socket(address.path, text)
    if not address.port:
        return WakeFacts(address=text, state="unknown", detail="any port")
    try:
        is_taken = await _send_by_udp(address)
    except OSError as error:
        return WakeFacts(address=text, state="unknown", detail=str(error.strerror))
    return WakeFacts(address=text, state="taken" if is_taken else "nobody")


def _send_to_socket(path: str, text: str) -> WakeFacts:
    try:
        is_socket = stat.S_ISSOCK(Path(path).stat().st_mode)
    except FileNotFoundError:
        return WakeFacts(address=text, state="missing")
    except OSError as error:
        return WakeFacts(address=text, state="refused", detail=f"{error.strerror}")
    if not is_socket:
        return WakeFacts(address=text, state="missing", detail="no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        try:
            sender.sendto(HINT, path)
        except BlockingIOError:
            pass  # full of hints: somebody listens
        except PermissionError as error:
            return WakeFacts(address=text, state="refused", detail=f"{error.strerror}")
        except OSError:
            return WakeFacts(address=text, state="nobody")
    return WakeFacts(address=text, state="taken")


async def _send_by_udp(address: WakeAddress) -> bool:
    """False if the machine says that nobody listens; a firewall may swallow that."""
    loop = asyncio.get_running_loop()
    host = _ANYWHERE.get(address.host, address.host)
    async with asyncio.timeout(COUNT_SECONDS):
        found = await loop.getaddrinfo(host, address.port, type=socket.SOCK_DGRAM)
    family, _, _, _, target = found[0]
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.connect(target)
        sender.send(HINT)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await loop.sock_recv(sender, 1)
        except ConnectionRefusedError:
            return False
        except TimeoutError:
            return True
    return True


async def _grows(options: HttpOptions, before: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(COUNT_SECONDS):
            while True:
                now = await _counted(options)
                if now is not None and now > before:
                    return True
                await asyncio.sleep(LOOK_SECONDS)
    return False


async def _counted(options: HttpOptions) -> float | None:
    """How many hints the relay of this configuration has taken; None if nobody says."""
    if not options.enabled or not options.port:
        return None
    host = _ANYWHERE.get(options.host, options.host)
    try:
        async with asyncio.timeout(COUNT_SECONDS):
            text = await _fetch(host, options.port)
    except (OSError, TimeoutError, asyncio.LimitOverrunError, ValueError):
        return None
    found = _COUNT.search(text)
    if found is None:
        return 0.0 if _OURS.search(text) else None
    return float(found.group(1))


async def _fetch(host: str, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET /metrics HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        await writer.drain()
        return await _all(reader)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _all(reader: asyncio.StreamReader) -> bytes:
    found = b""
    while len(found) < MOST_BYTES and (more := await reader.read(65_536)):
        found += more
    return found
