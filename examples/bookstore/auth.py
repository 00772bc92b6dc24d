"""
Who calls: a JWT with the caller's roles.

    python -m examples.bookstore.auth create-book view-books

prints one, made with BOOKSTORE_JWT_SECRET.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import jwt

from examples.bookstore.errors import PermissionDenied, Unauthenticated

AUDIENCE: Final = "bookstore"
_ALGORITHM: Final = "HS256"
_TOKEN_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller. Without a token: nobody, with no role."""

    name: str
    roles: frozenset[str]
    expires_at: float | None
    """Seconds since 1970. A connection may live longer than the token that opened it."""

    def require(self, roles: Collection[str]) -> None:
        """Raises PermissionDenied unless the caller has every one of *roles*."""
        if not roles:
            return
        if self.expires_at is not None and time.time() >= self.expires_at:
            raise PermissionDenied("the token has expired: connect again with a new one")
        missing = sorted(set(roles) - self.roles)
        if missing:
            raise PermissionDenied(f"missing role: {', '.join(missing)}")


NOBODY: Final = Identity("", frozenset(), None)


def issue(secret: str, *roles: str, name: str = "tester", seconds: float = _TOKEN_SECONDS) -> str:
    """A token with *roles* that lasts so many seconds."""
    expires_at = int(time.time() + seconds)
    claims = {"sub": name, "aud": AUDIENCE, "exp": expires_at, "roles": list(roles)}
    return jwt.encode(claims, secret, algorithm=_ALGORITHM)


def identify(token: str | None, secret: str) -> Identity:
    """Whose *token* it is; without one nobody's. Raises Unauthenticated if it is not one of ours."""
    if token is None:
        return NOBODY
    try:
        claims = jwt.decode(
            token,
            secret,
            algorithms=[_ALGORITHM],
            audience=AUDIENCE,
            options={"require": ["exp", "sub"]},
        )
    except jwt.ExpiredSignatureError:
        raise Unauthenticated("the token has expired: ask for a new one") from None
    except jwt.InvalidTokenError as error:
        raise Unauthenticated(f"the token is not valid: {error}") from None
    roles = claims.get("roles", [])
    if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
        raise Unauthenticated("the token is not valid: roles is not a list of text")
    return Identity(claims["sub"], frozenset(roles), float(claims["exp"]))


def bearer(header: str | None) -> str | None:
    """The token of an Authorization header; None without one."""
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("Authorization must be: Bearer TOKEN")
    return token.strip()


def main(roles: Sequence[str]) -> int:
    """Print a token with *roles*. 2 if there is no secret."""
    secret = os.environ.get("BOOKSTORE_JWT_SECRET")
    if not secret:
        sys.stderr.write("BOOKSTORE_JWT_SECRET is not set: it must be the one of the store\n")
        return 2
    sys.stdout.write(f"{issue(secret, *roles)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
