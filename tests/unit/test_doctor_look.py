"""
`doctor`: how answers of servers, files and sockets become facts.
"""

from __future__ import annotations

import doctest
import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from outbox_relay.brokers.options import AmqpOptions, JsonlOptions
from outbox_relay.config import load_config
from outbox_relay.doctor import Area, Findings, Severity
from outbox_relay.doctor.examine import Seen, judge
from outbox_relay.doctor.facts import Grant
from outbox_relay.doctor.look import kafka
from outbox_relay.doctor.look import rows as looking
from outbox_relay.doctor.look.amqp import places
from outbox_relay.doctor.look.broker import look_at_jsonl, refused
from outbox_relay.doctor.look.configuration import look_at_files
from outbox_relay.doctor.look.redis import facts_of
from outbox_relay.doctor.look.rights import parse_grant
from outbox_relay.doctor.look.wake import look_at_wake
from outbox_relay.doctor.rules.server import grants_beyond
from outbox_relay.errors import BrokerUnavailable, CredentialsError
from outbox_relay.schema import tables
from tests.services.certificates import Authority

URL = "mysql+asyncmy://relay@db/shop"


def test_files_are_looked_at_as_the_relay_reads_them(tmp_path: Path) -> None:
    """
    A secret that everybody may read, one that is empty, a certificate that ran out, and a password in
    the settings' own file.
    """
    authority = Authority(tmp_path / "tls")
    password, key_password, file = (tmp_path / name for name in ("password", "key", "config.toml"))
    password.write_text("geheim")
    password.chmod(0o644)
    key_password.write_text("")
    key_password.chmod(0o600)
    expired = authority.sign_expired("relay")
    file.write_text(
        f'[database]\nurl = "{URL}"\npassword_file = "{password}"\n'
        "[kafka]\nbootstrap_servers = 'localhost:9092'\nsecurity_protocol = 'SASL_SSL'\n"
        "sasl_mechanism = 'PLAIN'\nsasl_username = 'u'\nsasl_password = 'geheim'\n"
        f"ssl_ca_file = '{authority.certificate.cert}'\nssl_cert_file = '{expired.cert}'\n"
        f"ssl_key_file = '{expired.key}'\nssl_key_password_file = '{key_password}'\n"
    )
    file.chmod(0o644)
    expired.key.chmod(0o600)
    config = load_config(file, {})
    facts = look_at_files(config)
    found = judge(config, Seen(files=facts))
    later = judge(
        config,
        Seen(files=look_at_files(config, now=datetime.now(UTC) + timedelta(days=365 * 200))),
    )
    for path in (password, file):
        path.chmod(0o600)
    mended = judge(config, Seen(files=look_at_files(config)))

    assert sorted(finding.code for finding in found) == [
        "certificate-expiring",
        "secret-open",
        "secret-open",
        "secret-unreadable",
    ]
    assert [f.severity for f in found if f.code == "certificate-expiring"] == [Severity.ERROR]
    assert sum(finding.code == "certificate-expiring" for finding in later) == 2
    assert {finding.code for finding in mended} == {"certificate-expiring", "secret-unreadable"}
    assert "geheim" not in str([finding.as_json() for finding in found])


def test_files_that_are_fine() -> None:
    """
    Settings without a file have none to look at; a value of the environment is in no file.
    """
    config = load_config(
        None, {"OUTBOX_RELAY_DATABASE__URL": URL, "OUTBOX_RELAY_KAFKA__BOOTSTRAP_SERVERS": "k:1"}
    )
    facts = look_at_files(config)

    assert (facts.files, facts.config_path, facts.secrets_in_config) == ((), None, ())


@pytest.mark.parametrize(
    ("text", "grant"),
    [
        (
            "GRANT USAGE ON *.* TO `relay`@`%` IDENTIFIED BY PASSWORD '*2470C0C06DEE'",
            Grant(target="*.*", names=frozenset({"USAGE"}), covers="server"),
        ),
        (
            "GRANT SELECT (`id`, `topic`), UPDATE ON `shop`.`outbox` TO `relay`@`%`",
            Grant(target="`shop`.`outbox`", names=frozenset({"SELECT", "UPDATE"}), covers="table"),
        ),
        (
            "GRANT ALL PRIVILEGES ON `ob\\_%`.* TO `ob`@`%` WITH GRANT OPTION",
            Grant(
                target="`ob\\_%`.*",
                names=frozenset({"ALL PRIVILEGES", "GRANT OPTION"}),
                covers="database",
            ),
        ),
        ("GRANT `role`@`%` TO `relay`@`%`", None),
        ("GRANT PROXY ON ''@'%' TO 'root'@'localhost' WITH GRANT OPTION", None),
        ("GRANT PROXY ON ``@`` TO `root`@`localhost` WITH GRANT OPTION", None),
        ("GRANT SELECT ON `performance_schema`.`x` TO `relay`@`%`", None),
    ],
)
def test_lines_of_show_grants(text: str, grant: Grant | None) -> None:
    """
    What they tell of passwords goes nowhere.
    """
    assert parse_grant(text) == grant


def test_only_what_goes_beyond_is_needless() -> None:
    """
    Rights to look do no harm; on another table each is too many.
    """
    grants = (
        Grant(target="*.*", names=frozenset({"USAGE", "PROCESS"}), covers="server"),
        Grant(target="t", names=frozenset({"SELECT", "UPDATE"}), covers="table"),
        Grant(target="u", names=frozenset({"SELECT"}), covers="table"),
    )

    assert grants_beyond(grants, {"t": frozenset({"SELECT", "UPDATE"})}) == (grants[2],)


