"""
Hints in the relay core: when a hint makes the reader read, what a flood costs, who passes them on.
"""

from __future__ import annotations

import asyncio

import pytest

from outbox_relay.errors import StoreUnavailable
from outbox_relay.relay.hints import HINT_GAP_SECONDS, Hints
from outbox_relay.relay.options import RelayOptions
from outbox_relay.relay.producer import EventProducer
from outbox_relay.relay.watching import Silent
from outbox_relay.wake import parse_wake_address


class FakeWake:
    """The `Wake` port: the test hints, and sees what is passed on."""

    def __init__(self, address: str = "") -> None:
        self.address = address
        self.received = None
        self.passed_on: list[str] = []
        self.closed = False

    def start(self, received):
        self.received = received

    def pass_on(self, address):
        self.passed_on.append(address)

    def close(self):
        self.closed = True

    def hint(self, passed_on=False):
        self.received(passed_on)


@pytest.fixture
async def run(clock, store, broker):
    """Runs relays with a Wake, and ends them."""
    tasks = []

    async def run_(wake, **options):
        producer = EventProducer(
            store, broker, clock=clock, wake=wake, options=RelayOptions(**options)
        )
        tasks.append(asyncio.create_task(producer.run()))
        await clock.advance(0)
        return producer

    yield run_
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_hint_makes_the_reader_read_at_once(run, clock, store, broker):
    """
    No time passes between the hint and the publishing.
    """
    wake = FakeWake()
    await run(wake, poll_seconds=60)
    await clock.advance(600)
    row_id = store.insert("orders")
    await clock.advance(0.5)
    assert broker.seqs() == []

    wake.hint()
    await clock.advance(0)

    assert broker.seqs() == [row_id]


async def test_a_hint_that_comes_during_a_read_asks_for_another(run, clock, store, broker):
    """
    The read under way may have looked before the commit: its snapshot is older than the hint.
    """
    wake = FakeWake()
    await run(wake, poll_seconds=60)
    await clock.advance(600)
    read, ids = store.read, []

    async def read_before_the_commit(plan):
        rows = await read(plan)
        if not ids:
            ids.append(store.insert("orders"))
            wake.hint()
        return rows

    store.read = read_before_the_commit
    wake.hint()
    await clock.advance(HINT_GAP_SECONDS)

    assert broker.seqs() == ids


async def test_a_hint_costs_one_read(run, clock, store):
    """
    After it the reader waits for its poll, or for the next hint.
    """
    wake = FakeWake()
    await run(wake, poll_seconds=60)
    await clock.advance(600)
    store.calls.clear()
    wake.hint()
    await clock.advance(1)

    assert store.calls.count("read") <= 2  # and perhaps its sweep


async def test_a_flood_of_hints_costs_a_bounded_number_of_reads(run, clock, store):
    """
    Hints count as one until the next read, and reads keep their distance.
    """
    wake = FakeWake()
    await run(wake, poll_seconds=60)
    await clock.advance(600)
    store.calls.clear()
    for _ in range(1000):
        wake.hint()
        wake.hint()
        await clock.advance(0.0001)

    assert store.calls.count("read") <= 0.1 / HINT_GAP_SECONDS + 1


async def test_a_hint_does_not_hurry_a_database_that_fails(run, clock, store):
    """
    The pause after a failure stands, however many hints come.
    """
    wake = FakeWake()
    await run(wake, poll_seconds=60)
    await clock.advance(600)
    store.fail("read", *[StoreUnavailable("away")] * 1000)
    store.calls.clear()
    for _ in range(100):
        wake.hint()
        await clock.advance(0.01)

    assert store.calls.count("read") < 12


async def test_a_standby_passes_hints_on_to_the_owner(run, clock, store):
    """
    To the address in the lease's row, which is asked for at most once a second.
    """
    owner, standby = FakeWake("udp:10.0.0.1:9466"), FakeWake("udp:10.0.0.2:9466")
    await run(owner)
    await run(standby)
    store.calls.clear()
    for _ in range(30):
        standby.hint()
        await clock.advance(0.05)

    assert standby.passed_on == ["udp:10.0.0.1:9466"] * 30
    assert store.calls.count("wake_addresses") == 2
    assert owner.passed_on == []


async def test_a_hint_that_was_passed_on_goes_no_further(run, clock, store):
    """
    However wrong the addresses are, hints do not go round in circles.
    """
    owner, standby = FakeWake("udp:10.0.0.1:9466"), FakeWake("udp:10.0.0.2:9466")
    await run(owner)
    await run(standby)
    standby.hint(passed_on=True)
    await clock.advance(1)

    assert standby.passed_on == []


