"""
The same servers with log-in and encryption: Kafka with a listener of each kind, MariaDB and
PostgreSQL with TLS.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psycopg
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from tests.services.certificates import Authority, Certificate
from tests.services.kafka import ADMIN_SECONDS, Kafka
from tests.services.mariadb import MariaDB
from tests.services.postgresql import OWNER, PostgreSQL
from tests.services.process import (
    MissingPartError,
    Service,
    ServiceFailedError,
    free_port,
    temporary_folder,
)

PLAIN_USER, PLAIN_PASSWORD = "plain-user", "plain-password"

_JAAS = {
    "plain": f'plain.PlainLoginModule required user_{PLAIN_USER}="{PLAIN_PASSWORD}"',
    "scram-sha-256": "scram.ScramLoginModule required",
    "scram-sha-512": "scram.ScramLoginModule required",
    "oauthbearer": "oauthbearer.OAuthBearerLoginModule required "
    'unsecuredLoginStringClaim_sub="broker"',
}
LISTENERS = ("SASL_PLAINTEXT", "SASL_SSL", "SSL")

AnyService = TypeVar("AnyService", bound=Service)


class SecureKafka(Kafka):
    """
    Kafka with an open listener for the tests themselves, and one of each kind for relays.

    The listener SSL asks for a certificate of the client; SASL_SSL does not.
    """

    name = "secure-kafka"

    def server(self, protocol: str) -> str:
        """host:port of the listener for *protocol*."""
        return f"127.0.0.1:{self._ports[protocol]}"

    def show(self, certificate: Certificate) -> None:
        """Let the listeners show another one from the next start on."""
        self._keystore.write_text(certificate.key.read_text() + certificate.cert.read_text())

    def set_scram_password(self, user: str, password: str) -> None:
        """Create *user* for SCRAM, or change the password; returns once the broker knows it."""
        admin = self._admin()
        # One change of a user for each request; the last one is the one that is waited for.
        for mechanism in (ScramMechanism.SCRAM_SHA_512, ScramMechanism.SCRAM_SHA_256):
            info = ScramCredentialInfo(mechanism, 4096)
            change = UserScramCredentialUpsertion(user, info, password.encode())
            admin.alter_user_scram_credentials([change])[user].result(ADMIN_SECONDS)
        self._wait_until_known(user, password)

    def allow(self, topic: str, user: str) -> None:
        """Let *user* write to *topic*, and from now on no other user of the closed listeners."""
        allowed = (f"User:{user}", "*", AclOperation.WRITE, AclPermissionType.ALLOW)
        pattern = (ResourceType.TOPIC, topic, ResourcePatternType.LITERAL)
        admin = self._admin()
        for done in admin.create_acls([AclBinding(*pattern, *allowed)]).values():
            done.result(ADMIN_SECONDS)
        deadline = time.monotonic() + ADMIN_SECONDS
        while not admin.describe_acls(AclBindingFilter(*pattern, *allowed)).result(ADMIN_SECONDS):
            if time.monotonic() > deadline:
                raise ServiceFailedError(f"Kafka does not know who may write to {topic}")

    def _wait_until_known(self, user: str, password: str) -> None:
        deadline = time.monotonic() + ADMIN_SECONDS
        while True:
            client = AdminClient(
                {
                    "bootstrap.servers": self.server("SASL_PLAINTEXT"),
                    "security.protocol": "SASL_PLAINTEXT",
                    "sasl.mechanism": "SCRAM-SHA-256",
                    "sasl.username": user,
                    "sasl.password": password,
                    "log_level": 0,
                }
            )
            try:
                client.list_topics(timeout=2)
            except KafkaException as error:
                if time.monotonic() > deadline:
                    raise ServiceFailedError(f"Kafka does not know {user}") from error
                continue
            return

    def _own_settings(self) -> dict[str, str]:
        self.authority = Authority(self.folder / "tls")
        server = self.authority.sign("kafka")
        self._keystore = both = self.folder / "tls" / "keystore.pem"
        self.show(server)
        self._ports = {protocol: free_port() for protocol in LISTENERS}
        settings = super()._own_settings()
        for key in ("listeners", "advertised.listeners"):
            ours = ",".join(f"{protocol}://{self.server(protocol)}" for protocol in LISTENERS)
            settings[key] += f",{ours}"
        settings |= {
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,"
            + ",".join(f"{protocol}:{protocol}" for protocol in LISTENERS),
            # The open listener may do everything, the others what no rule keeps from them.
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "true",
            "super.users": "User:ANONYMOUS",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(both),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.certificate.cert),
            "listener.name.ssl.ssl.client.auth": "required",
        }
        for listener in ("sasl_plaintext", "sasl_ssl"):
            for mechanism, module in _JAAS.items():
                key = f"listener.name.{listener}.{mechanism}.sasl.jaas.config"
                settings[key] = f"org.apache.kafka.common.security.{module};"
        return settings


class SecureMariaDB(MariaDB):
    """MariaDB that also serves TLS."""

    name = "secure-mariadb"

    def __init__(self, folder: Path | None = None) -> None:
        tls = temporary_folder("tls") if folder is None else folder
        self.authority = Authority(tls)
        self.certificate = self.authority.sign("mariadb")
        self._cert, self._key = tls / "shown.pem", tls / "shown.key"
        self._cert.write_text(self.certificate.cert.read_text())
        self._key.write_text(self.certificate.key.read_text())
        arguments = [
            f"--ssl-ca={self.authority.certificate.cert}",
            f"--ssl-cert={self._cert}",
            f"--ssl-key={self._key}",
        ]
        super().__init__(extra_args=arguments)

    def show(self, certificate: Certificate) -> None:
        """Show another one from now on. Open connections stay."""
        pairs = ((certificate.key, self._key), (certificate.cert, self._cert))
        for source, target in pairs:
            target.write_text(source.read_text())
        self.root("FLUSH SSL")

    def create_user(self, name: str, password: str, *, tls: str = "NONE") -> None:
        """A user with every right on ob_…; *tls* is NONE, SSL or X509."""
        self.root(f"CREATE USER '{name}'@'%' IDENTIFIED BY '{password}' REQUIRE {tls}")
        self.root(f"GRANT ALL ON `ob\\_%`.* TO '{name}'@'%'")

    def set_password(self, name: str, password: str) -> None:
        """Change it. Open connections stay."""
        self.root(f"ALTER USER '{name}'@'%' IDENTIFIED BY '{password}'")

    def drop_connections(self, name: str) -> None:
        """End every connection of a user, as a fail-over or a proxy would."""
        self.root(f"KILL HARD USER '{name}'")

    def root(self, sql: str) -> None:
        """Run one statement as root."""
        with self.root_connection() as connection, connection.cursor() as cursor:
            cursor.execute(sql)


SSL_ONLY, CERTIFICATE_ONLY = "ssl_only", "certificate_only"


class SecurePostgreSQL(PostgreSQL):
    """PostgreSQL that also serves TLS, with a group of users for each kind of log-in."""

    name = "secure-postgresql"

    def __init__(self, folder: Path | None = None) -> None:
        tls = temporary_folder("tls") if folder is None else folder
        self.authority = Authority(tls)
        self._certificate = self.authority.sign("postgresql")
        super().__init__()
        files = {"ssl_key_file": self._own(self._certificate.key)}
        files["ssl_cert_file"] = self._own(self._certificate.cert)
        files["ssl_ca_file"] = self._own(self.authority.certificate.cert)
        self._settings |= {"ssl": "on"} | {name: str(path) for name, path in files.items()}

    def create_user(self, name: str, password: str, *groups: str) -> None:
        """A user who may connect and create tables; of SSL_ONLY or CERTIFICATE_ONLY, if said."""
        self.root(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
        for group in ("pg_monitor", *groups):
            self.root(f"GRANT {group} TO {name}")

    def set_password(self, name: str, password: str) -> None:
        """Change it. Open connections stay."""
        self.root(f"ALTER ROLE {name} PASSWORD '{password}'")

    def drop_connections(self, name: str) -> None:
        """End every connection of a user, as a fail-over or a proxy would."""
        self.root(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{name}'"
        )

    def root(self, sql: str) -> None:
        """Run one statement as the superuser."""
        with self.root_connection() as connection:
            connection.execute(sql)

    def _prepare(self) -> None:
        is_new = not self._data.exists()
        super()._prepare()
        if is_new:
            rules = self._data / "pg_hba.conf"
            rules.write_text(
                f"hostnossl all +{SSL_ONLY} all reject\n"
                f"hostnossl all +{CERTIFICATE_ONLY} all reject\n"
                f"hostssl all +{CERTIFICATE_ONLY} all scram-sha-256 clientcert=verify-ca\n"
                + rules.read_text()
            )

    def _is_ready(self) -> bool:
        if not super()._is_ready():
            return False
        for group in (SSL_ONLY, CERTIFICATE_ONLY):
            with suppress(psycopg.errors.DuplicateObject):
                self.root(f"CREATE ROLE {group}")
        return True

    def _own(self, file: Path) -> Path:
        # The server takes no key that others may read.
        copy = self.folder / file.name
        copy.write_text(file.read_text())
        copy.chmod(0o600)
        if os.geteuid() == 0:
            shutil.chown(copy, user=OWNER)
        return copy


def _serve(kind: type[AnyService]) -> Iterator[AnyService]:
    try:
        service = kind(None)
    except MissingPartError as missing:
        pytest.skip(str(missing))
    with service:
        yield service


@pytest.fixture(scope="session")
def secure_kafka() -> Iterator[SecureKafka]:
    """Kafka with every kind of listener."""
    yield from _serve(SecureKafka)


@pytest.fixture(scope="session")
def secure_mariadb() -> Iterator[SecureMariaDB]:
    """MariaDB with TLS."""
    yield from _serve(SecureMariaDB)


@pytest.fixture(scope="session")
def secure_postgresql() -> Iterator[SecurePostgreSQL]:
    """PostgreSQL with TLS."""
    yield from _serve(SecurePostgreSQL)