def test_what_info_says_of_redis() -> None:
    """
    Three answers, any of which the user may not get.
    """
    replication = b"# Replication\r\nrole:master\r\nconnected_slaves:2\r\n"
    memory = b"maxmemory:0\r\nmaxmemory_policy:noeviction\r\n"
    facts, skipped = facts_of([replication, RuntimeError("NOPERM"), memory])
    nothing, blind = facts_of([RuntimeError("NOPERM")] * 3)
    closed, _ = facts_of([RuntimeError("NOAUTH Authentication required.")])

    assert (facts.role, facts.replicas, facts.has_log) == ("master", 2, None)
    assert (facts.policy, facts.max_memory, skipped) == ("noeviction", 0, [])
    assert (nothing.role, [item.area for item in blind]) == (None, [Area.BROKER])
    assert closed.unreachable is not None
    assert closed.unreachable.kind == "login"


def test_where_events_go_on_rabbitmq() -> None:
    """
    Queues of the default exchange are known by the topic alone.
    """
    assert places(AmqpOptions(), ["b", "a"]) == ([], ["a", "b"])
    assert places(AmqpOptions(routing_key="{topic}.{key}"), ["a"]) == ([], [])
    assert places(AmqpOptions(exchange="{topic}.x"), ["a", "b"]) == (["a.x", "b.x"], [])


def test_why_a_broker_lets_nobody_in() -> None:
    """
    A refused log-in is told apart from a server that is away.
    """
    away = BrokerUnavailable("amqp at h:1: ConnectionRefusedError: start it, or correct amqp.url")
    login = BrokerUnavailable("amqp.password_file = /p cannot be read")
    login.__cause__ = CredentialsError("x")

    assert (refused(away).kind, refused(away).mend) == ("away", "Start it, or correct amqp.url.")
    assert refused(login).kind == "login"


def test_a_file_of_json_lines(tmp_path: Path) -> None:
    """
    Standard output can always be written; a folder without the right cannot.
    """
    assert look_at_jsonl(JsonlOptions(path="-")).problem is None
    assert look_at_jsonl(JsonlOptions(path=str(tmp_path / "e"))).problem is None
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        assert look_at_jsonl(JsonlOptions(path=str(tmp_path / "e"))).problem is not None


async def test_a_socket_is_tried_by_a_hint(tmp_path: Path) -> None:
    """
    An empty datagram, which is what applications send.
    """
    path = tmp_path / "s"
    config = load_config(
        None,
        {},
        {
            "database.url": URL,
            "kafka.bootstrap_servers": "k:1",
            "relay.wake_address": f"unix:{path},udp:127.0.0.1:0",
            "http.enabled": "false",
        },
    )
    missing = await look_at_wake(config)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        taken = await look_at_wake(config)
        content = listener.recv(10)
    dead = await look_at_wake(config)
    path.unlink()
    path.write_text("no socket")
    other = await look_at_wake(config)

    states = [facts[0].state for facts in (missing, taken, dead, other)]
    assert states == ["missing", "taken", "nobody", "missing"]
    assert (content, taken[0].counted, taken[1].state) == (b"", None, "unknown")


def test_nothing_found_is_ok() -> None:
    """
    The shape of `--json`, which scripts rely on.
    """
    said = Findings(facts={Area.BROKER: "Kafka"}).as_json()

    assert Findings(unseen=frozenset({Area.RELAY})).word_of(Area.RELAY) == "unknown"
    assert list(said) == ["severity", "areas", "findings", "skipped"]
    assert said["severity"] == "ok"
    assert said["areas"]["broker"] == {"severity": "ok", "looked_at": "Kafka"}


@pytest.mark.parametrize(
    ("paused", "others_wait"),
    [(["orders"], True), (["orders", "*"], False), (["orders", "payments"], False)],
)
def test_what_a_pause_left_waiting_hides_nobody(
    paused: list[str], others_wait: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    More rows of a paused topic than are looked at come first: that others do not flow is seen all the same.
    """
    monkeypatch.setattr(looking, "MOST_PENDING", 3)
    names, engine = tables(), sa.create_engine("sqlite://")
    names.metadata.create_all(engine)
    with engine.begin() as connection:
        for topic in ["orders"] * 5 + ["payments"]:
            row = {"event_name": "e", "topic": topic, "payload": b"{}"}
            connection.execute(sa.insert(names.outbox).values(row))
        for topic in paused:
            connection.execute(sa.insert(names.control).values(topic=topic))
        found = looking.look_at_rows(connection, names, {})

    assert (found.oldest_pending_seconds is not None) == others_wait
    assert found.oldest_of_paused != others_wait


@pytest.mark.parametrize(
    ("waiting", "paused", "pauses"),
    [
        (["a"], ["a"], True),
        (["a"], ["*"], True),
        (["a", "b"], ["b", "@purge"], False),
        ([], ["a"], False),
    ],
)
def test_whether_the_oldest_pauses(waiting: list[str], paused: list[str], pauses: bool) -> None:
    """
    A pause of another topic, or of the purge, is no reason why the first one waits.
    """
    assert looking.oldest_pauses(waiting, paused) == pauses


def test_what_nobody_could_see_is_not_called_well() -> None:
    """
    Not even where nothing was found: a script must not take it for health.
    """
    blind = Findings(unseen=frozenset({Area.RELAY}))

    assert blind.severity is Severity.WARNING
    assert Findings().severity is Severity.OK


def test_what_an_old_broker_lacks_is_said() -> None:
    """
    As the docstring of the look shows: a request that it does not know, or an answer.
    """
    found = doctest.testmod(kafka)

    assert found.attempted > 0
    assert found.failed == 0
