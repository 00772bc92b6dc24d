"""
A replay over each broker: in memory, Kafka, RabbitMQ, Redis and a file.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from outbox_relay.operations import EventFilter
from outbox_relay.operations.replay_state import ReplayOrder, ReplayState
from outbox_relay.operations.replaying import EvenPace, Replay
from outbox_relay.relay.envelope import make_encoder
from outbox_relay.relay.ports import Row
from outbox_relay.relay.wire import WireOptions
from tests.contract.brokers import SITES, Site

ROWS = 30


@pytest.fixture(params=SITES)
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    async with SITES[request.param](request) as made:
        yield made


class Produced:
    """Rows that were produced, of two keys and none."""

    def __init__(self, topic: str) -> None:
        self.rows = [
            Row(
                n, topic, (b"a", b"b", None)[n % 3], b"%d" % n, 2, 0, None, uuid.UUID(int=n).bytes,
                "counted", "application/json", 1_700_000_000_000_000, None, 0,
            )
            for n in range(1, ROWS + 1)
        ]  # fmt: skip

    async def pages(
        self, *, after_id: int, last_id: int, rows: int
    ) -> AsyncIterator[tuple[list[Row], int]]:
        for start in range(after_id, last_id, rows):
            page = self.rows[start : start + rows]
            yield page, page[-1].id

    async def payload(self, row_id: int) -> bytes | None:
        raise AssertionError(f"no payload is large, not that of row {row_id}")


async def test_each_event_comes_again_in_the_order_of_its_key(site: Site) -> None:
    """
    I4. With a header that says whose replay it is.
    """
    replay = Replay(
        ReplayOrder(which=EventFilter()),
        Produced(site.topic),
        site.broker,
        make_encoder(WireOptions(), max_payload_bytes=1000),
        batch_bytes=2000,
    )

    async def rest(_: float) -> bool:
        return True

    begin = ReplayState(last_id=ROWS, rows=ROWS)
    after = await replay.run(begin, EvenPace(40.0), rest=rest)
    seen = await site.consume(site.topic)
    headers = await site.headers(site.topic)

    assert (after.published, after.done) == (ROWS, True)
    assert sorted(int(value or b"") for _, _, value in seen) == list(range(1, ROWS + 1))
    for key in (b"a", b"b"):
        numbers = [int(value or b"") for _, found, value in seen if found == key]
        assert numbers == sorted(numbers)
    originals = {found.get("replay-of") or found.get("replayof") for found in headers}
    assert originals == {str(uuid.UUID(int=n)) for n in range(1, ROWS + 1)}
