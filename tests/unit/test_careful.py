"""
A row that kills the relay becomes a dead letter; no other row does, whatever else kills relays.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from random import Random

import pytest

from outbox_relay.errors import StoreUnavailable
from outbox_relay.relay.careful import CAREFUL_AFTER, GIVE_UP_AFTER, PAUSE_SECONDS
from outbox_relay.schema import Status
from outbox_relay.testing import FakeClock, InMemoryStore, RecordingBroker
from tests.unit.mortal import POISON, MortalRelay, deadly

__all__ = ["deadly"]

DEATHS_OF_ONE = CAREFUL_AFTER + 1 + GIVE_UP_AFTER
"""Two call for care, one says which rows it may be, and the row itself kills three."""


def insert(store, topic: str, keys: Iterable[int], **columns) -> list[int]:
    transaction = store.begin()
    ids = [transaction.insert(topic, key=b"%d" % key, **columns) for key in keys]
    transaction.commit()
    return ids


def statuses(store, ids: Iterable[int]) -> set[Status]:
    return {store.status(row_id) for row_id in ids}


def first_occurrences(broker, ids: Iterable[int]) -> list[int]:
    wanted = set(ids)
    return list(dict.fromkeys(seq for seq in broker.seqs() if seq in wanted))


async def relays_until_one_lives(clock, store, broker, *, most: int = 30, **options):
    """Start relays, one after another. The one that lives, and how many died before."""
    for died in range(most):
        relay = MortalRelay(clock, store, broker, seed=died, **options)
        if await relay.lives(20):
            return relay, died
    raise AssertionError(f"{most} relays died")


async def test_a_row_that_kills_the_relay_becomes_a_dead_letter(clock, store, broker, deadly):
    """
    I2, I7. After six deaths, with a reason of its own; everything else is published, in order.
    """
    before = insert(store, "wide", range(20))
    [row_id] = insert(store, "wide", [3], payload=POISON)
    after = insert(store, "wide", range(20))
    relay, died = await relays_until_one_lives(clock, store, broker)
    await relay.bury()

    assert died == DEATHS_OF_ONE
    assert set(deadly) == {row_id}
    assert store.status(row_id) is Status.DEAD
    assert store.error(row_id).startswith("kills_relay: 3 relays in a row died")
    assert statuses(store, before + after) == {Status.PRODUCED}
    assert first_occurrences(broker, [before[3], after[3]]) == [before[3], after[3]]
    assert ("dead_letter", row_id, "kills_relay") in [
        (name, fields.get("row_id"), fields.get("reason")) for name, fields in relay.watcher.events
    ]


async def test_each_of_several_is_found(clock, store, broker, deadly):
    """
    One after another, in different lanes and on different topics; nobody else.
    """
    ids = insert(store, "wide", range(10))
    poison = insert(store, "wide", [5], payload=POISON)
    poison += insert(store, "orders", [5], payload=POISON)
    poison += insert(store, "wide", [6], payload=POISON)
    ids += insert(store, "orders", range(10))
    relay, _ = await relays_until_one_lives(clock, store, broker)
    await relay.bury()

    assert sorted(set(deadly)) == sorted(poison)
    assert statuses(store, poison) == {Status.DEAD}
    assert statuses(store, ids) == {Status.PRODUCED}


@pytest.mark.parametrize("seed", range(10))
async def test_no_death_at_a_random_call_makes_a_dead_letter(seed, deadly):
    """
    I2, I8. `kill -9` before or after the effect of any call, again and again, in ten worlds a seed: nothing
    is given up, and the last relay publishes what is left.
    """
    for world in range(10):
        random = Random(seed * 1000 + world)
        clock = FakeClock()
        store = InMemoryStore(clock)
        broker = RecordingBroker(clock, {"wide": 2})
        ids = insert(store, "wide", range(8))
        for _ in range(8):
            steps = random.choice((30, 60, 120)) + random.randrange(80)
            relay = MortalRelay(clock, store, broker, steps=steps, seed=random.randrange(10**9))
            await relay.lives(3)
            await relay.bury()
            await clock.advance(16)
            ids += insert(store, "wide", range(8))
        last, _ = await relays_until_one_lives(clock, store, broker)
        await last.bury()

        assert statuses(store, ids) == {Status.PRODUCED}


@pytest.mark.parametrize("seed", range(10))
async def test_no_death_while_somebody_is_suspected_makes_a_dead_letter(seed, deadly):
    """
    I2. Even if whatever kills always meets a relay between the two statements, each time at another row.
    """
    for world in range(10):
        random = Random(seed * 1000 + world)
        clock = FakeClock()
        store = InMemoryStore(clock)
        broker = RecordingBroker(clock, {"wide": 2})
        broker.hold("wide", 0)
        broker.hold("wide", 1)
        ids = insert(store, "wide", range(24))
        for _ in range(8):
            relay = MortalRelay(
                clock,
                store,
                broker,
                steps=random.randrange(60),
                dies_at=("suspect", "acquit"),
                seed=random.randrange(10**9),
            )
            await relay.lives(6)
            await relay.bury()
            await clock.advance(16)
        broker.let_go("wide", 0)
        broker.let_go("wide", 1)
        last, _ = await relays_until_one_lives(clock, store, broker)
        await last.bury()

        assert statuses(store, ids) == {Status.PRODUCED}


@pytest.mark.parametrize("seed", range(10))
async def test_a_poison_row_among_random_deaths(seed, deadly):
    """
    I2, I7. It is found all the same, and it alone.
    """
    random = Random(seed)
    clock = FakeClock()
    store = InMemoryStore(clock)
    broker = RecordingBroker(clock, {"wide": 2})
    ids = insert(store, "wide", range(8))
    [row_id] = insert(store, "wide", [3], payload=POISON)
    ids += insert(store, "wide", range(8))
    for _ in range(10):
        steps = 30 + random.randrange(150)
        relay = MortalRelay(clock, store, broker, steps=steps, seed=random.randrange(10**9))
        await relay.lives(5)
        await relay.bury()
        await clock.advance(16)
    last, _ = await relays_until_one_lives(clock, store, broker)
    await last.bury()

    assert store.status(row_id) is Status.DEAD
    assert statuses(store, ids) == {Status.PRODUCED}


async def test_an_outage_of_the_database_blames_nobody(clock, store, broker, start):
    """
    I8. Terms end uncleanly with it, one after another, and the relay lives.
    """
    ids = insert(store, "wide", range(5))
    running = start()
    for _ in range(6):
        await clock.advance(3)
        for method in ("read", "renew", "acquire", "mark_produced", "suspect", "acquit", "max_id"):
            store.fail(method, *[StoreUnavailable("away")] * 200)
        ids += insert(store, "wide", range(5))
        await clock.advance(10)
        store.leases.run_out()
        store._failures.clear()
        await clock.advance(10)

    assert statuses(store, ids) == {Status.PRODUCED}
    assert "dead_letter" not in running.watcher.names()


async def test_care_costs_two_statements_for_many_rows(clock, store, broker, deadly):
    """
    Rows are tried alone only after a relay died while it looked at them.
    """
    for _ in range(CAREFUL_AFTER):
        relay = MortalRelay(clock, store, broker)
        await relay.lives(1)
        await relay.bury()
        await clock.advance(16)
    ids = insert(store, "orders", range(200))
    store.calls.clear()
    relay = MortalRelay(clock, store, broker)
    await relay.lives(5)
    await relay.bury()

    assert statuses(store, ids) == {Status.PRODUCED}
    assert "careful_begun" in relay.watcher.names()
    assert store.calls.count("suspect") == store.calls.count("acquit") == 1


async def test_care_ends_when_nothing_waits_and_the_count_begins_anew(clock, store, broker):
    """
    The next death is the first.
    """
    for _ in range(CAREFUL_AFTER):
        relay = MortalRelay(clock, store, broker)
        await relay.lives(1)
        await relay.bury()
        await clock.advance(16)
    relay = MortalRelay(clock, store, broker)
    await relay.lives(2)
    await relay.bury()
    await clock.advance(16)
    lease = await store.acquire("me", wake_address="", lease_seconds=15)

    assert relay.watcher.names().count("careful_done") == 1
    assert lease.crash_count == 1


async def test_care_ends_after_as_many_rows_as_can_be_in_flight(clock, store, broker):
    """
    What killed was among them, however much more waits.
    """
    for _ in range(CAREFUL_AFTER):
        relay = MortalRelay(clock, store, broker)
        await relay.lives(1)
        await relay.bury()
        await clock.advance(16)
    insert(store, "orders", range(50))
    relay = MortalRelay(clock, store, broker, in_flight_rows=10, chunk_rows=5)
    at_the_end = []
    store.before["recovered"] = lambda: at_the_end.append(len(broker.seqs()))
    await relay.lives(3)
    await relay.bury()

    assert relay.watcher.names().count("careful_done") == 1
    assert at_the_end[0] <= 15


async def test_tables_that_keep_no_suspects(clock, store, broker, deadly):
    """
    The relay serves them as before, and asks nothing of them that they do not have.
    """
    store.leases.keeps_suspects = False
    insert(store, "wide", range(5))
    [row_id] = insert(store, "wide", [1], payload=POISON)
    for _ in range(DEATHS_OF_ONE + 2):
        relay = MortalRelay(clock, store, broker)
        assert not await relay.lives(20)

    assert store.status(row_id) is Status.PENDING
    assert not {"past", "suspect", "acquit", "recovered"} & set(store.calls)


async def test_a_requeued_row_is_tried_anew(clock, store, broker, deadly, monkeypatch):
    """
    What killed relays may be mended: it is not given up for deaths of long ago.
    """
    [row_id] = insert(store, "wide", [1], payload=POISON)
    relay, _ = await relays_until_one_lives(clock, store, broker)
    monkeypatch.setattr("tests.unit.mortal.POISON", b"mended")
    store.requeue(row_id)
    await relay.lives(10)
    await relay.bury()

    assert store.status(row_id) is Status.PRODUCED


async def test_a_dead_letter_that_kills_holds_its_key(clock, store, broker, deadly):
    """
    I4. With hold_key what comes after it waits, as after any dead letter.
    """
    [row_id] = insert(store, "wide", [1], payload=POISON)
    [later] = insert(store, "wide", [1])
    [other] = insert(store, "wide", [2])
    relay, _ = await relays_until_one_lives(clock, store, broker, on_dead_letter="hold_key")
    await relay.bury()

    assert [store.status(i) for i in (row_id, later, other)] == [
        Status.DEAD,
        Status.PENDING,
        Status.PRODUCED,
    ]


async def test_a_suspect_is_tried_again_after_a_pause(clock, store, broker, deadly):
    """
    What kills relays at a certain time after their start cannot meet the same row each time.
    """
    insert(store, "wide", [1])
    insert(store, "wide", [1], payload=POISON)
    ages = []
    for seed in range(DEATHS_OF_ONE):
        relay = MortalRelay(clock, store, broker, seed=seed)
        started = clock.now()
        while not relay.life.over and clock.now() < started + 20:
            await clock.advance(0.1)
        ages.append(clock.now() - started)
        await relay.bury()
        await clock.advance(16)
    at_once, trials = ages[: CAREFUL_AFTER + 2], ages[CAREFUL_AFTER + 2 :]

    assert max(at_once) < 0.5
    assert len(set(trials)) == len(trials)
    assert all(0.0 < age < PAUSE_SECONDS + 0.5 for age in trials)


async def test_a_careful_relay_gives_no_lanes(clock, store, broker, start, deadly):
    """
    A row that kills would go to a relay that knows nothing of it.
    """
    for _ in range(CAREFUL_AFTER):
        relay = MortalRelay(clock, store, broker)
        await relay.lives(1)
        await relay.bury()
        await clock.advance(16)
    broker.hold("orders")
    insert(store, "orders", [1])
    careful = MortalRelay(clock, store, broker, max_active_relays=2)
    await careful.lives(2)
    start(owner="other", max_active_relays=2)
    await clock.advance(2)
    while_careful = store.leases.owners()
    broker.let_go("orders")
    await clock.advance(5)

    assert {owner: len(lanes) for owner, lanes in while_careful.items()} == {"mortal": 64}
    assert {len(lanes) for lanes in store.leases.owners().values()} == {32}


def _tear_once(store) -> None:
    """The next take is done, and its answer lost."""
    take = store.take

    async def torn(*args, **options):
        await take(*args, **options)
        store.take = take
        raise StoreUnavailable("the connection broke after the commit")

    store.take = torn


@pytest.mark.parametrize("answer_lost", [False, True])
async def test_lanes_that_come_during_a_term_bring_their_past(
    clock, store, broker, start, deadly, answer_lost: bool
):
    """
    Whoever takes over the lanes of relays that died looks at their rows with care at once, also where the
    answer that they are its own was lost.
    """
    heir = start(owner="heir", max_active_relays=2)
    await clock.advance(1)
    relay = MortalRelay(clock, store, broker, max_active_relays=2)
    await relay.lives(3)
    [lane, *_] = store.leases.owners()["mortal"]
    held = store.leases._rows
    for theirs in store.leases.owners()["mortal"]:
        held[theirs].crash_count = CAREFUL_AFTER
    assert lane in held
    relay.life.over = relay.life.buried = True
    if answer_lost:
        _tear_once(store)
    await clock.advance(20)

    assert len(store.leases.owners()["heir"]) == 64
    assert "careful_begun" in heir.watcher.names()


async def test_lanes_that_were_perhaps_taken_are_read(clock, store, broker, start):
    """
    I2. Renewed with the others and read by nobody, their rows would wait as long as the relay lives.
    """
    first = start(owner="first", max_active_relays=2)
    start(owner="second", max_active_relays=2)
    await clock.advance(3)
    _tear_once(store)
    await first.stop()
    await clock.advance(5)
    ids = insert(store, "wide", range(64))
    await clock.advance(20)

    assert {owner: len(lanes) for owner, lanes in store.leases.owners().items()} == {"second": 64}
    assert statuses(store, ids) == {Status.PRODUCED}
    assert list(islice(broker.seqs(), 1))
