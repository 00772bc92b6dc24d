"""
Encryption towards real RabbitMQ and Redis: what works, what is refused and how it is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from outbox_relay.brokers.amqp import AmqpBroker
from outbox_relay.brokers.options import AmqpOptions, RedisOptions
from outbox_relay.brokers.redis_streams import RedisStreamsBroker
from outbox_relay.errors import CredentialsError
from outbox_relay.relay.outcomes import Acked, Fault, Outcome, Unknown
from outbox_relay.testing import Watcher, record
from tests.services.certificates import KEY_PASSWORD, Authority
from tests.services.process import free_port
from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import Redis


@dataclass
class Site:
    """A server with a port for TLS that asks for a certificate."""

    kind: str
    authority: Authority
    tls_url: str

    async def publish(self, url: str | None = None, **options: Any) -> Outcome:
        """What becomes of one record, with a broker of its own."""
        chosen = {
            "url": url or self.tls_url,
            "publish_deadline_seconds": 5.0,
            "request_timeout_seconds": 4.0,
            **options,
        }
        watcher = Watcher()
        broker: Any
        if self.kind == "amqp":
            broker = AmqpBroker(AmqpOptions(**chosen), observer=watcher)
        else:
            broker = RedisStreamsBroker(RedisOptions(**chosen), observer=watcher)
        async with asyncio.timeout(20):
            outcome: Outcome = await broker.publish("q", 0, [record(b"k", b"x")])
        await broker.close(timeout_seconds=1)
        assert "unexpected_error" not in watcher.names()
        return outcome

    def files(self, **changed: str) -> dict[str, str]:
        """The settings of one who may come in."""
        own = self.authority.sign("relay")
        key_password = self.authority.folder / "key-password"
        key_password.write_text(KEY_PASSWORD)
        return {
            "ssl_ca_file": str(self.authority.certificate.cert),
            "ssl_cert_file": str(own.cert),
            "ssl_key_file": str(self.authority.encrypted_key(own)),
            "ssl_key_password_file": str(key_password),
            **changed,
        }


@pytest.fixture(scope="module", params=["amqp", "redis"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    authority = Authority(tmp_path_factory.mktemp("certificates"))
    server, port = authority.sign("server"), free_port()
    with ExitStack() as stack:
        if request.param == "amqp":
            config = {
                "listeners.ssl.1": f"127.0.0.1:{port}",
                "ssl_options.cacertfile": str(authority.certificate.cert),
                "ssl_options.certfile": str(server.cert),
                "ssl_options.keyfile": str(server.key),
                "ssl_options.verify": "verify_peer",
                "ssl_options.fail_if_no_peer_cert": "true",
            }
            rabbitmq = stack.enter_context(RabbitMQ(config=config))
            rabbitmq.declare_queue("q")
            yield Site("amqp", authority, f"amqps://ob:ob@127.0.0.1:{port}/")
            return
        config = {
            "tls-port": str(port),
            "tls-ca-cert-file": str(authority.certificate.cert),
            "tls-cert-file": str(server.cert),
            "tls-key-file": str(server.key),
            "tls-auth-clients": "yes",
        }
        stack.enter_context(Redis(config=config))
        yield Site("redis", authority, f"rediss://127.0.0.1:{port}/0")


def is_refused(outcome: Outcome) -> bool:
    return isinstance(outcome, Unknown) and outcome.fault is Fault.BROKER


async def test_with_a_certificate_and_an_encrypted_key(site: Site) -> None:
    """
    I3. All four files are read.
    """
    assert await site.publish(**site.files()) == Acked()


async def test_a_server_of_another_authority_is_not_trusted(site: Site, tmp_path: Path) -> None:
    """
    And a host name that its certificate does not name is not either.
    """
    other = str(Authority(tmp_path).certificate.cert)

    outcomes = [
        await site.publish(**site.files(ssl_ca_file=other)),
        await site.publish(**site.files(ssl_ca_file="")),
    ]

    assert all(map(is_refused, outcomes))
    assert all("CERTIFICATE_VERIFY_FAILED" in str(outcome) for outcome in outcomes)


async def test_without_a_certificate_or_without_tls_nobody_comes_in(site: Site) -> None:
    """
    I8. Everything waits; nothing hangs, nothing is given up.
    """
    plain = site.tls_url.replace("s://", "://")

    outcomes = [
        await site.publish(ssl_ca_file=str(site.authority.certificate.cert)),
        await site.publish(plain),
    ]

    assert all(map(is_refused, outcomes))


async def test_a_file_that_cannot_be_used_is_named(site: Site, tmp_path: Path) -> None:
    """
    I8. By its setting; it is read again for each connection.
    """
    section = "amqp" if site.kind == "amqp" else "redis"
    absent = await site.publish(**site.files(ssl_ca_file=str(tmp_path / "absent")))
    empty = tmp_path / "empty"
    empty.touch()
    unusable = await site.publish(**site.files(ssl_cert_file=str(empty)))

    assert is_refused(absent)
    assert f"{section}.ssl_ca_file" in str(absent)
    assert is_refused(unusable)
    assert f"{section}.ssl_cert_file" in str(unusable)
    assert CredentialsError.__name__ not in str(unusable)
