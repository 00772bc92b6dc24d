"""What keeps a relay from its work: each trouble with what makes it and what mends it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from outbox_relay import Outbox
from outbox_relay.schema import Status
from tests.pages import texts
from tests.services.certificates import Authority
from tests.services.secure import SecureKafka, SecureMariaDB

CANARY = "c4n4ry-w0rd"
"""Part of every secret, right or wrong."""

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "security.md"


@dataclass(kw_only=True)
class Stage:
    """A relay's surroundings, all well: each trouble spoils one thing. Secrets are in files."""

    command: Path
    mariadb: SecureMariaDB
    kafka: SecureKafka
    folder: Path
    kafka_user: str
    topic: str
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    held: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.database = self.mariadb.create_database()
        self.user = f"u{uuid.uuid4().hex[:12]}"
        self.mariadb.create_user(self.user, f"{CANARY}-database", tls="SSL")
        self._write_secrets()
        self.settings = self._all_well()

    def _write_secrets(self) -> None:
        self.file("database-password").write_text(f"{CANARY}-database\n")
        self.file("kafka-password").write_text(f"{CANARY}-kafka\n")
        shutil.copy(self.mariadb.authority.certificate.cert, self.file("database-ca.pem"))
        shutil.copy(self.kafka.authority.certificate.cert, self.file("kafka-ca.pem"))

    def _all_well(self) -> dict[str, dict[str, Any]]:
        return {
            "database": {
                "url": f"mysql+asyncmy://{self.user}@127.0.0.1:{self.mariadb.port}/"
                f"{self.database.name}",
                "password_file": str(self.file("database-password")),
                "ssl": True,
                "ssl_ca_file": str(self.file("database-ca.pem")),
            },
            "kafka": {
                "bootstrap_servers": self.kafka.server("SASL_SSL"),
                "security_protocol": "SASL_SSL",
                "sasl_mechanism": "SCRAM-SHA-512",
                "sasl_username": self.kafka_user,
                "sasl_password_file": str(self.file("kafka-password")),
                "ssl_ca_file": str(self.file("kafka-ca.pem")),
            },
            "relay": {"backoff_max_seconds": 5.0},
            "http": {"port": 0},
        }

    def file(self, name: str) -> Path:
        """A file of this relay."""
        return self.folder / name

    def write_config(self) -> Path:
        """The settings as TOML."""
        lines = []
        for section, options in self.settings.items():
            lines.append(f"[{section}]")
            # JSON's strings, numbers and booleans are TOML's.
            lines += [f"{name} = {json.dumps(value)}" for name, value in options.items()]
        path = self.file("config.toml")
        path.write_text("\n".join(lines) + "\n")
        return path

    def migrate(self) -> None:
        """Make the tables, as the user who may."""
        flags = [f"database.url={self.database.async_url}", "kafka.bootstrap_servers=none"]
        sets = [word for flag in flags for word in ("--set", flag)]
        subprocess.run([self.command, "migrate", *sets], check=True, cwd="/", capture_output=True)

    def sql(self, statement: str) -> None:
        """Run one statement with every right."""
        connection = self.mariadb.root_connection(self.database.name)
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)

    def grant_as_the_guide_says(self) -> None:
        """The rights that docs/guide/security.md names, and no others."""
        block = texts(GUIDE, "sql")[0]
        named = block.replace("shop.", f"{self.database.name}.").replace(
            "relay'@", f"{self.user}'@"
        )
        for statement in named.strip().splitlines():
            self.mariadb.root(statement)

    def write_event(self) -> None:
        """One committed event."""
        engine = sa.create_engine(self.database.sync_url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            Outbox().add(connection, {"a": 1}, name="e", topic=self.topic, key="k")

    def is_relayed(self) -> bool:
        """Whether the event is published and marked."""
        engine = sa.create_engine(self.database.sync_url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            status = connection.execute(sa.text("SELECT MIN(status) FROM outbox")).scalar_one()
        return bool(status == Status.PRODUCED)

    def told(self, text: str) -> str:
        """*text* with what differs from run to run as an operator's own would look."""
        names = {
            str(self.folder): "/etc/outbox-relay",
            self.database.name: "shop",
            self.user: "relay",
            self.kafka_user: "relay",
            self.topic: "orders",
            "@'127.0.0.1'": "@'10.0.0.7'",
            "server on '127.0.0.1'": "server on 'db.example.com'",
            str(self.settings["http"]["port"] or "9464"): "9464",
            self.kafka.server("SASL_SSL"): "kafka.example.com:9093",
        }
        for ours, theirs in names.items():
            text = text.replace(ours, theirs)
        return text


Act = Callable[[Stage], object]


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """
    One failure. *exit_code* is None where the relay must stay alive; it then must go on by itself
    after *mend*. *mends* is what the page says about that.
    """

    failure: str
    make: Act
    mends: str
    mend: Act = lambda _: None
    exit_code: int | None = None
    migrated: bool = True
    alone: bool = False


def wrong_secret(name: str) -> Act:
    return lambda stage: stage.file(name).write_text(f"{CANARY}-wrong")


def right_secret(name: str) -> Act:
    secret = f"{CANARY}-{name.partition('-')[0]}"
    return lambda stage: stage.file(name).write_text(secret)


def wrong_authority(name: str) -> Act:
    def make(stage: Stage) -> None:
        other = Authority(stage.folder / "other", "other")
        shutil.copy(other.certificate.cert, stage.file(name))

    return make


def right_authority(name: str) -> Act:
    def mend(stage: Stage) -> None:
        service = stage.mariadb if name.startswith("database") else stage.kafka
        shutil.copy(service.authority.certificate.cert, stage.file(name))

    return mend


def revoke_all(stage: Stage) -> None:
    stage.mariadb.root(f"REVOKE ALL PRIVILEGES, GRANT OPTION FROM '{stage.user}'@'%'")


def may_only_read(stage: Stage) -> None:
    revoke_all(stage)
    stage.mariadb.root(f"GRANT SELECT ON {stage.database.name}.* TO '{stage.user}'@'%'")


def folder_instead(name: str) -> Act:
    def make(stage: Stage) -> None:
        stage.file(name).unlink()
        stage.file(name).mkdir()

    return make


def file_again(name: str) -> Act:
    def mend(stage: Stage) -> None:
        stage.file(name).rmdir()
        right_secret(name)(stage)

    return mend


def take_the_port(stage: Stage) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    stage.held.append(taken)
    stage.settings["http"]["port"] = taken.getsockname()[1]


def misspell(stage: Stage) -> None:
    stage.settings["kafka"]["sasl_pasword_file"] = CANARY


TROUBLES = (
    Trouble(
        failure="wrong database password",
        make=wrong_secret("database-password"),
        mend=right_secret("database-password"),
        mends="the right password in the file, or from the command; a password in the URL needs a restart",
    ),
    Trouble(
        failure="wrong Kafka password",
        make=wrong_secret("kafka-password"),
        mend=right_secret("kafka-password"),
        mends="the right password in the file; `kafka.sasl_password` needs a restart",
    ),
    Trouble(
        failure="wrong authority for the database's certificate",
        make=wrong_authority("database-ca.pem"),
        mend=right_authority("database-ca.pem"),
        mends="the right authority in the file",
    ),
    Trouble(
        failure="wrong authority for the brokers' certificates",
        make=wrong_authority("kafka-ca.pem"),
        mend=right_authority("kafka-ca.pem"),
        mends="the right authority in the file",
    ),
    Trouble(
        failure="no right to the database",
        make=revoke_all,
        mend=Stage.grant_as_the_guide_says,
        mends="the four `GRANT` of the [guide](../guide/security.md#the-relays-rights)",
    ),
    Trouble(
        failure="a right to a table is missing",
        make=may_only_read,
        mend=Stage.grant_as_the_guide_says,
        mends="the same four `GRANT`",
    ),
    Trouble(
        failure="a right to a topic is missing",
        make=lambda stage: stage.kafka.allow(stage.topic, "somebody-else"),
        mend=lambda stage: stage.kafka.allow(stage.topic, stage.kafka_user),
        mends="an ACL that lets the relay's user `Write` and `Describe` the topic",
    ),
    Trouble(
        failure="the topic is missing",
        make=lambda stage: stage.kafka.delete_topic(stage.topic),
        mend=lambda stage: stage.kafka.create_topic(stage.topic),
        mends="creating the topic",
    ),
    Trouble(
        failure="the database is down at the start",
        make=lambda stage: stage.mariadb.stop(),
        mend=lambda stage: stage.mariadb.start(),
        mends="starting it",
        alone=True,
    ),
    Trouble(
        failure="Kafka is down at the start",
        make=lambda stage: stage.kafka.stop(),
        mend=lambda stage: stage.kafka.start(),
        mends="starting it",
        alone=True,
    ),
    Trouble(
        failure="the tables are missing",
        make=lambda _: None,
        mend=Stage.migrate,
        mends="`outbox-relay migrate`",
        migrated=False,
    ),
    Trouble(
        failure="the tables are newer than the relay",
        make=lambda stage: stage.sql(
            "INSERT INTO outbox_version (version, min_reader) VALUES (99, 99)"
        ),
        mend=lambda stage: stage.sql("DELETE FROM outbox_version WHERE version = 99"),
        mends="a relay of the release that made them, or of a later one",
    ),
    Trouble(
        failure="a secret's file cannot be read",
        make=folder_instead("database-password"),
        mend=file_again("database-password"),
        mends="a file that the relay's user may read",
    ),
    Trouble(
        failure="a secret's file is missing at the start",
        make=lambda stage: stage.file("kafka-password").unlink(),
        mends="the file, and a start",
        exit_code=2,
    ),
    Trouble(
        failure="the port of metrics and health is taken",
        make=take_the_port,
        mends="another port, and a start",
        exit_code=1,
    ),
    Trouble(
        failure="unknown setting",
        make=misspell,
        mends="the right name, and a start",
        exit_code=2,
    ),
)
