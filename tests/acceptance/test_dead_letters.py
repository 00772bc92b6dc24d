"""
A dead letter's second life: the limit is raised, the operator requeues it, and it arrives.
"""

from __future__ import annotations

import subprocess
import time

import pytest
import sqlalchemy as sa
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource

from outbox_relay import Outbox
from tests.acceptance.relays import account, wait_until_relayed
from tests.acceptance.writer import VersionRaised

LARGE = "x" * 1_500_000
LIMIT = 4_000_000


@pytest.fixture
def engine(migrated):
    made = sa.create_engine(migrated.sync_url)
    yield made
    made.dispose()


def write(engine, topic: str, aggregate: str, *versions: tuple[int, str]) -> None:
    """Events of an aggregate, each with its version."""
    outbox = Outbox(source="/acceptance", max_event_bytes=LIMIT, compressor=None)
    with engine.begin() as connection:
        for version, note in versions:
            event = VersionRaised(aggregate=aggregate, version=version, note=note)
            outbox.add(connection, event, topic=topic)


def wait_for(engine, statuses: list[int]) -> None:
    """Until the rows stand like this, in the order of their ids."""
    deadline = time.monotonic() + 60
    found: list[int] = []
    while time.monotonic() < deadline:
        with engine.connect() as connection:
            query = sa.text("SELECT status FROM outbox ORDER BY id")
            found = list(connection.execute(query).scalars())
        if found == statuses:
            return
        time.sleep(0.1)
    raise AssertionError(f"after 60 s the rows stand as {found}, not {statuses}")


def raise_limit(kafka, topic: str) -> None:
    """`max.message.bytes` of the topic."""
    admin = kafka._admin()
    entry = ConfigEntry(
        "max.message.bytes", str(LIMIT), incremental_operation=AlterConfigOpType.SET
    )
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(30)


@pytest.mark.parametrize("policy", ["hold_key", "skip"])
def test_an_oversized_event_is_requeued_once_the_limit_is_raised(
    migrated, engine, make_relay, kafka, topic_name, policy
):
    """
    I4. hold_key: its key waits for it, also across a restart, and it comes in its place. skip: it
    comes late and says so.
    """
    relay = make_relay(on_dead_letter=f'"{policy}"')
    write(engine, topic_name, "big", (1, ""), (2, LARGE), (3, ""))
    write(engine, topic_name, "other", (1, ""))
    relay.start()
    later = 0 if policy == "hold_key" else 1
    wait_for(engine, [1, 2, later, 1])
    write(engine, topic_name, "big", (4, ""))
    write(engine, topic_name, "other", (2, ""))
    wait_for(engine, [1, 2, later, 1, later, 1])
    relay.stop()

    raise_limit(kafka, topic_name)
    limit = ("--set", f"kafka.max_request_bytes={LIMIT}")
    relay.start(*limit)
    write(engine, topic_name, "other", (3, ""))
    wait_for(engine, [1, 2, later, 1, later, 1, 1])
    command = [relay.command, "dead-letters", "requeue", "--config", str(relay.config)]
    subprocess.run([*command, "--reason", "too_large", "--yes"], check=True)
    wait_until_relayed(migrated)
    relay.stop()

    result = account(migrated, kafka, topic_name)
    big = [r for r in kafka.consume_all(topic_name) if r.key == b"big"]
    sequence = [int(record.headers["outbox-seq"]) for record in big]
    assert (result.lost, result.ghosts, result.dead, result.duplicates) == (0, 0, 0, 0)
    assert [b"xxx" in (record.value or b"") for record in big].index(True) == (
        1 if policy == "hold_key" else 3
    )
    assert (sequence == sorted(sequence)) == (policy == "hold_key")
    assert (result.inversions == 0) == (policy == "hold_key")
    assert ["requeued-at" in record.headers for record in big] == [
        b"xxx" in (record.value or b"") for record in big
    ]
