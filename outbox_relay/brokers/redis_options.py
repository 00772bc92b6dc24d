"""Settings of Redis, as streams and as channels: the one home of their defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Literal

from outbox_relay.brokers.amqp_options import (
    missing,
    password_problems,
    ssl_problems,
    template_problems,
    time_problems,
    url_problems,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisOptions:
    """Where Redis is and how to publish to it, section ``[redis]``, for ``broker.kind = "redis_streams"`` and ``"redis_pubsub"``."""

    url: str = field(default="", repr=False)
    """redis://user:password@host:6379/0, rediss:// for TLS, which verifies certificate and host name, or unix:///path. Required for the two kinds of Redis."""

    password_file: str = ""
    """File that holds the password, instead of the URL. Read again for each connection."""

    ssl_ca_file: str = ""
    """With rediss: authorities that may have signed the server's certificate, PEM. Empty for those of the system. Read again for each connection, as are the next three."""

    ssl_cert_file: str = ""
    """Certificate of the relay, PEM, if the server asks for one."""

    ssl_key_file: str = ""
    """Its key, PEM; empty if it is in ssl_cert_file."""

    ssl_key_password_file: str = ""
    """File that holds the key's password, if it has one."""

    stream: str = "{topic}"
    """redis_streams: key of the stream; {topic} stands for the event's topic. The first event makes it."""

    max_stream_length: int = 0
    """redis_streams: about how many entries a stream keeps (MAXLEN ~); older ones are removed, read or not. 0 keeps all."""

    wait_replicas: int = 0
    """redis_streams: how many replicas must have the entries before they count as acked (WAIT). 0: the answer of the master is enough."""

    channel: str = "{topic}"
    """redis_pubsub: channel; {topic} stands for the event's topic."""

    format: Literal["cloudevents", "payload"] = "cloudevents"
    """redis_pubsub: cloudevents sends one JSON object with the payload inside (structured mode), payload sends the payload alone, without headers."""

    min_receivers: int = 0
    """redis_pubsub: how many subscribers must have been there to take a message; while there are fewer the topic waits. 0: published is published, heard or not."""

    publish_deadline_seconds: float = 10.0
    """When a batch without an answer counts as unknown and is published again. Must be less than relay.lease_seconds."""

    request_timeout_seconds: float = 4.0
    """Longest wait for one answer of the server, also for a connection."""

    max_record_bytes: int = 16_777_216
    """Largest payload. The server's own limit is proto-max-bulk-len, 512 MiB."""

    def problems(self) -> list[str]:
        """What is wrong with these settings, one line each, named by key."""
        found = (
            []
            if find_spec("redis")
            else [missing("redis_streams or redis_pubsub", "redis", "redis")]
        )
        schemes = ("redis", "rediss", "unix")
        found += url_problems("redis", self.url, schemes, "redis://localhost:6379/0")
        found += password_problems("redis", self.url, self.password_file)
        found += time_problems("redis", self)
        found += ssl_problems("redis", self, is_on=self.url.startswith("rediss:"), scheme="rediss")
        for key in ("stream", "channel"):
            template = getattr(self, key)
            found += template_problems(f"redis.{key}", template, ("{topic}",))
            if not template:
                found.append(f'redis.{key} is required, such as "{{topic}}"')
        for key in ("max_stream_length", "wait_replicas", "min_receivers"):
            if getattr(self, key) < 0:
                found.append(f"redis.{key} = {getattr(self, key)} must not be negative")
        return found
