"""
Token providers as a user would write them, for Kafka's unsecured JSON Web Tokens.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time


def _part(content: dict[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def fetch() -> str:
    """A token that is good for an hour."""
    now = time.time()
    # The broker's clock has milliseconds: a token of this very one would come from the future.
    claims: dict[str, object] = {"sub": "relay", "iat": now - 60, "exp": now + 3600}
    return f"{_part({'alg': 'none'})}.{_part(claims)}."


async def fetch_async() -> str:
    """The same, asynchronously."""
    await asyncio.sleep(0)
    return fetch()


def wrong() -> str:
    """No token that a broker would take."""
    return os.environ.get("TOKEN_CANARY", "wrong")


def explode() -> str:
    """Fails, and shows its secret in the error's text."""
    raise RuntimeError(f"cannot use {os.environ.get('TOKEN_CANARY', 'secret')}")


current = fetch
"""What `fetch_current` does; tests change it."""


def fetch_current() -> str:
    """A provider that is good today and fails tomorrow."""
    return current()
