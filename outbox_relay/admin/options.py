"""The settings of the dashboard."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

LEAST_TOKEN_CHARS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminOptions:
    """The dashboard, section ``[admin]``."""

    enabled: bool = False
    """Whether the dashboard is served. Needs pip install outbox-relay[admin]; the image has it."""

    host: str = "127.0.0.1"
    """Address to listen on. Any other than this machine's own needs token_file."""

    port: int = 9465
    """Port to listen on; 0 takes any free one, which the log line admin_listening names."""

    token_file: str = ""
    """File with the token, of 16 characters or more, that everybody logs in with. Without it everybody who reaches the address may look, and nobody may change anything."""

    hosts: tuple[str, ...] = ()
    """Names that browsers use for it, where that is not its address: others are refused, so that no page of somebody else's can reach it under a name of its own."""

    show_payloads: bool = False
    """Whether a payload is shown to who asks for it. Each one is logged."""

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def problems(self) -> list[str]:
        """What is wrong with these settings, one line each, named by key."""
        found = []
        if not self.host:
            found.append("admin.host is required, such as 127.0.0.1")
        if not 0 <= self.port <= 65_535:
            found.append(f"admin.port = {self.port} must be from 0 to 65535")
        if self.enabled and self.host and not self.is_local and not self.token_file:
            found.append(
                f'admin.host = "{self.host}" is reached from outside: set admin.token_file, or '
                "listen on 127.0.0.1"
            )
        return found
