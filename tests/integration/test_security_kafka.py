"""
Log-in and encryption towards a real Kafka: what works, what is refused and how it is said.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from outbox_relay.brokers.kafka import KafkaBroker
from outbox_relay.brokers.options import KafkaOptions
from outbox_relay.errors import AuditError, BrokerUnavailable, ConfigError
from outbox_relay.relay.outcomes import Acked, Unknown
from outbox_relay.relay.ports import Record
from outbox_relay.testing import record
from outbox_relay.wiring import build_audited_topics
from tests.services.certificates import KEY_PASSWORD, Authority
from tests.services.secure import PLAIN_PASSWORD, PLAIN_USER

TOKENS = "tests.integration.tokens"
PLAIN = {"sasl_mechanism": "PLAIN", "sasl_username": PLAIN_USER, "sasl_password": PLAIN_PASSWORD}


def records(value: bytes) -> list[Record]:
    return [record(b"k", value)]


@asynccontextmanager
async def broker(kafka, protocol, **settings):
    """A broker for a listener that asks for what *settings* say; it verifies the tests' authority."""
    if protocol.endswith("SSL"):
        settings = {"ssl_ca_file": str(kafka.authority.certificate.cert)} | settings
    options = KafkaOptions(
        bootstrap_servers=kafka.server(protocol),
        security_protocol=protocol,
        publish_deadline_seconds=5,
        request_timeout_seconds=4,
        **settings,
    )
    assert options.problems() == []
    made = KafkaBroker(options)
    yield made
    await made.close(timeout_seconds=1)


async def refusal(kafka, protocol, **settings) -> str:
    """What the broker's adapter says when it cannot log in."""
    async with broker(kafka, protocol, **settings) as made:
        with pytest.raises(BrokerUnavailable) as raised:
            await made.partitions("any")
        return str(raised.value)


@pytest.fixture
def scram_user(secure_kafka, topic_name):
    user = f"user-{topic_name}"
    secure_kafka.set_scram_password(user, "right")
    return user


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_scram_logs_in(secure_kafka, topic_name, scram_user, protocol, mechanism):
    """
    With the right password a batch is acked.
    """
    secure_kafka.create_topic(topic_name)
    settings = {"sasl_mechanism": mechanism, "sasl_username": scram_user, "sasl_password": "right"}
    async with broker(secure_kafka, protocol, **settings) as made:
        await made.partitions(topic_name)

        assert await made.publish(topic_name, 0, records(b"v")) == Acked()


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
async def test_plain_logs_in(secure_kafka, topic_name, protocol):
    """
    With the right password a batch is acked.
    """
    secure_kafka.create_topic(topic_name)
    async with broker(secure_kafka, protocol, **PLAIN) as made:
        await made.partitions(topic_name)

        assert await made.publish(topic_name, 0, records(b"v")) == Acked()


@pytest.mark.parametrize("provider", ["fetch", "fetch_async"])
async def test_a_token_logs_in(secure_kafka, topic_name, provider):
    """
    The provider may be a plain function or a coroutine function.
    """
    secure_kafka.create_topic(topic_name)
    token = {"sasl_mechanism": "OAUTHBEARER", "oauth_token_provider": f"{TOKENS}:{provider}"}
    async with broker(secure_kafka, "SASL_PLAINTEXT", **token) as made:
        await made.partitions(topic_name)

        assert await made.publish(topic_name, 0, records(b"v")) == Acked()


@pytest.mark.parametrize("form", ["two files", "encrypted key"])
async def test_a_certificate_logs_in(secure_kafka, topic_name, tmp_path, form):
    """
    The listener asks for a certificate. The key may have a password, read from a file.
    """
    secure_kafka.create_topic(topic_name)
    own = secure_kafka.authority.sign(f"client-{form.replace(' ', '-')}")
    settings = {"ssl_cert_file": str(own.cert), "ssl_key_file": str(own.key)}
    if form == "encrypted key":
        password = tmp_path / "password"
        password.write_text(KEY_PASSWORD + "\n")
        encrypted = secure_kafka.authority.encrypted_key(own)
        settings |= {"ssl_key_file": str(encrypted), "ssl_key_password_file": str(password)}
    async with broker(secure_kafka, "SSL", **settings) as made:
        await made.partitions(topic_name)

        assert await made.publish(topic_name, 0, records(b"v")) == Acked()


@pytest.mark.parametrize(
    ("protocol", "settings", "expected"),
    [
        ("SASL_SSL", {**PLAIN, "sasl_password": "canary"}, "check kafka.sasl_username"),
        (
            "SASL_PLAINTEXT",
            {**PLAIN, "sasl_mechanism": "SCRAM-SHA-512", "sasl_password": "canary"},
            "check kafka.sasl_username",
        ),
        (
            "SASL_PLAINTEXT",
            {"sasl_mechanism": "OAUTHBEARER", "oauth_token_provider": f"{TOKENS}:explode"},
            "tokens:explode raised RuntimeError",
        ),
        (
            "SASL_PLAINTEXT",
            {"sasl_mechanism": "OAUTHBEARER", "oauth_token_provider": f"{TOKENS}:wrong"},
            "refuses the token of kafka.oauth_token_provider",
        ),
        ("SSL", {}, "whether the brokers ask for kafka.ssl_cert_file"),
    ],
    ids=["plain", "scram", "token raises", "token refused", "no certificate"],
)
async def test_a_refused_login_says_what_to_do(
    secure_kafka, monkeypatch, protocol, settings, expected
):
    """
    aiokafka says only that it was unable to bootstrap. The reason and the setting are named, and
    no secret is.
    """
    monkeypatch.setenv("TOKEN_CANARY", "canary")
    said = await refusal(secure_kafka, protocol, **settings)

    assert expected in said
    assert "canary" not in said


