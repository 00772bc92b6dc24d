"""
Who may look, and who may change something: a token to log in with, sessions, and what keeps other
pages of the same browser from using them.

* A session is a random cookie, HttpOnly and SameSite=Strict; its secrets stay in this process.
* Each form carries a token of its session, and the browser must name this page as its origin.
* Without a token in the settings nobody logs in: all may look, and only by a known host name, since
  any page can give its own name to 127.0.0.1.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from outbox_relay.admin.options import LEAST_TOKEN_CHARS, AdminOptions
from outbox_relay.credentials import read_secret
from outbox_relay.errors import ConfigError, CredentialsError

COOKIE: Final = "outbox_relay_admin"
SESSION_SECONDS: Final = 12 * 3600.0
MOST_SESSIONS: Final = 100
SECONDS_A_GUESS: Final = 1.0
"""Wrong tokens are answered no faster than this, all browsers together."""

_LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(slots=True)
class Session:
    """Somebody who logged in."""

    until: float
    token_digest: bytes
    form_token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    notices: list[str] = field(default_factory=list)
    """What the next page tells, such as what was done."""


class Login:
    """The sessions of one dashboard."""

    def __init__(
        self, options: AdminOptions, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._options = options
        self._clock = clock
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._no_guess_before = 0.0

    @property
    def required(self) -> bool:
        """Whether one has to log in."""
        return bool(self._options.token_file)

    def check(self) -> None:
        """Raise ConfigError if the token cannot be used."""
        if not self.required:
            return
        try:
            token = self._token()
        except CredentialsError as error:
            raise ConfigError([str(error)]) from None
        if len(token) < LEAST_TOKEN_CHARS:
            raise ConfigError(
                [
                    f"admin.token_file = {self._options.token_file} holds {len(token)} characters: "
                    f"use {LEAST_TOKEN_CHARS} or more, such as those of `openssl rand -hex 16`"
                ]
            )

    def begin(self, said: str) -> tuple[str, Session] | None:
        """A new session with its cookie's value, if *said* is the token."""
        token = self._token()
        if not hmac.compare_digest(_digest(said), _digest(token)):
            return None
        self._forget_old()
        while len(self._sessions) >= MOST_SESSIONS:
            self._sessions.popitem(last=False)
        cookie = secrets.token_urlsafe(32)
        session = Session(self._clock() + SESSION_SECONDS, _digest(token))
        self._sessions[cookie] = session
        return cookie, session

    def seconds_to_wait(self) -> float:
        """How long the answer to a wrong token waits: guesses come one after the other."""
        now = self._clock()
        self._no_guess_before = max(now, self._no_guess_before) + SECONDS_A_GUESS
        return self._no_guess_before - now

    def session(self, cookie: str | None) -> Session | None:
        """The session of *cookie*: not once it is over, or the token has changed."""
        found = self._sessions.get(cookie or "")
        if found is None:
            return None
        try:
            current = hmac.compare_digest(found.token_digest, _digest(self._token()))
        except CredentialsError:
            current = False
        if not current or self._clock() >= found.until:
            self.end(cookie)
            return None
        return found

    def end(self, cookie: str | None) -> None:
        """Forget the session of *cookie*."""
        self._sessions.pop(cookie or "", None)

    def _forget_old(self) -> None:
        now = self._clock()
        for cookie in [cookie for cookie, kept in self._sessions.items() if now >= kept.until]:
            del self._sessions[cookie]

    def _token(self) -> str:
        return read_secret("admin.token_file", self._options.token_file)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def is_known_host(options: AdminOptions, header: str) -> bool:
    """
    Whether the header ``Host`` names this dashboard.

    Once a token is needed any name will do unless `hosts` says which: another name has other cookies.
    """
    name = host_name(header)
    known: Collection[str] = {*_LOCAL_NAMES, options.host, *options.hosts}
    if options.token_file and not options.hosts:
        return bool(name)
    return name in known


def host_name(header: str) -> str:
    """
    The name in a header ``Host``, without its port.

    >>> host_name("localhost:9465"), host_name("[::1]:9465")
    ('localhost', '::1')
    """
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def is_same_origin(host: str, origin: str | None, site: str | None) -> bool:
    """
    Whether a form was sent from a page of *host* itself.

    *origin* and *site* are the headers ``Origin`` and ``Sec-Fetch-Site``; a browser sends at least
    one of them with each form, and a program that sends neither has no cookie to steal.
    """
    if site is not None and site not in ("same-origin", "none"):
        return False
    return origin is None or urlsplit(origin).netloc == host
