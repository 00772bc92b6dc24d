"""
The Redis adapters against what Redis does.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from outbox_relay.brokers.options import RedisOptions
from outbox_relay.brokers.redis_pubsub import RedisPubSubBroker
from outbox_relay.brokers.redis_streams import RedisStreamsBroker
from outbox_relay.errors import TopicUnavailable
from outbox_relay.relay.outcomes import Acked, Fault, Outcome, Unknown
from outbox_relay.testing import Watcher, record
from tests.contract.brokers import freeze
from tests.services.redis import Redis

BROKERS = {"streams": RedisStreamsBroker, "pubsub": RedisPubSubBroker}


@pytest.fixture
def own() -> Iterator[Redis]:
    """A server of this test alone, whose settings it may spoil."""
    with Redis(config={"requirepass": "right", "repl-diskless-sync-delay": "0"}) as server:
        yield server


@pytest.fixture
async def make_broker() -> AsyncIterator[Callable[..., Any]]:
    made: list[Any] = []

    def make(server: Redis, kind: str = "streams", **options: Any) -> Any:
        password = ":right@" if "requirepass" in server._config else ""
        chosen = {
            "url": server.url.replace("redis://", f"redis://{password}"),
            "publish_deadline_seconds": 3.0,
            "request_timeout_seconds": 2.0,
            **options,
        }
        made.append(BROKERS[kind](RedisOptions(**chosen), observer=Watcher()))
        return made[-1]

    yield make
    for broker in made:
        await broker.close(timeout_seconds=1)


def is_for_everything(outcome: Outcome) -> bool:
    return isinstance(outcome, Unknown) and outcome.fault is Fault.BROKER


def ours(server: Redis) -> set[str]:
    """The relay's connections."""
    with server.client() as client:
        return {c["id"] for c in client.client_list() if c["name"] == "outbox-relay"}


def own_replicas(server: Redis) -> int:
    """How many replicas have all that it has."""
    with server.client() as client:
        return sum(
            client.info("replication").get(f"slave{n}", {}).get("state") == "online"
            for n in range(3)
        )


def change(server: Redis, **settings: str) -> None:
    with server.client() as client:
        for name, value in settings.items():
            client.config_set(name.replace("_", "-"), value)


async def test_a_server_without_memory_refuses_the_batch_as_a_whole(
    own: Redis, make_broker: Callable[..., Any]
) -> None:
    """
    I4, I8. The probe says so too, so everything waits; then all goes on.
    """
    broker = make_broker(own)
    batch = [record(b"k", b"%d" % n, seq=n) for n in range(5)]
    assert await broker.publish("t", 0, batch) == Acked()
    change(own, maxmemory="1")

    outcome = await broker.publish("t", 0, batch)
    answers = await broker.probe()
    change(own, maxmemory="0")

    assert is_for_everything(outcome)
    assert "maxmemory" in outcome.detail
    assert not answers
    assert await broker.probe()
    assert len(own.entries("t")) == 5


async def test_a_replica_is_not_written_to_and_its_connection_is_given_up(
    own: Redis, make_broker: Callable[..., Any]
) -> None:
    """
    I8. After a failover: the next connection may reach the new master.
    """
    broker = make_broker(own)
    assert await broker.publish("t", 0, [record(b"k", b"1")]) == Acked()
    before = ours(own)
    with own.client() as client:
        client.replicaof("127.0.0.1", 1)
        outcome = await broker.publish("t", 0, [record(b"k", b"2")])
        answers = await broker.probe()
        client.replicaof("NO", "ONE")

    assert is_for_everything(outcome)
    assert not answers
    assert await broker.probe()
    assert await broker.publish("t", 0, [record(b"k", b"2")]) == Acked()
    async with asyncio.timeout(10):
        while before & await asyncio.to_thread(ours, own):
            pass