async def test_hints_are_passed_on_at_a_bounded_rate(run, clock, store):
    """
    A flood at a standby is no flood at the owner.
    """
    owner, standby = FakeWake("udp:10.0.0.1:9466"), FakeWake("udp:10.0.0.2:9466")
    await run(owner)
    await run(standby)
    for _ in range(1000):
        standby.hint()
        await clock.advance(0.0001)

    assert 1 <= len(standby.passed_on) <= 0.1 / HINT_GAP_SECONDS + 1


async def test_a_standby_without_a_database_passes_nothing_on(run, clock, store):
    """
    It lives through that, and goes on when the database answers.
    """
    await run(FakeWake("udp:10.0.0.1:9466"))
    standby = FakeWake("udp:10.0.0.2:9466")
    await run(standby)
    store.fail("wake_addresses", StoreUnavailable("away"))
    standby.hint()
    await clock.advance(1)
    assert standby.passed_on == []

    standby.hint()
    await clock.advance(0.1)

    assert standby.passed_on == ["udp:10.0.0.1:9466"]


async def test_the_address_is_in_the_lease_as_long_as_the_term(run, clock, store):
    """
    A relay that hands its lanes back is sent nothing more.
    """
    wake = FakeWake("udp:10.0.0.1:9466")
    producer = await run(wake)
    assert await store.wake_addresses() == {"udp:10.0.0.1:9466"}

    producer.stop()
    await clock.advance(1)

    assert await store.wake_addresses() == frozenset()
    assert wake.closed


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is no address"),
        ("/run/wake.sock", "is no address"),
        ("unix:wake.sock", "begins with /"),
        ("unix:/" + "a" * 107, "107 bytes"),
        ("udp:host", "is no address"),
        ("udp::9466", "is no address"),
        ("udp:host:0", "1 to 65535"),
        ("udp:host:65536", "1 to 65535"),
        ("udp:host:٣", "is no address"),
        ("tcp:host:1", "is no address"),
    ],
)
def test_a_wrong_address_is_refused_with_what_is_right(text, problem):
    """
    At the start, not at the first commit.
    """
    with pytest.raises(ValueError, match=problem):
        parse_wake_address(text)


@pytest.mark.parametrize(
    "text",
    ["unix:/run/outbox-relay/wake.sock", "udp:10.0.0.1:9466", "udp:relay:9466", "udp:[::1]:9466"],
)
def test_an_address_is_written_as_it_is_read(text):
    """
    What one relay publishes, the others can parse.
    """
    assert str(parse_wake_address(text)) == text


def test_settings_of_hints_are_checked():
    """
    Each problem names its key.
    """
    options = RelayOptions(
        wake_address="unix:/run/a.sock,tcp:host:1", wake_published="unix:/run/a.sock"
    )

    assert [problem.split(":")[0] for problem in options.problems()] == [
        "relay.wake_address",
        "relay.wake_published",
    ]


def test_one_address_only_is_published():
    """
    The others would take a second one for a part of the first.
    """
    options = RelayOptions(wake_published="udp:relay:9466,udp:other:9466")

    assert options.problems() == ["relay.wake_published: one address only"]


async def test_a_hint_is_nobody_elses_once_all_lanes_are_ours(clock, store):
    """
    It came before the lease did, and waits for the pause between two hints that are passed on.
    """
    await store.acquire("owner", wake_address="udp:10.0.0.1:9466", lease_seconds=15)
    wake, all_ours = FakeWake(), False
    hints = Hints(wake, store, clock=clock, observer=Silent(), owns_all=lambda: all_ours)
    run = asyncio.create_task(hints.run())
    await clock.advance(0)
    wake.hint()
    await clock.advance(0)
    wake.hint()
    all_ours = True
    await clock.advance(1)
    run.cancel()

    assert wake.passed_on == ["udp:10.0.0.1:9466"]
    assert hints.arrived.is_set()


async def test_relays_that_share_the_lanes_wake_one_another(run, clock, store, broker):
    """
    A hint does not say whose event it is: whoever gets it reads, and passes it on to the other owners.
    """
    wakes = [FakeWake(f"udp:10.0.0.{n}:9466") for n in range(3)]
    for wake in wakes:
        await run(wake, poll_seconds=60, max_active_relays=3)
    await clock.advance(600)
    rows = [store.insert("wide", key=b"%d" % n) for n in range(100)]
    wakes[0].hint()
    await clock.advance(0.1)

    assert set(wakes[0].passed_on) == {wakes[1].address, wakes[2].address}
    assert 0 < len(broker.seqs()) < 100

    for wake in wakes[1:]:
        wake.hint(passed_on=True)
    await clock.advance(0.1)

    assert sorted(broker.seqs()) == rows
    assert wakes[1].passed_on == wakes[2].passed_on == []
