"""Settings of RabbitMQ and what else speaks AMQP 0-9-1: the one home of their defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Literal
from urllib.parse import SplitResult, urlsplit

PLACES = ("{topic}", "{event}", "{key}")
"""What `exchange` and `routing_key` may name; an exchange only the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AmqpOptions:
    """Where RabbitMQ is and how to publish to it, section ``[amqp]``, for ``broker.kind = "amqp"``. Messages are always persistent, mandatory and confirmed."""

    url: str = field(default="", repr=False)
    """amqp://user:password@host:5672/vhost, or amqps:// for TLS, which verifies certificate and host name. Without a path the vhost is /. Required for broker.kind = amqp."""

    password_file: str = ""
    """File that holds the password, instead of the URL. Read again for each connection."""

    ssl_ca_file: str = ""
    """With amqps: authorities that may have signed the server's certificate, PEM. Empty for those of the system. Read again for each connection, as are the next three."""

    ssl_cert_file: str = ""
    """Certificate of the relay, PEM, if the server asks for one."""

    ssl_key_file: str = ""
    """Its key, PEM; empty if it is in ssl_cert_file."""

    ssl_key_password_file: str = ""
    """File that holds the key's password, if it has one."""

    exchange: str = ""
    """Exchange to publish to, which must exist. {topic} stands for the event's topic. Empty: the default exchange, which hands a message to the queue that is named like its routing key."""

    routing_key: str = "{topic}"
    """Routing key of a message. {topic}, {event} and {key} stand for the event's topic, name and key."""

    unroutable: Literal["reject", "pause"] = "reject"
    """What becomes of an event that no queue takes: reject makes it a dead letter (and pauses the topic after five in a row), pause lets the topic wait until a queue is bound."""

    publish_deadline_seconds: float = 10.0
    """When a batch without all of its confirms counts as unknown and is published again. Must be less than relay.lease_seconds."""

    request_timeout_seconds: float = 4.0
    """Longest wait for one answer of the server, also for a connection."""

    max_record_bytes: int = 16_777_216
    """Largest payload. Raise it together with the server's max_message_size (16 MiB since RabbitMQ 4.0, 128 MiB before)."""

    def problems(self) -> list[str]:
        """What is wrong with these settings, one line each, named by key."""
        found = [] if find_spec("aio_pika") else [missing("amqp", "aio-pika", "amqp")]
        found += url_problems("amqp", self.url, ("amqp", "amqps"), "amqp://relay@localhost/")
        found += password_problems("amqp", self.url, self.password_file)
        found += time_problems("amqp", self)
        found += ssl_problems("amqp", self, is_on=self.url.startswith("amqps:"), scheme="amqps")
        found += template_problems("amqp.exchange", self.exchange, PLACES[:1])
        found += template_problems("amqp.routing_key", self.routing_key, PLACES)
        if not self.routing_key and not self.exchange:
            found.append("amqp.routing_key is required without amqp.exchange: it names the queue")
        return found


def missing(kind: str, package: str, extra: str) -> str:
    """What to install."""
    return f"broker.kind = {kind} needs the package {package}: pip install 'outbox-relay[{extra}]'"


def parse(url: str) -> SplitResult | None:
    """*url* in parts; None if it is no URL, or an @ or / of the password is not written as %40."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return None if parts.netloc.count("@") > 1 or "@" in parts.path else parts


def url_problems(section: str, url: str, schemes: tuple[str, ...], example: str) -> list[str]:
    """What is wrong with a broker's URL. Never repeats it."""
    if not url:
        return [f"{section}.url is required, such as {example}"]
    parts = parse(url)
    known = ", ".join(f"{scheme}://" for scheme in schemes)
    if parts is None:
        return [
            f"{section}.url is not a URL: use {example}, with special characters of the password "
            "written as %40 and the like"
        ]
    if parts.scheme not in schemes:
        return [f"{section}.url must begin with {known}"]
    if parts.scheme != "unix" and not parts.hostname:
        return [f"{section}.url names no host: use {example}"]
    if parts.query or parts.fragment:
        return [f"{section}.url has parameters after ? or #: remove them, [{section}] has settings"]
    return []


def password_problems(section: str, url: str, password_file: str) -> list[str]:
    """Two passwords, or one without a user."""
    parts = parse(url)
    if not password_file or parts is None:
        return []
    if parts.password:
        return [f"{section}.password_file and a password in {section}.url are two: keep one"]
    if section == "amqp" and not parts.username:
        return ["amqp.password_file needs a user in amqp.url, such as amqp://relay@localhost/"]
    return []


def time_problems(section: str, options: object) -> list[str]:
    """Limits that are none, or that do not fit one another."""
    limits = ("publish_deadline_seconds", "request_timeout_seconds", "max_record_bytes")
    values = {key: getattr(options, key) for key in limits}
    found = [
        f"{section}.{key} = {value} must be greater than 0"
        for key, value in values.items()
        if value <= 0
    ]
    if values["request_timeout_seconds"] >= values["publish_deadline_seconds"]:
        found.append(
            f"{section}.request_timeout_seconds = {values['request_timeout_seconds']} must be less "
            f"than {section}.publish_deadline_seconds = {values['publish_deadline_seconds']}"
        )
    return found


def ssl_problems(section: str, options: object, *, is_on: bool, scheme: str) -> list[str]:
    """Files for TLS that nothing reads."""
    keys = ("ssl_ca_file", "ssl_cert_file", "ssl_key_file", "ssl_key_password_file")
    if not is_on:
        return [
            f"{section}.{key} needs {section}.url to begin with {scheme}://"
            for key in keys
            if getattr(options, key)
        ]
    return [
        f"{section}.{key} needs {section}.ssl_cert_file"
        for key in keys[2:]
        if getattr(options, key) and not getattr(options, "ssl_cert_file", "")
    ]


def template_problems(key: str, template: str, places: tuple[str, ...]) -> list[str]:
    """Braces that stand for nothing."""
    rest = template
    for place in places:
        rest = rest.replace(place, "")
    if "{" in rest or "}" in rest:
        return [f'{key} = "{template}" may name {", ".join(places)} only']
    return []