@pytest.mark.parametrize("kind", BROKERS)
async def test_a_wrong_password_is_said_and_the_right_one_is_read_again(
    own: Redis, make_broker: Callable[..., Any], tmp_path: Path, kind: str
) -> None:
    """
    I8, I11. Everything waits; no text holds the password.
    """
    secret = tmp_path / "password"
    secret.write_text("canary-wrong\n")
    broker = make_broker(own, kind, url=own.url, password_file=str(secret))

    outcome = await broker.publish("t", 0, [record(b"k", b"x")])
    answers = await broker.probe()
    secret.write_text("right\n")

    assert is_for_everything(outcome)
    assert "correct redis.url" in outcome.detail
    assert "canary" not in outcome.detail
    assert not answers
    assert await broker.probe()
    assert await broker.publish("t", 0, [record(b"k", b"x")]) == Acked()


@pytest.mark.parametrize("kind", BROKERS)
async def test_a_user_without_the_right_holds_up_the_topic_alone(
    own: Redis, make_broker: Callable[..., Any], kind: str
) -> None:
    """
    I7. And the probe does not take it for a server that is away.
    """
    with own.client() as client:
        client.acl_setuser(
            "ann",
            enabled=True,
            passwords="+x",
            keys=["orders*"],
            channels=["orders*"],
            commands=["+@all"],
        )
    broker = make_broker(own, kind, url=own.url.replace("//", "//ann:x@"))

    outcome = await broker.publish("secrets", 0, [record(b"k", b"x")])

    assert isinstance(outcome, Unknown)
    assert outcome.fault is Fault.TOPIC
    assert await broker.probe()
    assert await broker.publish("orders", 0, [record(b"k", b"x")]) == Acked()


async def test_a_key_that_is_no_stream_is_said(
    redis: Redis, make_broker: Callable[..., Any], topic_name: str
) -> None:
    """
    I7. Before the first batch, and if it became one later.
    """
    broker = make_broker(redis, stream="events:{topic}")
    with redis.client() as client:
        client.set(f"events:{topic_name}", "text")

    with pytest.raises(TopicUnavailable, match=r"holds a string: correct redis\.stream"):
        await broker.partitions(topic_name)
    outcome = await broker.publish(topic_name, 0, [record(b"k", b"x")])

    assert isinstance(outcome, Unknown)
    assert outcome.fault is Fault.TOPIC
    assert "WRONGTYPE" in outcome.detail


async def test_a_stream_may_be_kept_short(
    redis: Redis, make_broker: Callable[..., Any], topic_name: str
) -> None:
    """
    MAXLEN ~: whole nodes of the stream go, so it is about that long.
    """
    broker = make_broker(redis, max_stream_length=100)
    for start in range(0, 1000, 100):
        batch = [record(b"k", b"%d" % (start + n), seq=start + n) for n in range(100)]
        assert await broker.publish(topic_name, 0, batch) == Acked()

    values = [entry.fields[b"outbox-value"] for entry in redis.entries(topic_name)]
    assert 100 <= len(values) <= 300
    assert values == [b"%d" % n for n in range(1000 - len(values), 1000)]


async def test_an_ack_can_wait_for_replicas_and_stores_the_batch_once(
    own: Redis, make_broker: Callable[..., Any]
) -> None:
    """
    I3, I6. While no replica has it the same batch is unknown, and is not added again.
    """
    broker = make_broker(own, wait_replicas=1, publish_deadline_seconds=1.0)
    batch = [record(b"k", b"%d" % n, seq=n) for n in range(3)]

    alone = [await broker.publish("t", 0, batch) for _ in range(2)]
    config = {"replicaof": f"127.0.0.1 {own.port}", "masterauth": "right"}
    with Redis(config=config) as replica:
        async with asyncio.timeout(30):
            while not isinstance(await broker.publish("t", 0, batch), Acked):
                pass
        values = [entry.fields[b"outbox-value"] for entry in replica.entries("t")]

    assert [type(outcome) for outcome in alone] == [Unknown, Unknown]
    assert "0 of 1 replicas have it" in alone[0].detail
    assert values == [b"0", b"1", b"2"]


async def test_a_lost_connection_is_no_ack_of_the_replicas(
    own: Redis, make_broker: Callable[..., Any]
) -> None:
    """
    I3. WAIT on a new connection knows nothing of what the old one wrote: a master that lost it, as one
    without a log does in a crash, gets it again before it is acked.
    """
    broker = make_broker(own, wait_replicas=1, publish_deadline_seconds=1.0)
    batch = [record(b"k", b"x")]
    assert isinstance(await broker.publish("t", 0, batch), Unknown)
    with own.client() as client:
        client.flushall()
        client.client_kill_filter(_type="normal", skipme=True)

    config = {"replicaof": f"127.0.0.1 {own.port}", "masterauth": "right"}
    with Redis(config=config):
        async with asyncio.timeout(30):
            while not own_replicas(own):
                await asyncio.sleep(0.05)
            while not isinstance(await broker.publish("t", 0, batch), Acked):
                pass

    assert len(own.entries("t")) >= 1


