"""
What every broker promises to the relay: in memory, Kafka, RabbitMQ, Redis and a file.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from outbox_relay import testing
from outbox_relay.errors import BrokerUnavailable, TopicUnavailable
from outbox_relay.relay.outcomes import Acked, Outcome, Rejected, RejectReason, Unknown
from outbox_relay.relay.ports import Record
from tests.contract.brokers import DEADLINE_SECONDS, SITES, Site, freeze

WITH_TOPICS = ["memory", "kafka", "amqp"]
SERVERS = ["amqp", "redis_streams", "redis_pubsub"]
WITHIN_SECONDS = 20.0
"""For what has a deadline of two: what a loaded machine adds."""


@pytest.fixture(params=SITES)
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    async with SITES[request.param](request) as made:
        yield made


def record(value: bytes | None, key: bytes | None = b"k", seq: int = 1) -> Record:
    return testing.record(key, value, seq=seq)


async def test_a_batch_is_acked_in_order_on_its_partition(site: Site) -> None:
    """
    I3, I4.
    """
    last = site.partitions - 1
    assert await site.broker.partitions(site.topic) == site.partitions
    assert site.broker.known_partitions(site.topic) == site.partitions

    batch = [record(b"%d" % n, seq=n) for n in range(50)]
    outcome = await site.broker.publish(site.topic, last, batch)

    assert outcome == Acked()
    assert await site.consume(site.topic) == [(last, b"k", b"%d" % n) for n in range(50)]


async def test_batches_follow_one_another(site: Site) -> None:
    """
    I4. Over many keys, and none.
    """
    await site.broker.partitions(site.topic)
    keys = [b"a", b"b", None, b"c"]
    rows = [(keys[n % 4], b"%d" % n) for n in range(40)]

    for start in range(0, 40, 10):
        batch = [record(v, k, seq=start) for k, v in rows[start : start + 10]]
        assert await site.broker.publish(site.topic, 0, batch) == Acked()

    assert await site.consume(site.topic) == [(0, key, value) for key, value in rows]


async def test_a_tombstone_and_an_event_without_key_arrive_as_they_are(site: Site) -> None:
    """
    A null is not an empty value, and no key is not an empty key.
    """
    await site.broker.partitions(site.topic)
    batch = [record(None), record(b"", key=None), record(b"x", key=b"")]

    outcome = await site.broker.publish(site.topic, 0, batch)

    assert outcome == Acked()
    assert await site.consume(site.topic) == [(0, b"k", None), (0, None, b""), (0, b"", b"x")]


async def test_the_headers_travel(site: Site) -> None:
    """
    Those of CloudEvents, the row's id, and the event's own.
    """
    await site.broker.partitions(site.topic)
    own = (("traceparent", b"00-4bf92f35"), ("ce_source", b"/shop"))
    sent = testing.record(b"k", b"{}", seq=7, headers=own)

    assert await site.broker.publish(site.topic, 0, [sent]) == Acked()
    [found] = await site.headers(site.topic)

    # Structured: the names of attributes are those of CloudEvents, without the prefix.
    plain = {name.removeprefix("ce_").replace("-", ""): value for name, value in found.items()}
    wanted = {
        "id": sent.event_id.decode(),
        "type": "order.placed",
        "specversion": "1.0",
        "source": "/shop",
        "time": sent.time.decode(),
        "outboxseq": "7",
        "traceparent": "00-4bf92f35",
    }
    assert {name: plain.get(name) for name in wanted} == wanted


@pytest.mark.parametrize("site", [n for n in SITES if n != "jsonl"], indirect=True)
async def test_an_oversized_record_is_rejected_and_the_next_batch_is_acked(site: Site) -> None:
    """
    I7. Nothing of it stays behind in the client.
    """
    await site.broker.partitions(site.topic)

    refused = await site.broker.publish(site.topic, 0, [record(b"x" * 1_000_000)])
    accepted = await site.broker.publish(site.topic, 0, [record(b"ok")])

    assert isinstance(refused, Rejected)
    assert refused.reason is RejectReason.TOO_LARGE
    assert accepted == Acked()
    assert await site.consume(site.topic) == [(0, b"k", b"ok")]


@pytest.mark.parametrize("site", WITH_TOPICS, indirect=True)
async def test_a_missing_topic_is_unavailable_and_can_be_made_later(site: Site) -> None:
    """
    I8. Only on the broker's own answer.
    """
    with pytest.raises(TopicUnavailable, match="does not exist"):
        await site.broker.partitions(f"{site.topic}-later")

    assert site.create is not None
    await asyncio.to_thread(site.create, f"{site.topic}-later", 2)

    assert await site.broker.partitions(f"{site.topic}-later") in (1, 2)


@pytest.mark.parametrize("site", ["memory", "kafka"], indirect=True)
async def test_publishing_to_a_topic_that_is_gone_is_unknown(site: Site) -> None:
    """
    I2. Never rejected: the topic may come back. (AMQP answers that nobody takes it.)
    """
    outcome = await site.broker.publish(f"{site.topic}-never", 0, [record(b"x")])

    assert isinstance(outcome, Unknown)


async def test_a_broker_that_answers_says_so(site: Site) -> None:
    """
    The probe behind the decision whether an outage is the partition's or everyone's.
    """
    assert await site.broker.probe()


async def until_acked(site: Site, batch: list[Record]) -> Outcome:
    """What a relay does: probe, publish again."""
    seen: list[object] = []
    try:
        async with asyncio.timeout(WITHIN_SECONDS):
            while True:
                seen.append(await site.broker.probe())
                if seen[-1]:
                    outcome: Outcome = await site.broker.publish(site.topic, 0, batch)
                    if isinstance(outcome, Acked):
                        return outcome
                    seen.append(outcome)
    except TimeoutError:
        pytest.fail(f"not acked in {WITHIN_SECONDS} s; {len(seen)} answers, the last: {seen[-4:]}")


@pytest.mark.parametrize("site", SERVERS, indirect=True)
async def test_a_server_that_answers_nothing_is_unknown_in_time_and_recovers(site: Site) -> None:
    """
    I8. Frozen: neither the batch, nor the probe, nor a question hangs; thawed, all goes on, and what is
    published then is there once more at most.
    """
    await site.broker.partitions(site.topic)
    assert await site.broker.publish(site.topic, 0, [record(b"before", seq=1)]) == Acked()
    await freeze(site.service)
    async with asyncio.timeout(WITHIN_SECONDS):
        outcome = await site.broker.publish(site.topic, 0, [record(b"during", seq=2)])
        answers = await site.broker.probe()
    site.service.thaw()

    assert isinstance(outcome, Unknown)
    assert not answers
    await until_acked(site, [record(b"during", seq=2)])
    await until_acked(site, [record(b"after", seq=3)])
    seen = [value for _, _, value in await site.consume(site.topic)]
    firsts = list(dict.fromkeys(seen))
    assert firsts == [b"before", b"during", b"after"]
    assert len(seen) <= 4


@pytest.mark.parametrize("site", ["amqp", "redis_streams"], indirect=True)
async def test_a_server_that_was_killed_has_what_it_acked(site: Site) -> None:
    """
    I2, I8. What was under way is unknown, nobody answers meanwhile, and after a restart all goes on.
    """
    await site.broker.partitions(site.topic)
    acked = [record(b"%d" % n, key=b"%d" % n, seq=n) for n in range(20)]
    assert await site.broker.publish(site.topic, 0, acked) == Acked()
    await asyncio.to_thread(site.service.write_declarations)
    await asyncio.to_thread(site.service.kill)
    async with asyncio.timeout(WITHIN_SECONDS):
        outcome = await site.broker.publish(site.topic, 0, [record(b"during")])
        answers = await site.broker.probe()
        with pytest.raises(BrokerUnavailable):
            await site.broker.partitions(f"{site.topic}-other")
    await asyncio.to_thread(site.service.start)

    assert isinstance(outcome, Unknown)
    assert not answers
    await until_acked(site, [record(b"during")])
    seen = [value for _, _, value in await site.consume(site.topic)]
    assert seen == [b"%d" % n for n in range(20)] + [b"during"]


@pytest.mark.parametrize("site", [*SERVERS, "kafka"], indirect=True)
async def test_a_call_that_was_cancelled_leaves_nothing_behind(site: Site) -> None:
    """
    I9. What comes too late for it is never taken for the answer to the next one.
    """
    await site.broker.partitions(site.topic)
    for n in range(20):
        doomed = asyncio.create_task(
            site.broker.publish(site.topic, 0, [record(b"doomed", key=b"%d" % n, seq=n)])
        )
        for _ in range(n):
            await asyncio.sleep(0)
        doomed.cancel()
        await asyncio.gather(doomed, return_exceptions=True)

    await until_acked(site, [record(b"well", seq=100)])
    tail = [value for _, _, value in await site.consume(site.topic)][-1]
    assert tail == b"well"


@pytest.mark.parametrize("site", [*SERVERS, "kafka", "jsonl"], indirect=True)
async def test_closing_ends_in_time_whatever_the_server_does(site: Site) -> None:
    """
    I9. With a batch under way and a server that answers nothing; what is under way ends too.
    """
    await site.broker.partitions(site.topic)
    assert await site.broker.publish(site.topic, 0, [record(b"before")]) == Acked()
    if site.service is not None:
        site.service.freeze()
    under_way = asyncio.create_task(site.broker.publish(site.topic, 0, [record(b"x")]))
    await asyncio.sleep(0)

    async with asyncio.timeout(5.0):
        await site.broker.close(timeout_seconds=0.5)

    if site.service is not None:
        site.service.thaw()
    async with asyncio.timeout(DEADLINE_SECONDS + WITHIN_SECONDS):
        await asyncio.gather(under_way, return_exceptions=True)
