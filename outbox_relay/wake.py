"""
Hints: an empty datagram that says "there are new events". Whoever gets it reads at once.

A hint carries nothing, and nothing depends on it: a lost one costs the relay's next poll. So sending
never waits and never raises. Relays pass hints on to one another with one byte in them, so that
none goes round in circles.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import threading
import time
from dataclasses import dataclass
from typing import Final

HINT: Final = b""
PASSED_ON: Final = b"\x01"

LOOK_UP_SECONDS: Final = 30.0
"""How long the address of a host name is used before it is looked up again."""

MAX_WAKE_ADDRESS_CHARS: Final = 255
"""What the lease's row holds."""

_LONGEST_PATH_BYTES: Final = 107
_NOT_OURS: Final = frozenset(
    {errno.EBADF, errno.ENOTSOCK, errno.EISCONN, errno.EOPNOTSUPP, errno.EAFNOSUPPORT}
)
_FORM: Final = "use unix:/path/of/the/socket or udp:host:port"


@dataclass(frozen=True, slots=True)
class WakeAddress:
    """Where hints go: a socket's path, or a host and a port."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return (
            f"udp:[{self.host}]:{self.port}" if ":" in self.host else f"udp:{self.host}:{self.port}"
        )


def parse_wake_address(text: str, *, any_port: bool = False) -> WakeAddress:
    """
    The address that *text* writes. Raises ValueError that says what is wrong with it.

    >>> str(parse_wake_address("udp:127.0.0.1:9466"))
    'udp:127.0.0.1:9466'
    """
    kind, _, rest = text.strip().partition(":")
    if kind == "unix":
        if not rest.startswith("/") or "\0" in rest:
            raise ValueError(f"{text!r}: the path of a socket begins with /: {_FORM}")
        if len(rest.encode()) > _LONGEST_PATH_BYTES:
            raise ValueError(
                f"{text!r}: the path of a socket has {_LONGEST_PATH_BYTES} bytes at most"
            )
        return WakeAddress(path=rest)
    host, _, port = rest.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if kind != "udp" or not host or not (port.isascii() and port.isdecimal()):
        raise ValueError(f"{text!r} is no address of a relay: {_FORM}")
    if not (0 if any_port else 1) <= int(port) <= 65_535:
        raise ValueError(f"{text!r}: a port is from 1 to 65535")
    if len(text) > MAX_WAKE_ADDRESS_CHARS:
        raise ValueError(f"{text!r} has more than {MAX_WAKE_ADDRESS_CHARS} characters")
    return WakeAddress(host=host, port=int(port))


class Sender:
    """
    Sends hints to one address: from any thread, after a fork, with or without an event loop.

    A host name is looked up by a thread of its own, never by whoever sends; hints until then are
    lost. A path is opened anew with each hint, so a relay that starts again is found.
    """

    def __init__(self, address: WakeAddress) -> None:
        self.address = address
        self._socket: socket.socket | None = None
        self._family: int = getattr(socket, "AF_UNIX", socket.AF_INET)
        self._target: str | tuple[str, int] | None = address.path or None
        self._look_up_at = float("inf")
        if not address.path:
            try:
                version = ipaddress.ip_address(address.host).version
            except ValueError:
                self._look_up_at = 0.0
            else:
                self._family = socket.AF_INET6 if version == 6 else socket.AF_INET
                self._target = (address.host, address.port)

    def send(self, content: bytes = HINT) -> None:
        """Send one. Never raises, never waits: the transaction has committed, all else can wait."""
        try:
            if self._look_up_at <= time.monotonic():
                self._begin_to_look_up()
            target = self._target
            if target is not None:
                (self._socket or self._open()).sendto(content, target)
        except BlockingIOError:
            pass  # the relay's buffer is full of hints: it will read anyway
        except OSError as error:
            # No relay there, or no right to write to it.
            if error.errno in _NOT_OURS:
                self._forget_socket()
        except Exception:  # noqa: BLE001 - a hint must not fail what is already committed
            self._forget_socket()

    def close(self) -> None:
        """Let go of the socket; a later hint opens another."""
        open_socket, self._socket = self._socket, None
        if open_socket is not None:
            open_socket.close()

    def _forget_socket(self) -> None:
        lost, self._socket = self._socket, None
        if lost is not None:
            # A daemon that closed all its files has closed ours. By now the number may be another
            # file's, which must not be closed.
            lost.detach()

    def _open(self) -> socket.socket:
        made = socket.socket(self._family, socket.SOCK_DGRAM)
        made.setblocking(False)
        self._socket = made
        return made

    def _begin_to_look_up(self) -> None:
        self._look_up_at = time.monotonic() + LOOK_UP_SECONDS
        threading.Thread(target=self._look_up, name="outbox-relay-look-up", daemon=True).start()

    def _look_up(self) -> None:
        try:
            found = socket.getaddrinfo(self.address.host, self.address.port, type=socket.SOCK_DGRAM)
        except OSError:
            return  # the last known address stays; asked again after a while
        family, _, _, _, target = found[0]
        if family != self._family:
            self._socket = None
            self._family = family
        self._target = (str(target[0]), self.address.port)