async def test_a_late_answer_acks_no_other_batch(
    own: Redis, make_broker: Callable[..., Any]
) -> None:
    """
    I3. What a cancelled call left on the wire looks like the answer to the next one, which is refused.
    """
    broker = make_broker(own)
    assert await broker.publish("t", 0, [record(b"k", b"0")]) == Acked()
    await freeze(own)
    doomed = asyncio.create_task(broker.publish("t", 0, [record(b"k", b"1")]))
    await asyncio.sleep(0.1)  # it is sent, and its answer comes after the thaw
    doomed.cancel()
    await asyncio.gather(doomed, return_exceptions=True)
    own.thaw()
    await asyncio.to_thread(change, own, maxmemory="1")

    assert is_for_everything(await broker.publish("t", 0, [record(b"k", b"2")]))


async def test_a_batch_is_stored_as_a_whole_or_not_at_all(
    own: Redis, make_broker: Callable[..., Any]
) -> None:
    """
    I4. Also where memory runs out in the middle of it.
    """
    broker = make_broker(own)
    batch = [record(b"k", bytes(100_000), seq=n) for n in range(50)]
    with own.client() as client:
        used = client.info("memory")["used_memory"]
    outcomes = []
    for megabytes in range(1, 12):
        change(own, maxmemory=str(used + megabytes * 1_000_000))
        outcomes.append(await broker.publish(f"t{megabytes}", 0, batch))
        change(own, maxmemory="0")
        stored = len(own.entries(f"t{megabytes}"))
        assert stored == (50 if isinstance(outcomes[-1], Acked) else 0)
        with own.client() as client:
            client.flushall()

    assert {type(outcome) for outcome in outcomes} == {Acked, Unknown}


async def test_a_command_that_the_server_does_not_know_tells_no_payload(
    make_broker: Callable[..., Any],
) -> None:
    """
    I11. Hosted servers rename commands; the answer repeats the arguments, and would be logged.
    """
    with Redis(config={"rename-command": 'PUBLISH ""'}) as server:
        broker = make_broker(server, "pubsub", format="payload")
        outcome = await broker.publish("t", 0, [record(b"k", b"canary")])

    assert isinstance(outcome, Unknown)
    assert "unknown command" in outcome.detail
    assert "canary" not in outcome.detail


async def test_nobody_listens(
    redis: Redis, make_broker: Callable[..., Any], topic_name: str
) -> None:
    """
    At most once behind Redis: without min_receivers what nobody hears is published all the same.
    """
    batch = [record(b"k", b"{}")]
    careless = make_broker(redis, "pubsub")
    careful = make_broker(redis, "pubsub", min_receivers=1)

    assert await careless.publish(topic_name, 0, batch) == Acked()
    outcome = await careful.publish(topic_name, 0, batch)

    assert isinstance(outcome, Unknown)
    assert outcome.fault is Fault.TOPIC
    assert "0 of 1 subscribers" in outcome.detail


async def test_a_channel_carries_an_event_or_the_payload_alone(
    redis: Redis, make_broker: Callable[..., Any], topic_name: str
) -> None:
    """
    By the setting.
    """
    batch = [record(b"k", b'{"a": 1}')]
    with redis.client() as client, client.pubsub(ignore_subscribe_messages=True) as subscriber:
        subscriber.subscribe(f"live:{topic_name}")
        subscriber.get_message(timeout=1)
        for form in ("cloudevents", "payload"):
            broker = make_broker(redis, "pubsub", channel="live:{topic}", format=form)
            assert await broker.publish(topic_name, 0, batch) == Acked()
        heard = [subscriber.get_message(timeout=2)["data"] for _ in range(2)]

    assert json.loads(heard[0])["type"] == "order.placed"
    assert heard[1] == b'{"a": 1}'
