"""
I11. Nothing that a command prints or serves holds a secret, whatever goes wrong.

Every secret here holds the same word, in every place that a secret may come from.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from outbox_relay import Outbox
from outbox_relay.migrate import migrate
from outbox_relay.store import DatabaseOptions
from tests.services.certificates import Authority

CANARY = "c4n4ry-w0rd"
ROOT = Path(__file__).resolve().parents[2]
CLOSED = "127.0.0.1:1"
WAIT_SECONDS = 60
SHORT = ("check-config", "migrate", "status", "dead-letters list")

Settings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """Settings that fail, and the word by which the relay's log or the error tells it."""

    settings: Settings
    said: str
    environ: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


def write_config(folder: Path, settings: Settings) -> Path:
    lines = []
    for section, options in {"http": {"port": 0}, "log": {"level": "debug"}, **settings}.items():
        lines.append(f"[{section}]")
        # JSON's strings, lists, numbers and booleans are TOML's.
        lines += [f"{name} = {json.dumps(value)}" for name, value in options.items()]
    path = folder / "config.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def command(case: Case, config: Path, verb: str) -> subprocess.Popen[str]:
    flags = [word for flag in case.flags for word in ("--set", flag)]
    return subprocess.Popen(
        [sys.executable, "-m", "outbox_relay", *verb.split(), "--config", str(config), *flags],
        cwd=config.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TOKEN_CANARY": CANARY, **case.environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def output_of(case: Case, config: Path, verb: str) -> str:
    """All that a short command prints."""
    process = command(case, config, verb)
    printed, _ = process.communicate(timeout=WAIT_SECONDS)
    return printed


def output_of_run(case: Case, config: Path) -> str:
    """All that `run` prints until it has told its trouble and is stopped, and what it serves."""
    process = command(case, config, "run")
    assert process.stdout is not None
    lines: list[str] = []
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline and (line := process.stdout.readline()):
        lines.append(line)
        if case.said in line:
            break
    served = [body for path in ("metrics", "readyz", "livez") for body in get(lines, path)]
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=WAIT_SECONDS)
    return "".join(lines) + rest + "".join(served)


def get(lines: list[str], path: str) -> list[str]:
    """What the relay that wrote *lines* serves under *path*; nothing if it serves nothing."""
    for line in lines:
        if found := re.search(r'"port": (\d+).*http_listening', line):
            try:
                url = f"http://127.0.0.1:{found[1]}/{path}"
                return [urllib.request.urlopen(url, timeout=5).read().decode()]
            except urllib.error.HTTPError as error:
                return [error.read().decode()]
    return []


Make = Callable[[Any, Path], Case]


def in_url(server: Any, folder: Path) -> Case:
    url = f"mysql+asyncmy://ob:{CANARY}@127.0.0.1:{server.port}/ob_x"
    return database_case({"url": url})


def in_the_environment(server: Any, folder: Path) -> Case:
    url = f"mysql+asyncmy://ob:{CANARY}@127.0.0.1:{server.port}/ob_x"
    return Case(
        settings={"kafka": {"bootstrap_servers": CLOSED}},
        environ={
            "OUTBOX_RELAY_DATABASE__URL": url,
            "OUTBOX_RELAY_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
            "OUTBOX_RELAY_KAFKA__SASL_MECHANISM": "PLAIN",
            "OUTBOX_RELAY_KAFKA__SASL_USERNAME": "u",
            "OUTBOX_RELAY_KAFKA__SASL_PASSWORD": CANARY,
        },
        said="check the user",
    )


def in_a_file(server: Any, folder: Path) -> Case:
    (folder / "password").write_text(CANARY)
    return database_case({"url": user_url(server), "password_file": str(folder / "password")})


def from_a_command(server: Any, folder: Path) -> Case:
    return database_case({"url": user_url(server), "password_command": ["echo", CANARY]})


def from_a_command_that_fails(server: Any, folder: Path) -> Case:
    program = f"echo {CANARY}; echo {CANARY} >&2; exit 3"
    return database_case(
        {"url": user_url(server), "password_command": ["sh", "-c", program]}, "exit code 3"
    )


