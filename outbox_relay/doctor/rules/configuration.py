"""Findings about the settings and the files that they name."""

from __future__ import annotations

import shlex
import stat
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from outbox_relay.config import Config
from outbox_relay.doctor.catalogue import found
from outbox_relay.doctor.facts import ConfigurationFacts, FileFacts
from outbox_relay.doctor.findings import Finding, Severity, shell, toml
from outbox_relay.errors import ConfigError

SOON_DAYS: Final = 14.0
_OTHERS: Final = stat.S_IROTH | stat.S_IWOTH | stat.S_IXOTH
_LOCAL: Final = ("localhost", "127.", "::1", "[::1]")


def of_error(error: ConfigError) -> list[Finding]:
    """Each problem that keeps the relay from starting."""
    return [
        found(
            "configuration-invalid",
            problem,
            "Correct it; `outbox-relay check-config` then prints every setting.",
            shell("outbox-relay check-config"),
        )
        for problem in error.problems
    ]


def of_configuration(config: Config, facts: ConfigurationFacts) -> list[Finding]:
    """Settings that load and are unwise, and files that are not as they should be."""
    return [
        *(finding for file in facts.files for finding in _file(file)),
        *_config_file(facts),
        *_clear(config),
        *_publishing(config),
        *_order(config),
    ]


def _file(file: FileFacts) -> Iterator[Finding]:
    where = f"{file.setting} = {file.path}"
    quoted = shlex.quote(file.path)
    if file.problem is not None:
        yield found(
            "secret-unreadable",
            file.problem,
            f"Let the user that runs the relay read {file.path}, or correct {file.setting}.",
            shell(f"chmod u+r {quoted}"),
        )
    if file.is_secret and file.mode is not None and file.mode & _OTHERS:
        yield found(
            "secret-open",
            f"{where} may be read by everybody (mode {file.mode:04o})",
            "Take the rights of others away; in Kubernetes set defaultMode: 0440 on the volume and "
            "fsGroup on the pod.",
            shell(f"chmod o-rwx {quoted}"),
        )
    days = file.not_after_days
    if days is not None and days < SOON_DAYS:
        yield found(
            "certificate-expiring",
            f"{where} ran out {-days:.0f} days ago"
            if days < 0
            else f"{where} runs out in {days:.1f} days",
            "Put a new certificate into the file; it is read again for each connection, so nothing "
            "needs a restart.",
            severity=Severity.ERROR if days < 0 else None,
        )


def _config_file(facts: ConfigurationFacts) -> Iterator[Finding]:
    path, mode = facts.config_path, facts.config_mode
    if path is None or mode is None or not mode & _OTHERS:
        return
    if facts.secrets_in_config:
        yield found(
            "secret-open",
            f"{path} holds {', '.join(facts.secrets_in_config)} and may be read by everybody (mode "
            f"{mode:04o})",
            "Take the rights of others away, or keep passwords in files of their own.",
            shell(f"chmod o-rwx {shlex.quote(path)}"),
        )


def _is_remote(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return bool(host) and not host.startswith(_LOCAL)


def _clear(config: Config) -> Iterator[Finding]:
    """Passwords that travel as they are; those of databases are hashed by their protocols."""
    section = config.broker.section
    if section == "kafka":
        kafka = config.kafka
        servers = kafka.bootstrap_servers.split(",")
        if (kafka.security_protocol, kafka.sasl_mechanism) in (
            ("SASL_PLAINTEXT", "PLAIN"),
            ("SASL_PLAINTEXT", "OAUTHBEARER"),
        ) and any(_is_remote(f"kafka://{server.strip()}") for server in servers):
            yield found(
                "password-in-clear",
                f"kafka.sasl_mechanism = {kafka.sasl_mechanism} over SASL_PLAINTEXT to "
                f"{kafka.bootstrap_servers}",
                "Let the brokers serve SASL_SSL, or log in with SCRAM.",
                toml("[kafka]", 'security_protocol = "SASL_SSL"'),
            )
        return
    if section not in ("amqp", "redis"):
        return
    options = getattr(config, section)
    parts = urlsplit(options.url)
    if (
        parts.scheme == section
        and _is_remote(options.url)
        and (parts.password or options.password_file)
    ):
        yield found(
            "password-in-clear",
            f"{section}.url begins with {section}:// and leads to {parts.hostname}",
            f"Let the server serve TLS, and begin {section}.url with {section}s://.",
        )


def _publishing(config: Config) -> Iterator[Finding]:
    if config.broker.section == "kafka" and not config.kafka.idempotent:
        yield found(
            "unsafe-publishing",
            "kafka.idempotent = false",
            "Leave the setting out, unless the brokers cannot do it.",
            toml("[kafka]", "idempotent = true"),
        )
    if config.broker.kind == "jsonl" and config.jsonl.path != "-" and not config.jsonl.fsync:
        yield found(
            "file-not-synced",
            "jsonl.fsync = false",
            "Let a batch count as acked only once the disk has it.",
            toml("[jsonl]", "fsync = true"),
        )


def _order(config: Config) -> Iterator[Finding]:
    if config.database.layout == "python-cqrs" and not config.database.layout_key_path:
        yield found(
            "no-order",
            'database.layout = "python-cqrs" without database.layout_key_path',
            "Name the place in the documents that says what an event belongs to.",
            toml("[database]", 'layout_key_path = "payload.user_id"'),
        )