async def test_a_broker_of_another_authority_is_refused(secure_kafka, tmp_path):
    """
    Certificates are always verified: of another authority, and with the system's alone.
    """
    other = Authority(tmp_path, "other")
    with_other = await refusal(
        secure_kafka, "SASL_SSL", **PLAIN, ssl_ca_file=str(other.certificate.cert)
    )
    with_none = await refusal(secure_kafka, "SASL_SSL", **PLAIN, ssl_ca_file="")

    assert "kafka.ssl_ca_file must hold the authority" in with_other
    assert "kafka.ssl_ca_file must hold the authority" in with_none


async def test_a_broker_under_another_name_is_refused(secure_kafka):
    """
    The host name is always verified: 127.1 is the same address and is not in the certificate.
    """
    options = KafkaOptions(
        bootstrap_servers=secure_kafka.server("SASL_SSL").replace("127.0.0.1", "127.1"),
        security_protocol="SASL_SSL",
        ssl_ca_file=str(secure_kafka.authority.certificate.cert),
        **PLAIN,
    )
    made = KafkaBroker(options)
    with pytest.raises(BrokerUnavailable) as raised:
        await made.partitions("any")
    await made.close(timeout_seconds=1)

    assert "the certificate must name the host" in str(raised.value)


async def test_a_changed_password_is_read_again(secure_kafka, topic_name, scram_user, tmp_path):
    """
    The file is rotated and the broker forgets every connection: the same object goes on.
    """
    secure_kafka.create_topic(topic_name)
    file = tmp_path / "password"
    file.write_text("right\n")
    settings = {
        "sasl_mechanism": "SCRAM-SHA-256",
        "sasl_username": scram_user,
        "sasl_password_file": str(file),
    }
    async with broker(secure_kafka, "SASL_PLAINTEXT", **settings) as made:
        await made.partitions(topic_name)
        assert await made.publish(topic_name, 0, records(b"before")) == Acked()

        await asyncio.to_thread(secure_kafka.set_scram_password, scram_user, "changed")
        await asyncio.to_thread(secure_kafka.stop)
        await asyncio.to_thread(secure_kafka.start)
        refused = await made.publish(topic_name, 0, records(b"refused"))
        file.write_text("changed\n")
        deadline = time.monotonic() + 30
        while (outcome := await made.publish(topic_name, 0, records(b"after"))) != Acked():
            assert time.monotonic() < deadline, outcome

    values = [record.value for record in secure_kafka.consume_all(topic_name)]
    assert isinstance(refused, Unknown)
    assert values == [b"before", b"after"]


async def test_a_secret_file_that_cannot_be_read_is_named_and_read_again(
    secure_kafka, topic_name, scram_user, tmp_path
):
    """
    Nothing is given up: as soon as the file is there, the same object goes on.
    """
    secure_kafka.create_topic(topic_name)
    file = tmp_path / "password"
    settings = {
        "sasl_mechanism": "SCRAM-SHA-256",
        "sasl_username": scram_user,
        "sasl_password_file": str(file),
    }
    async with broker(secure_kafka, "SASL_PLAINTEXT", **settings) as made:
        with pytest.raises(BrokerUnavailable) as raised:
            await made.partitions(topic_name)
        probed = await made.probe()
        file.write_text("right")

        assert str(raised.value) == (
            f"kafka.sasl_password_file = {file} cannot be read (No such file or directory): "
            "it must be a file that the relay's user may read"
        )
        assert probed is False
        assert await made.probe() is True
        assert await made.partitions(topic_name) == 1


@pytest.mark.parametrize("name", ["no_such_module:fetch", f"{TOKENS}:no_such_name"])
def test_a_token_provider_that_is_not_there_is_a_wrong_setting(name):
    """
    It is told when the relay is built, not at the first connection.
    """
    options = KafkaOptions(
        bootstrap_servers="localhost:9092",
        security_protocol="SASL_SSL",
        sasl_mechanism="OAUTHBEARER",
        oauth_token_provider=name,
    )
    with pytest.raises(ConfigError) as raised:
        KafkaBroker(options)

    assert raised.value.problems[0].startswith(f"kafka.oauth_token_provider = {name} cannot be")


async def test_an_audit_logs_in_as_the_relay_does(secure_kafka, topic_name):
    """
    With the same settings; a refusal names what to check, and no secret.
    """
    secure_kafka.create_topic(topic_name)
    settings = {
        "bootstrap_servers": secure_kafka.server("SASL_SSL"),
        "security_protocol": "SASL_SSL",
        "ssl_ca_file": str(secure_kafka.authority.certificate.cert),
        **PLAIN,
    }
    topics = build_audited_topics(KafkaOptions(**settings))
    await topics.start()
    found = await topics.existing([topic_name, "absent"])
    await topics.close()
    refused = build_audited_topics(KafkaOptions(**{**settings, "sasl_password": "wrong-secret"}))

    with pytest.raises(
        AuditError, match=r"refuses the log-in: check kafka\.sasl_username"
    ) as raised:
        await refused.start()

    assert found == {topic_name}
    assert "wrong-secret" not in str(raised.value)