def with_a_server_that_cannot_be_verified(server: Any, folder: Path) -> Case:
    url = f"mysql+asyncmy://ob:{CANARY}@127.0.0.1:{server.port}/ob_x"
    other = str(Authority(folder, "other").certificate.cert)
    return database_case({"url": url, "ssl": True, "ssl_ca_file": other}, "ssl_ca_file")


def beside_a_file_that_cannot_be_read(server: Any, folder: Path) -> Case:
    case = database_case({"url": user_url(server), "password_file": str(folder)}, "cannot be read")
    return Case(settings=case.settings, said=case.said, flags=KAFKA_FLAGS)


def user_url(server: Any) -> str:
    return f"mysql+asyncmy://ob@127.0.0.1:{server.port}/ob_x"


def database_case(database: Mapping[str, Any], said: str = "check the user") -> Case:
    settings = {"database": database, "kafka": {"bootstrap_servers": CLOSED}}
    return Case(settings=settings, said=said)


KAFKA_FLAGS = (
    "kafka.security_protocol=SASL_SSL",
    "kafka.sasl_mechanism=PLAIN",
    "kafka.sasl_username=u",
    f"kafka.sasl_password={CANARY}",
)


@pytest.mark.parametrize(
    "make",
    [
        in_url,
        in_the_environment,
        in_a_file,
        from_a_command,
        from_a_command_that_fails,
        with_a_server_that_cannot_be_verified,
        beside_a_file_that_cannot_be_read,
    ],
    ids=lambda make: make.__name__,
)
def test_a_database_that_refuses(secure_mariadb, tmp_path: Path, make: Make) -> None:
    """
    The relay stays alive and says why it waits; the other commands end and say it too.
    """
    case = make(secure_mariadb, tmp_path)
    config = write_config(tmp_path, case.settings)
    relay = output_of_run(case, config)
    others = {verb: output_of(case, config, verb) for verb in SHORT}

    assert case.said in relay
    assert "outbox_relay_" in relay  # the metrics are part of it
    assert case.said in others["migrate"]
    assert case.said in others["status"]
    assert case.said in others["dead-letters list"]
    assert "database.url" in others["check-config"]
    assert [text for text in (relay, *others.values()) if CANARY in text] == []


def kafka_case(kafka: Any, protocol: str, said: str, **settings: Any) -> Case:
    options = {"bootstrap_servers": kafka.server(protocol), "security_protocol": protocol}
    return Case(settings={"kafka": {**options, **settings}}, said=said)


def password_in_the_file(kafka: Any, folder: Path) -> Case:
    return kafka_case(
        kafka,
        "SASL_PLAINTEXT",
        "check kafka.sasl_username",
        sasl_mechanism="PLAIN",
        sasl_username="u",
        sasl_password=CANARY,
    )


def password_in_a_file_of_its_own(kafka: Any, folder: Path) -> Case:
    (folder / "password").write_text(CANARY)
    return kafka_case(
        kafka,
        "SASL_PLAINTEXT",
        "check kafka.sasl_username",
        sasl_mechanism="SCRAM-SHA-256",
        sasl_username="u",
        sasl_password_file=str(folder / "password"),
    )


def a_broker_that_cannot_be_verified(kafka: Any, folder: Path) -> Case:
    return kafka_case(
        kafka,
        "SASL_SSL",
        "kafka.ssl_ca_file must hold",
        sasl_mechanism="PLAIN",
        sasl_username="u",
        sasl_password=CANARY,
    )


def a_provider_that_raises(kafka: Any, folder: Path) -> Case:
    return token_case(kafka, "explode", "explode raised RuntimeError")


def a_token_that_is_refused(kafka: Any, folder: Path) -> Case:
    return token_case(kafka, "wrong", "refuses the token")


