"""
Three brokers that come and go, and topics that are not what they were.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from outbox_relay import Outbox
from outbox_relay.schema import Status
from tests.faults.site import SETTINGS, Site, Sites, assert_all_is_well, until
from tests.services.kafka_cluster import KafkaCluster


@pytest.fixture
def cluster_sites(installed_wheel, toxiproxy, kafka_cluster, tmp_path: Path):
    """Relays at the cluster, without a proxy before it."""
    made = Sites(installed_wheel.command, toxiproxy, kafka_cluster, tmp_path)
    yield made
    made.end()


def started(sites: Sites, server, **options) -> Site:
    """A site that has relayed its first events."""
    site = sites.make("cluster", server, **options)
    site.start()
    site.write(50)
    site.wait_until_relayed()
    return site


def test_leaders_that_die_one_after_another(
    cluster_sites: Sites, kafka_cluster: KafkaCluster, mariadb
):
    """
    I2, I4, I6, I8. Each partition's leader is killed under load, and the next one leads.
    """
    site = started(cluster_sites, mariadb, topic_config={"min.insync.replicas": "2"})

    for partition in range(2):
        site.write(300)
        leader = kafka_cluster.brokers[kafka_cluster.leader(site.topic, partition)]
        leader.kill()
        site.write(300)
        site.wait_until_relayed(seconds=60)
        leader.start()
        kafka_cluster.wait_until_in_sync(site.topic, partition, replicas=3)

    assert_all_is_well(site, most_duplicates=2 * SETTINGS["in_flight_rows"])
    assert site.relay.running.poll() is None


def test_too_few_replicas_hold_up_their_topic_alone(
    cluster_sites: Sites, kafka_cluster: KafkaCluster, mariadb
):
    """
    I7, I8. A topic that needs two replicas in sync and has one waits without losing an attempt; another
    topic goes on meanwhile.
    """
    site = started(cluster_sites, mariadb, partitions=1, topic_config={"min.insync.replicas": "2"})
    stays = kafka_cluster.leader(site.topic)
    healthy = f"{site.topic}-healthy"
    kafka_cluster.create_topic(healthy, replication=[[stays + 1]])
    others = [broker for n, broker in enumerate(kafka_cluster.brokers) if n != stays]

    for broker in others:
        broker.kill()
    site.write(300)
    kafka_cluster.wait_until_in_sync(site.topic, replicas=1)
    with site.engine.begin() as connection:
        events = [{"n": n} for n in range(100)]
        Outbox().add(connection, *events, name="e", topic=healthy, key=None)
    produced = sa.text(f"SELECT COUNT(*) FROM outbox WHERE topic = '{healthy}' AND status = 1")

    def all_produced() -> bool:
        with site.engine.connect() as connection:
            return bool(connection.execute(produced).scalar_one() == 100)

    until(all_produced, seconds=60)
    waiting = site.statuses()
    for broker in others:
        broker.start()
    site.wait_until_relayed(seconds=60)

    assert waiting == {Status.PRODUCED: 150, Status.PENDING: 300}
    assert site.statuses() == {Status.PRODUCED: 450}
    found = site.account()
    assert (found.lost, found.ghosts, found.inversions) == (0, 0, 0)
    assert found.duplicates <= SETTINGS["in_flight_rows"]


@pytest.mark.long
def test_a_cluster_that_lost_its_power(cluster_sites: Sites, kafka_cluster: KafkaCluster, mariadb):
    """
    I2, I4, I8. All brokers are killed at once under load, and started again.
    """
    site = started(cluster_sites, mariadb, topic_config={"min.insync.replicas": "2"})

    site.write(300)
    for broker in kafka_cluster.brokers:
        broker.kill()
    site.write(300)
    time.sleep(5)
    kafka_cluster.start()

    site.wait_until_relayed(seconds=60)
    assert_all_is_well(site, most_duplicates=SETTINGS["in_flight_rows"])


@pytest.mark.parametrize("partitions", [2, 9], ids=["fewer", "more"])
def test_a_topic_that_is_made_anew(sites: Sites, mariadb, partitions: int):
    """
    I2, I4, I7. With fewer partitions, or with more, and events that came while it was gone: the relay
    finds the new topic by itself, and nothing is given up.
    """
    site = sites.make("anew", mariadb, partitions=5)
    site.start()
    site.write(100)
    site.wait_until_relayed()

    site.kafka.delete_topic(site.topic)
    site.write(300)
    until(lambda: site.relay.logged("topic_paused") or site.relay.logged("producer_rebuilt"))
    site.kafka.create_topic(site.topic, partitions=partitions)
    site.write(100)
    site.wait_until_relayed()

    found = site.account()
    assert found.statuses == {Status.PRODUCED: 500}
    # The first hundred went with the topic that was deleted.
    assert (found.lost, found.inversions, found.duplicates) == (100, 0, 0)
    assert {record.partition for record in site.kafka.consume_all(site.topic)} <= set(
        range(partitions)
    )


def test_a_compacted_topic_refuses_what_has_no_key(sites: Sites, mariadb):
    """
    I2, I7. An event without a key is a dead letter with a reason; tombstones and all others arrive.
    """
    site = sites.make(
        "compacted", mariadb, partitions=2, topic_config={"cleanup.policy": "compact"}
    )
    site.start()
    site.write(70)
    with site.engine.begin() as connection:
        outbox = Outbox()
        outbox.add(connection, {"n": 1}, name="keyless", topic=site.topic, key=None)
        outbox.add(connection, None, name="tombstone", topic=site.topic, key="c0")
    site.write(70)
    site.wait_until_relayed()

    with site.engine.connect() as connection:
        dead = connection.execute(
            sa.text("SELECT event_name, last_error FROM outbox WHERE status = 2")
        ).all()
    assert [(row.event_name, row.last_error.partition(":")[0]) for row in dead] == [
        ("keyless", "invalid_record")
    ]
    assert site.statuses() == {Status.PRODUCED: 141, Status.DEAD: 1}
    assert [r.key for r in site.kafka.consume_all(site.topic) if r.value is None] == [b"c0"]
