"""What makes one setting wrong, and how it is said. Never shows a secret."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import make_url

from outbox_relay.store.options import DatabaseOptions

URLS: Final = frozenset({"database.url", "amqp.url", "redis.url"})
SECRETS: Final = URLS | {"database.password_command", "kafka.sasl_password"}
"""Settings that may hold a password. Their values are shown without it, or not at all."""

ASYNC_DRIVERS: Final = {
    "mysql": "mysql+asyncmy",
    "mariadb": "mariadb+asyncmy",
    "postgresql": "postgresql+asyncpg",
    "sqlite": "sqlite+aiosqlite",
}
"""The databases that this release serves, with the driver of each."""

# Kubernetes puts these into each pod beside a Service whose name begins with "outbox-relay".
_SERVICE_NAME = re.compile(
    r"OUTBOX_RELAY_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")
_HIDDEN: Final = "(hidden)"
_SECRET_PARAMETER = re.compile(r"passw|passphrase|secret|token|pwd", re.IGNORECASE)


def nearest(name: str, known: Iterable[str]) -> str:
    """
    A hint at the known name that is most like *name*, or nothing.

    >>> nearest("relay.chunk_rwos", ["relay.chunk_rows", "http.port"])
    ' (did you mean relay.chunk_rows?)'
    """
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {found[0]}?)" if found else ""


def environment_problem(name: str, value: str, known: Iterable[str]) -> str | None:
    """Why the variable *name*, which is no setting, is wrong; None if it is Kubernetes' own."""
    if _SERVICE_NAME.fullmatch(name) or _SERVICE_ADDRESS.match(value):
        return None
    return f"environment: {name} is not a setting{nearest(name, known)}"


def requirement(kind: Any) -> str:
    """
    What a value of the type *kind* must be, in words.

    >>> requirement(int)
    'a whole number'
    """
    if typing.get_origin(kind) is tuple:
        return 'a list of text, such as ["one", "two"]'
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(typing.get_args(kind))
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[kind]


def shown(key: str, value: object) -> str:
    """
    *value* as TOML writes it. Without its password if *key* is a secret.

    >>> shown("database.url", "mysql+asyncmy://ob:geheim@db/shop")
    '"mysql+asyncmy://ob:***@db/shop"'
    """
    if key in SECRETS and value:
        value = without_password(value) if key in URLS else _HIDDEN
    if isinstance(value, tuple):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping | list):
        return "a table or list"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return str(value).lower() if isinstance(value, bool) else str(value)


def as_tuple(value: object) -> object:
    """
    A list of TOML, or one in JSON as the environment holds it, as a tuple; other things as they are.

    >>> as_tuple('["cat", "/run/secrets/db"]')
    ('cat', '/run/secrets/db')
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return value
    return tuple(value) if isinstance(value, list) else value


def without_password(url: object) -> str:
    """*url* with each password replaced; nothing of it if it cannot be parsed."""
    try:
        parsed = make_url(url) if isinstance(url, str) else None
    except (sa.exc.ArgumentError, ValueError):
        parsed = None
    if parsed is None or _is_ambiguous(parsed):
        return _HIDDEN
    secret = {name: "***" for name in parsed.query if _SECRET_PARAMETER.search(name)}
    return parsed.update_query_dict(secret).render_as_string(hide_password=True)


def _is_ambiguous(url: sa.URL) -> bool:
    """Whether part of the password may have become host or database: it held an @."""
    named = (url.host, url.database) if url.get_backend_name() != "sqlite" else ()
    return any("@" in part for part in named if part)


def url_problems(text: str) -> list[str]:
    """What is wrong with the database's URL. Never repeats it."""
    try:
        url = make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        return [
            "database.url is not a URL: use mysql+asyncmy://user:password@host/database, with "
            "special characters of the password written as %40 and the like"
        ]
    if _is_ambiguous(url):
        return ["database.url has more than one @: write one that belongs to the password as %40"]
    backend = url.get_backend_name()
    driver = ASYNC_DRIVERS.get(backend)
    if driver is None:
        known = ", ".join(f"{name}://" for name in ASYNC_DRIVERS.values())
        return [f"database.url names the database {backend}, which is not served: use {known}"]
    if url.drivername != driver:
        return [f"database.url has a driver that cannot be used here: use {driver}://"]
    if backend == "sqlite" and url.database in (None, "", ":memory:"):
        return ["database.url names no file: a database in memory belongs to one process alone"]
    if not url.database:
        return ["database.url names no database: add it after the host, as in host/shop"]
    return []


def login_problems(options: DatabaseOptions) -> list[str]:
    """What does not fit together of the URL and the other settings of the database."""
    try:
        url = make_url(options.url)
    except (sa.exc.ArgumentError, ValueError):
        return []
    if url.get_backend_name() == "sqlite":
        return [
            f"database.{key} is for servers: a SQLite file knows no log-in"
            for key in ("password_file", "password_command", "ssl")
            if getattr(options, key)
        ]
    found = [
        f"database.{key} and a password in database.url are two: keep one"
        for key in ("password_file", "password_command")
        if getattr(options, key) and url.password
    ]
    if options.ssl and any(name.startswith("ssl") for name in url.query):
        found.append("database.url has ssl parameters besides database.ssl: remove them there")
    return found


def missing_files(sections: Mapping[str, object]) -> list[str]:
    """The files that a setting names and that are not there."""
    return [
        f"{section}.{option.name} = {path}: there is no such file: create it, or correct the setting"
        for section, options in sections.items()
        for option in dataclasses.fields(typing.cast(Any, options))
        if option.name.endswith("_file") and (path := getattr(options, option.name))
        if not _exists(path)
    ]


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:
        # Its folder may not be entered: the relay says so when it reads the file.
        return True