def token_case(kafka: Any, provider: str, said: str) -> Case:
    name = f"tests.integration.tokens:{provider}"
    return kafka_case(
        kafka,
        "SASL_PLAINTEXT",
        said,
        sasl_mechanism="OAUTHBEARER",
        oauth_token_provider=name,
    )


def a_key_with_another_password(kafka: Any, folder: Path) -> Case:
    own = kafka.authority.sign("canary")
    (folder / "password").write_text(CANARY)
    return kafka_case(
        kafka,
        "SSL",
        "cannot be used",
        ssl_ca_file=str(kafka.authority.certificate.cert),
        ssl_cert_file=str(own.cert),
        ssl_key_file=str(kafka.authority.encrypted_key(own)),
        ssl_key_password_file=str(folder / "password"),
    )


@pytest.mark.parametrize(
    "make",
    [
        password_in_the_file,
        password_in_a_file_of_its_own,
        a_broker_that_cannot_be_verified,
        a_provider_that_raises,
        a_token_that_is_refused,
        a_key_with_another_password,
    ],
    ids=lambda make: make.__name__,
)
def test_a_kafka_that_refuses(secure_kafka, sqlite_database, tmp_path: Path, make: Make) -> None:
    """
    The relay stays alive and says why it waits.
    """
    migrate(DatabaseOptions(url=sqlite_database.async_url))
    engine = sa.create_engine(sqlite_database.sync_url)
    with engine.begin() as connection:
        Outbox().add(connection, {"a": 1}, name="e", topic="t", key="k")
    engine.dispose()
    case = make(secure_kafka, tmp_path)
    settings = {"database": {"url": sqlite_database.async_url}, **case.settings}
    config = write_config(tmp_path, settings)
    relay, checked = output_of_run(case, config), output_of(case, config, "check-config")

    assert case.said in relay
    assert "outbox_relay_" in relay
    assert "kafka.security_protocol" in checked
    assert CANARY not in relay + checked


URL = {"url": "sqlite+aiosqlite:///x.db"}
BROKERS = {"bootstrap_servers": CLOSED}


@pytest.mark.parametrize(
    "case",
    [
        Case(
            settings={"database": {"url": f"mysql+asyncmy://u:a@{CANARY}@db/x"}, "kafka": BROKERS},
            said="more than one @",
        ),
        Case(settings={"database": {"url": CANARY}, "kafka": BROKERS}, said="is not a URL"),
        Case(settings={"database": {"url": [CANARY]}, "kafka": BROKERS}, said="must be text"),
        Case(
            settings={"database": URL | {"password_command": f"cat {CANARY}"}, "kafka": BROKERS},
            said="must be a list",
        ),
        Case(
            settings={"database": URL, "kafka": BROKERS | {"sasl_password": [CANARY]}},
            said="must be text",
        ),
        Case(
            settings={"database": URL, "kafka": BROKERS | {"sasl_password": CANARY}},
            said="needs kafka.security_protocol",
        ),
        Case(
            settings={"database": URL, "kafka": BROKERS | {"sasl_pasword": CANARY}},
            said="did you mean kafka.sasl_password?",
        ),
        Case(
            settings={"database": URL, "kafka": BROKERS},
            environ={"OUTBOX_RELAY_KAFKA__SASL_PASWORD": CANARY},
            said="did you mean OUTBOX_RELAY_KAFKA__SASL_PASSWORD?",
        ),
        Case(settings={"database": URL, "kafka": BROKERS}, flags=(CANARY,), said="KEY=VALUE"),
        Case(
            settings={"database": URL, "kafka": BROKERS},
            flags=(f"database.password_command={CANARY}",),
            said="must be a list",
        ),
    ],
    ids=lambda case: case.said,
)
def test_wrong_settings(tmp_path: Path, case: Case) -> None:
    """
    A setting that is wrong is named and not shown.
    """
    config = write_config(tmp_path, case.settings)
    printed = [output_of(case, config, verb) for verb in ("run", *SHORT)]

    assert [text for text in printed if case.said not in text] == []
    assert [text for text in printed if CANARY in text] == []
