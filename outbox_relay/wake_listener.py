"""The `Wake` port over sockets: takes hints in, and passes them on to other relays."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from outbox_relay.errors import ConfigError
from outbox_relay.relay.ports import Observer
from outbox_relay.relay.watching import Silent
from outbox_relay.wake import HINT, PASSED_ON, Sender, WakeAddress, parse_wake_address

MOST_AT_ONCE: Final = 500
"""Datagrams taken before others on the loop have their turn."""

MOST_SENDERS: Final = 64
"""As many owners as there are lanes; the senders of owners that are gone go with them."""

ANYBODY: Final = 0o666
"""Mode of the socket's file: it carries nothing, and its folder says who reaches it."""

_NOWHERE: Final = {socket.AF_INET: ("192.0.2.1", 9), socket.AF_INET6: ("2001:db8::1", 9)}


class WakeListener:
    """
    Listens on each address of *listen*, from now on until `close`.

    A socket's file that a dead relay left behind is replaced. Raises ConfigError if another relay
    listens on it, or if an address cannot be taken.
    """

    def __init__(
        self, listen: str, *, published: str = "", observer: Observer | None = None
    ) -> None:
        self._observer = observer or Silent()
        self._files: list[tuple[Path, int]] = []
        self._sockets: list[socket.socket] = []
        self._senders: dict[str, Sender] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        found = [""]
        try:
            for part in listen.split(","):
                address = parse_wake_address(part, any_port=True)
                found.append("" if self._open(address).path else _reachable(self._sockets[-1]))
        except ConfigError:
            self.close()
            raise
        self.address = published or max(found, key=bool)

    @property
    def addresses(self) -> list[str]:
        """Where it listens, with the ports that the system chose."""
        names = [made.getsockname() for made in self._sockets]
        return [
            str(WakeAddress(path=name) if isinstance(name, str) else _address(name))
            for name in names
        ]

    def start(self, received: Callable[[bool], None]) -> None:
        """See Wake."""
        self._loop = asyncio.get_running_loop()
        for made in self._sockets:
            self._loop.add_reader(made.fileno(), self._take, made, received)

    def pass_on(self, address: str) -> None:
        """See Wake. Only UDP leaves this machine: a path in the lease is another pod's."""
        sender = self._senders.get(address)
        if sender is None:
            try:
                parsed = parse_wake_address(address)
            except ValueError:
                return
            if parsed.path:
                return
            if len(self._senders) >= MOST_SENDERS:
                self._forget_senders()
            sender = self._senders[address] = Sender(parsed)
        sender.send(PASSED_ON)

    def close(self) -> None:
        """See Wake. The sockets' files are gone, unless another relay has replaced them."""
        for made in self._sockets:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(made.fileno())
            made.close()
        self._sockets.clear()
        self._forget_senders()
        for path, inode in self._files:
            with suppress(OSError):
                if path.stat().st_ino == inode:
                    path.unlink()
        self._files.clear()

    def _forget_senders(self) -> None:
        for sender in self._senders.values():
            sender.close()
        self._senders.clear()

    def _take(self, made: socket.socket, received: Callable[[bool], None]) -> None:
        counts = {HINT: 0, PASSED_ON: 0}
        refused = 0
        # A closed socket, or an error that the network reported: nothing to take either way.
        with suppress(OSError):
            for _ in range(MOST_AT_ONCE):
                content = made.recv(2)
                if content in counts:
                    counts[content] += 1
                else:
                    refused += 1
        if refused:
            self._observer.hints("refused", refused)
        if taken := sum(counts.values()):
            self._observer.hints("received", taken)
            received(not counts[HINT])

    def _open(self, address: WakeAddress) -> WakeAddress:
        try:
            if address.path:
                self._sockets.append(self._open_file(Path(address.path)))
            else:
                self._sockets.append(_open_port(address))
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError([f"relay.wake_address: {address}: {reason}"]) from error
        return address

    def _open_file(self, path: Path) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        made.setblocking(False)
        try:
            try:
                made.bind(str(path))
            except OSError:
                if not os.path.lexists(path):
                    raise
                _remove_if_dead(path)
                made.bind(str(path))
            path.chmod(ANYBODY)
            self._files.append((path, path.stat().st_ino))
        except BaseException:
            made.close()
            raise
        return made


def _remove_if_dead(path: Path) -> None:
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise ConfigError([f"relay.wake_address: {path} is a file and no socket: remove it"])
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise ConfigError([f"relay.wake_address: another relay listens on {path}: choose another path"])


def _open_port(address: WakeAddress) -> socket.socket:
    found = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
    )
    family, kind, _, _, target = found[0]
    made = socket.socket(family, kind)
    made.setblocking(False)
    try:
        made.bind(target)
    except BaseException:
        made.close()
        raise
    return made


def _address(name: tuple[str, int]) -> WakeAddress:
    return WakeAddress(host=name[0], port=name[1])


def _reachable(made: socket.socket) -> str:
    """What others call *made*: this machine's own address where it listens on all of them."""
    host, port = made.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not listened on
        # Connecting a datagram socket sends nothing: it only chooses the way out.
        with socket.socket(made.family, socket.SOCK_DGRAM) as way_out:
            try:
                way_out.connect(_NOWHERE[made.family])
            except OSError:
                return ""
            host = way_out.getsockname()[0]
    return str(WakeAddress(host=host, port=port))
