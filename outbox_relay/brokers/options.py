"""Settings of the brokers: of Kafka here, of the others beside; the one home of their defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Literal

from outbox_relay.brokers.amqp_options import AmqpOptions
from outbox_relay.brokers.jsonl_options import BrokerOptions, JsonlOptions
from outbox_relay.brokers.redis_options import RedisOptions

__all__ = ["AmqpOptions", "BrokerOptions", "JsonlOptions", "KafkaOptions", "RedisOptions"]

_SASL_ONLY = (
    "sasl_mechanism",
    "sasl_username",
    "sasl_password",
    "sasl_password_file",
    "oauth_token_provider",
)
_SSL_ONLY = ("ssl_ca_file", "ssl_cert_file", "ssl_key_file", "ssl_key_password_file")


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaOptions:
    """Where Kafka is and how to speak to it, section ``[kafka]``, for ``broker.kind = "kafka"``. Always ``acks=all``."""

    bootstrap_servers: str = ""
    """Brokers to start from: host:port, separated by commas. Required for broker.kind = kafka."""

    client_id: str = "outbox-relay"
    """Name under which the brokers see this relay."""

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How to speak to the brokers. With SSL their certificates and host names are always verified; SASL logs in."""

    sasl_mechanism: Literal["none", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = (
        "none"
    )
    """How to log in with SASL."""

    sasl_username: str = ""
    """User of PLAIN and SCRAM."""

    sasl_password: str = field(default="", repr=False)
    """Password of PLAIN and SCRAM. Better in a file: see sasl_password_file."""

    sasl_password_file: str = ""
    """File that holds the password. Read again for each producer, and after each failure there is a new one."""

    oauth_token_provider: str = ""
    """For OAUTHBEARER: module:callable, without arguments, sync or async, that returns the token as text. Asked for each connection."""

    ssl_ca_file: str = ""
    """Authorities that may have signed the brokers' certificates, PEM. Empty for those of the system. Read again for each producer, as are the next three."""

    ssl_cert_file: str = ""
    """Certificate of the relay, PEM, if the brokers ask for one."""

    ssl_key_file: str = ""
    """Its key, PEM; empty if it is in ssl_cert_file."""

    ssl_key_password_file: str = ""
    """File that holds the key's password, if it has one."""

    publish_deadline_seconds: float = 10.0
    """When a batch without an answer counts as unknown and is published again. Must be less than relay.lease_seconds."""

    request_timeout_seconds: float = 4.0
    """Longest wait for one answer of a broker, also for a connection."""

    max_request_bytes: int = 1_048_576
    """Largest record. Raise it together with the brokers' message.max.bytes or the topic's max.message.bytes."""

    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "none"
    """How batches are compressed for the brokers. zstd and snappy are nearly free, gzip takes 30 microseconds a record."""

    idempotent: bool = True
    """Let the brokers drop what the client repeats by itself. Only for brokers that cannot do it switch this off."""

    def problems(self) -> list[str]:
        """What is wrong with these settings, one line each, named by key."""
        found = []
        if not self.bootstrap_servers:
            found.append("kafka.bootstrap_servers is required, such as localhost:9092")
        for key in ("publish_deadline_seconds", "request_timeout_seconds", "max_request_bytes"):
            if getattr(self, key) <= 0:
                found.append(f"kafka.{key} = {getattr(self, key)} must be greater than 0")
        if self.request_timeout_seconds >= self.publish_deadline_seconds:
            found.append(
                f"kafka.request_timeout_seconds = {self.request_timeout_seconds} must be less than "
                f"kafka.publish_deadline_seconds = {self.publish_deadline_seconds}"
            )
        if self.compression in ("snappy", "lz4", "zstd") and find_spec("cramjam") is None:
            found.append(
                f"kafka.compression = {self.compression} needs the package cramjam: "
                "pip install 'outbox-relay[relay]'"
            )
        return found + self._ssl_problems() + self._sasl_problems()

    def _ssl_problems(self) -> list[str]:
        if self.security_protocol not in ("SSL", "SASL_SSL"):
            return [
                f'kafka.{key} needs kafka.security_protocol = "SSL" or "SASL_SSL"'
                for key in _SSL_ONLY
                if getattr(self, key)
            ]
        return [
            f"kafka.{key} needs kafka.ssl_cert_file"
            for key in ("ssl_key_file", "ssl_key_password_file")
            if getattr(self, key) and not self.ssl_cert_file
        ]

    def _sasl_problems(self) -> list[str]:
        if self.security_protocol not in ("SASL_PLAINTEXT", "SASL_SSL"):
            return [
                f'kafka.{key} needs kafka.security_protocol = "SASL_SSL" or "SASL_PLAINTEXT"'
                for key in _SASL_ONLY
                if getattr(self, key) not in ("", "none")
            ]
        if self.sasl_mechanism == "none":
            return [
                "kafka.sasl_mechanism is required with "
                f"kafka.security_protocol = {self.security_protocol}: PLAIN, SCRAM-SHA-256, "
                "SCRAM-SHA-512 or OAUTHBEARER"
            ]
        if self.sasl_mechanism == "OAUTHBEARER":
            return self._token_problems()
        return self._password_problems()

    def _token_problems(self) -> list[str]:
        found = [
            f"kafka.{key} is not used with kafka.sasl_mechanism = OAUTHBEARER: remove it"
            for key in ("sasl_username", "sasl_password", "sasl_password_file")
            if getattr(self, key)
        ]
        module, separator, name = self.oauth_token_provider.partition(":")
        if not self.oauth_token_provider:
            found.append(
                "kafka.oauth_token_provider is required with kafka.sasl_mechanism = OAUTHBEARER, "
                "such as my_package.tokens:fetch"
            )
        elif not (module and separator and name):
            found.append("kafka.oauth_token_provider must be module:callable")
        return found

    def _password_problems(self) -> list[str]:
        found = []
        mechanism = f"kafka.sasl_mechanism = {self.sasl_mechanism}"
        if self.oauth_token_provider:
            found.append(f"kafka.oauth_token_provider is not used with {mechanism}: remove it")
        if not self.sasl_username:
            found.append(f"kafka.sasl_username is required with {mechanism}")
        if self.sasl_password and self.sasl_password_file:
            found.append("kafka.sasl_password and kafka.sasl_password_file are two: keep one")
        elif not self.sasl_password and not self.sasl_password_file:
            found.append(f"kafka.sasl_password_file is required with {mechanism}")
        return found
