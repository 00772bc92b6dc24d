"""
Settings that do harm together are refused before the relay starts, each with the reason.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from outbox_relay.config import load_config
from outbox_relay.config_combinations import RULES
from outbox_relay.errors import ConfigError

REQUIRED = {
    "database.url": "mysql+asyncmy://ob@db/shop",
    "kafka.bootstrap_servers": "kafka:9092",
}

POSTGRESQL = {"database.url": "postgresql+asyncpg://ob@db/shop"}
CASES = [
    (
        {"relay.lease_seconds": "9"},
        "relay.lease_seconds = 9.0 must be greater than kafka.publish_deadline_seconds = 10.0, else "
        "two relays publish the same event",
    ),
    (
        {"relay.lease_seconds": "10.5"},
        "relay.lease_seconds = 10.5 must be greater than kafka.publish_deadline_seconds = 10.0 by 1 "
        "or more: a batch is published only while the rest of the lease is longer than the deadline, "
        "which would hardly ever be so",
    ),
    (
        {"relay.lease_seconds": "301"},
        "relay.lease_seconds = 301.0 must be at most 300: after a crash nobody relays for so long",
    ),
    (
        {"relay.standby_seconds": "16"},
        "relay.standby_seconds = 16.0 must be at most relay.lease_seconds = 15.0: a lease that ran "
        "out would lie there for longer than it lasted",
    ),
    (
        {"relay.poll_seconds": "21"},
        "relay.poll_seconds = 21.0 must be at most 20: /livez takes a relay that does nothing for "
        "30 s for stuck",
    ),
    (
        {"relay.standby_seconds": "21", "relay.lease_seconds": "60"},
        "relay.standby_seconds = 21.0 must be at most 20: /livez takes a relay that does nothing for "
        "30 s for stuck",
    ),
    (
        {"relay.sample_seconds": "101"},
        "relay.sample_seconds = 101.0 must be at most 100: the server closes a connection that is "
        "idle for 120 s, so every other sample would fail, and the backlog would count as unknown",
    ),
    (
        {"relay.stop_seconds": "1"},
        "relay.stop_seconds = 1.0 must be greater than 1: the last second is for closing "
        "connections, so nothing that is under way would be settled, and all of it published twice",
    ),
    (
        {"relay.chunk_rows": "3001"},
        "relay.chunk_rows = 3001 must be at most half of relay.in_flight_rows = 6000",
    ),
    (
        {"relay.in_flight_bytes": "200000", "relay.max_payload_bytes": "200000"},
        "relay.batch_bytes = 262144 must be at most relay.in_flight_bytes = 200000: no batch would "
        "ever be full",
    ),
    (
        {"relay.batch_bytes": "1048577"},
        "relay.batch_bytes = 1048577 must be at most kafka.max_request_bytes = 1048576: the brokers' "
        "limit is for whole batches, and each of them would be refused first and then published in "
        "halves",
    ),
    (
        {
            "relay.batch_bytes": "67108865",
            "relay.in_flight_bytes": "70000000",
            "kafka.compression": "gzip",
        },
        "relay.batch_bytes = 67108865 must be at most 67108864: the client makes no larger batch, so "
        "none would ever go out",
    ),
    (
        {"relay.max_payload_bytes": "67108865"},
        "relay.max_payload_bytes = 67108865 must be at most relay.in_flight_bytes = 67108864: one "
        "event would take more memory than all together may",
    ),
    (
        {"relay.wake_published": "udp:relay-1:9466"},
        'relay.wake_published = "udp:relay-1:9466" needs relay.wake_address: nobody listens for the '
        "hints that others send there",
    ),
    (
        {"relay.wake_notify": "true"},
        "relay.wake_notify = true is for PostgreSQL: use relay.wake_address",
    ),
    (
        {
            "relay.wake_notify": "true",
            "database.url": "postgresql+asyncpg://ob@db/shop",
            "database.transaction_pooler": "true",
        },
        "relay.wake_notify = true does not go with database.transaction_pooler = true: LISTEN belongs "
        "to a session, and behind such a pooler nothing would ever be heard: use relay.wake_address",
    ),
    *(
        (
            {
                "broker.kind": kind,
                f"{section}.url": f"{section}://localhost/",
                f"{section}.max_record_bytes": "100000",
            },
            f"relay.batch_bytes = 262144 must be at most {section}.max_record_bytes = 100000: an "
            "event that is too large must travel alone",
        )
        for kind, section in (("amqp", "amqp"), ("redis_pubsub", "redis"))
    ),
    (
        {"broker.kind": "jsonl", "relay.lease_seconds": "10.5"},
        "relay.lease_seconds = 10.5 must be greater than jsonl.publish_deadline_seconds = 10.0 by 1 "
        "or more: a batch is published only while the rest of the lease is longer than the deadline, "
        "which would hardly ever be so",
    ),
    (
        {"database.layout": "python-cqrs", "relay.wake_notify": "true", **POSTGRESQL},
        'relay.wake_notify = true does not go with database.layout = "python-cqrs": its table has no '
        "trigger that would send hints",
    ),
    (
        {"database.layout": "python-cqrs", "canary.topic": "canary"},
        'canary.topic = "canary" does not go with database.layout = "python-cqrs": the relay writes '
        "nothing into a table of python-cqrs",
    ),
    (
        {"database.layout": "python-cqrs", "relay.max_active_relays": "2"},
        'relay.max_active_relays = 2 must be 1 with database.layout = "python-cqrs": its rows have no '
        "lanes to share; other relays stand by",
    ),
    (
        {"database.layout": "python-cqrs", "relay.dead_letter_retention_seconds": "60"},
        "relay.dead_letter_retention_seconds = 60.0 must be 0 with database.layout = "
        '"python-cqrs": nothing is purged there; discard dead letters by hand',
    ),
    (
        {"database.layout": "python-cqrs", "wire.envelope": "python-cqrs-0"},
        'wire.envelope = "python-cqrs-0" must be "none" with database.layout = "python-cqrs": its rows '
        "hold documents already; database.layout_envelope is for those that do not",
    ),
    (
        {"wire.envelope": "python-cqrs-5", "wire.compressed_payloads": "pass_through"},
        'wire.envelope = "python-cqrs-5" does not go with wire.compressed_payloads = "pass_through": a '
        "payload that is not inflated fits into no document",
    ),
    (
        {
            "broker.kind": "redis_pubsub",
            "redis.url": "redis://localhost/0",
            "wire.headers": "none",
        },
        'wire.headers = "none" does not go with redis.format = "cloudevents": a CloudEvent is made of '
        "the headers",
    ),
    (
        {
            "broker.kind": "amqp",
            "amqp.url": "amqp://localhost/",
            "amqp.routing_key": "{event}",
            "wire.headers": "none",
        },
        'wire.headers = "none" does not go with amqp.routing_key = "{event}": the event\'s name is one '
        "of the headers, so no event could be routed, and each would become a dead letter",
    ),
    (
        {"database.layout": "python-cqrs", "database.url": "sqlite+aiosqlite:///outbox.db"},
        'database.layout = "python-cqrs" is for MySQL, MariaDB and PostgreSQL: python-cqrs cannot '
        "write to SQLite",
    ),
    (
        {"kafka.request_timeout_seconds": "10"},
        "kafka.request_timeout_seconds = 10.0 must be less than kafka.publish_deadline_seconds = 10.0",
    ),
]


def problems(changes: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load_config(None, {}, REQUIRED | changes)
    return [
        line.removeprefix("flag: ").removeprefix("configuration: ")
        for line in raised.value.problems
    ]


@pytest.mark.parametrize(("changes", "expected"), CASES, ids=lambda case: str(list(case)[:1]))
def test_what_does_harm_together_is_refused_with_the_reason(
    changes: dict[str, str], expected: str
) -> None:
    """
    One line, by the key path of the setting to change.
    """
    assert problems(changes) == [expected]


def test_each_combination_has_a_case() -> None:
    """
    No rule is there that nothing tests.
    """
    said = [expected for _, expected in CASES]
    unsaid = [
        rule.reason
        for rule in RULES
        if not any(rule.reason.partition("{other}")[2] in line for line in said)
        and not any(rule.reason in line for line in said)
    ]

    assert unsaid == []


def test_combinations_are_told_all_at_once_and_not_about_unknown_values() -> None:
    """
    What a setting that cannot be read would do to others is not guessed.
    """
    found = problems(
        {"relay.stop_seconds": "0.5", "relay.poll_seconds": "99", "relay.batch_bytes": "many"}
    )

    assert [line.split(" = ")[0] for line in found] == [
        "relay.batch_bytes",
        "relay.poll_seconds",
        "relay.stop_seconds",
    ]


def test_the_edges_are_fine(tmp_path: Path) -> None:
    """
    What is just allowed is allowed; with compression a batch may be larger than a request.
    """
    loaded = load_config(
        None,
        {},
        REQUIRED
        | {
            "relay.lease_seconds": "11",
            "relay.standby_seconds": "11",
            "relay.poll_seconds": "20",
            "relay.sample_seconds": "100",
            "relay.stop_seconds": "1.1",
            "relay.batch_bytes": "2000000",
            "kafka.compression": "gzip",
        },
    )

    assert loaded.relay.batch_bytes == 2_000_000
