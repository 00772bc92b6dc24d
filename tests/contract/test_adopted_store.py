"""
What only a table of python-cqrs has: two states that wait, rows that its relay gave up, documents to look into.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from outbox_relay.errors import SchemaMismatch, StoreUnavailable
from outbox_relay.operations import Access, read_standing
from outbox_relay.relay.dead_letters import Selection
from outbox_relay.relay.ports import PurgePlan, ReadPlan
from outbox_relay.schema import Codec, Status
from outbox_relay.store import open_store
from outbox_relay.wiring import build_dead_letters
from tests.contract.adopted import AdoptedWorld
from tests.integration.work import metered

EVERYTHING = ReadPlan(after_id=0, open_ids=frozenset(), limit=100)


@pytest.fixture(params=["mariadb", "postgresql"])
async def world(request):
    made = AdoptedWorld(request.getfixturevalue(f"{request.param}_database"))
    await made.prepare()
    yield made
    for store in made.opened:
        await store.close()
    made.engine.dispose()


def insert(world: AdoptedWorld, *payloads: bytes) -> list[int]:
    writer = world.begin()
    ids = [writer.insert(payload=payload) for payload in payloads]
    writer.commit()
    return ids


def with_history(world: AdoptedWorld, rows: int) -> None:
    """Two thirds are produced, the rest wait."""
    state = f"CASE WHEN n <= {rows * 2 // 3} THEN 'PRODUCED' ELSE 'NEW' END"
    values = f"0, 'e', 't', NOW(), '{{}}' FROM seq_1_to_{rows}"
    ids = "UNHEX(MD5(n)), UNHEX(MD5(n))"
    if world.engine.dialect.name == "postgresql":
        state, ids = f"({state})::eventstatus", "gen_random_uuid(), uuid_send(gen_random_uuid())"
        values = values.replace(f"seq_1_to_{rows}", f"generate_series(1, {rows}) AS numbers(n)")
    else:
        values = values.replace(
            f"FROM seq_1_to_{rows}", f"FROM (SELECT seq AS n FROM seq_1_to_{rows}) AS s"
        )
    world.execute(
        "INSERT INTO outbox (event_id, event_id_bin, event_status, flush_counter, event_name, topic, "
        f"created_at, payload) SELECT {ids}, {state}, {values}"
    )


async def take(world: AdoptedWorld):
    lease = await world.store.acquire("me", wake_address="", lease_seconds=15)
    assert lease is not None
    return lease


def set_state(world: AdoptedWorld, row_id: int, state: str, flushes: int) -> None:
    world.execute(
        f"UPDATE outbox SET event_status = '{state}', flush_counter = {flushes} WHERE id = {row_id}"
    )


async def test_what_was_tried_before_comes_in_its_place(world):
    """
    I4. By id, whatever the state; what was given up or produced is not there.
    """
    ids = insert(world, *[b"{}"] * 6)
    set_state(world, ids[1], "NOT_PRODUCED", 4)
    set_state(world, ids[2], "NOT_PRODUCED", 5)
    set_state(world, ids[3], "PRODUCED", 0)
    await take(world)

    assert [row.id for row in await world.store.read(EVERYTHING)] == [ids[0], ids[1], *ids[4:]]
    few = ReadPlan(after_id=ids[0], open_ids=frozenset({ids[0]}), limit=2, upto_id=ids[5])
    assert [row.id for row in await world.store.read(few)] == ids[:2]


async def test_rows_come_by_id_in_whatever_order_the_database_gives_them(world, monkeypatch):
    """
    I4. The statement sorts ids only: which order the join gives the rows is the database's choice.
    """
    ids = insert(world, *[b"{}"] * 5)
    await take(world)
    execute = world.store._reads.execute

    async def backwards(sql, parameters=()):
        answer = await execute(sql, parameters)
        return replace(answer, rows=list(reversed(answer.rows)))

    monkeypatch.setattr(world.store._reads, "execute", backwards)

    assert [row.id for row in await world.store.read(EVERYTHING)] == ids


async def test_rows_are_told_apart_by_their_first_bytes(world):
    """
    Compressed or not, with the key out of the document, small or left behind.
    """
    large = json.dumps({"k": "ä", "x": "y" * 20_000}).encode()
    insert(
        world, b'{"k": 7}', zlib.compress(b'{"k": "a"}'), b"no JSON", large, zlib.compress(large)
    )
    await take(world)

    rows = await world.store.read(EVERYTHING)

    assert [row.key for row in rows] == [b"7", b"a", None, "ä".encode(), "ä".encode()]
    assert [Codec(row.codec).name for row in rows] == ["RAW", "ZLIB", "RAW", "RAW", "ZLIB"]
    assert [row.payload is None for row in rows] == [False, False, False, True, False]
    assert await world.store.payload(rows[3].id) == large


LOOKS_LIKE_ZLIB = b"\x78\x9ctyped"


@pytest.mark.parametrize(("told", "codec"), [("sniff", Codec.ZLIB), ("raw", Codec.RAW)])
async def test_a_payload_that_only_looks_like_zlib_is_what_it_is_said_to_be(world, told, codec):
    """
    A typed codec may begin with zlib's two bytes: layout_payload overrules them, for the relay and for the tools.
    """
    [row_id, other] = insert(world, LOOKS_LIKE_ZLIB, b"x is no zlib")
    told_so = replace(world.options, layout_payload=told)
    store = open_store(told_so)
    world.opened.append(store)
    letters = build_dead_letters(told_so)
    try:
        await store.check_schema()
        await store.acquire("me", wake_address="", lease_seconds=15)
        codecs = [row.codec for row in await store.read(EVERYTHING)]
        for one in (row_id, other):
            set_state(world, one, "NOT_PRODUCED", 5)
        shown = await letters.read([row_id, other])
    finally:
        await letters.close()

    assert codecs == [codec, Codec.RAW]
    assert [letter.codec for letter in shown] == codecs


@pytest.mark.parametrize(
    ("told", "begins"),
    [
        ("auto", b'{"event_id":"%s","event_timestamp":"2026-01-02T03:04:05","event_name":"event"'),
        ("python-cqrs-0", b'{"message_type":"ecst_event","message_name":"event","message_id":"%s"'),
    ],
    ids=["1.0.0", "0.2.0"],
)
async def test_of_rows_with_a_payload_alone_the_document_is_made(world, told, begins):
    """
    Of 1.0.0 in its own form, or in that of 0.2.0 if told: compressed or not, small or left behind, with the
    key of the document. What cannot be read stays as it is stored.
    """
    kind = "VARCHAR(32) NOT NULL DEFAULT 'ECST_EVENT'"
    world.execute(f"ALTER TABLE outbox ADD COLUMN event_type {kind}")
    large = json.dumps({"k": "a", "x": "y" * 20_000}).encode()
    ids = insert(world, b'{"k":1}', zlib.compress(b'{"k":2}'), large, b"\x78\x9cno zlib")
    world.execute("UPDATE outbox SET created_at = '2026-01-02 03:04:05'")
    store = open_store(replace(world.options, layout_key_path="payload.k", layout_envelope=told))
    world.opened.append(store)
    await store.check_schema()
    await store.acquire("me", wake_address="", lease_seconds=15)

    rows = await store.read(EVERYTHING)

    assert [row.key for row in rows] == [b"1", b"2", b"a", None]
    assert [row.payload is None for row in rows] == [False, False, True, False]
    documents = [rows[0].payload, rows[1].payload, await store.payload(ids[2])]
    for row, document, payload in zip(
        rows, documents, (b'{"k":1}', b'{"k":2}', large), strict=False
    ):
        event_id = str(UUID(bytes=row.event_id)).encode()
        assert document.startswith(begins % event_id)
        assert json.loads(document)
        assert payload in document
    assert [row.codec for row in rows] == [Codec.RAW] * 3 + [Codec.ZLIB]


async def test_a_reason_of_an_earlier_time_is_not_that_of_the_old_relay(world):
    """
    A mark may not have come after its reason, and a row be given up by the other relay later.
    """
    [row_id] = insert(world, b'{"k": "a"}')
    lease = await take(world)
    await world.store.mark_dead(row_id, "too_large: 5 bytes", lease.term)
    set_state(world, row_id, "NOT_PRODUCED", 5)
    letters = build_dead_letters(world.options)
    try:
        [found] = await letters.find(Selection())
    finally:
        await letters.close()

    assert found.reason == "abandoned"
    assert (await world.store.dead_keys(limit=10)).first_ids == {}


async def test_a_row_that_its_relay_failed_on_meanwhile_is_marked_all_the_same(world):
    """
    I3. It was published. A row that we gave up is not: that is final until somebody requeues it.
    """
    ids = insert(world, b"{}", b"{}")
    lease = await take(world)
    set_state(world, ids[0], "NOT_PRODUCED", 5)
    await world.store.mark_dead(ids[1], "unreadable: x", lease.term)

    await world.store.mark_produced(ids, lease.term)

    assert [world.status(row_id) for row_id in ids] == [Status.PRODUCED, Status.DEAD]


async def test_the_reason_is_there_before_the_row_is_given_up(world, monkeypatch):
    """
    I2. A relay that dies between the two leaves a row that waits; repeating is safe.
    """
    [row_id] = insert(world, b"{}")
    lease = await take(world)
    execute, statements = world.store._marks.execute, []

    async def dies(sql, parameters=()):
        statements.append(sql)
        if len(statements) == 2:
            raise StoreUnavailable("the connection broke")
        return await execute(sql, parameters)

    monkeypatch.setattr(world.store._marks, "execute", dies)
    with pytest.raises(StoreUnavailable):
        await world.store.mark_dead(row_id, "too_large: 5 bytes", lease.term)
    between = world.status(row_id), world.error(row_id)
    await world.store.mark_dead(row_id, "too_large: 6 bytes", lease.term)

    assert between == (Status.PENDING, "too_large: 5 bytes")
    assert (world.status(row_id), world.error(row_id)) == (Status.DEAD, "too_large: 6 bytes")


async def test_only_our_dead_letters_hold_their_key(world):
    """
    What was abandoned has long been overtaken.
    """
    ids = insert(world, b'{"k": "a"}', b'{"k": "b"}', b"{}")
    lease = await take(world)
    set_state(world, ids[0], "NOT_PRODUCED", 5)
    for row_id in ids[1:]:
        await world.store.mark_dead(row_id, "too_large: 5 bytes", lease.term)

    assert (await world.store.dead_keys(limit=10)).first_ids == {("t", b"b"): ids[1]}


async def test_the_tools_know_both_kinds_of_dead_letters(world):
    """
    I2. With reason, topic and payload; a requeued one waits again and has no reason any more.
    """
    ids = insert(world, b'{"k": "a"}', b'{"k": "b"}', b"{}")
    lease = await take(world)
    set_state(world, ids[0], "NOT_PRODUCED", 5)
    await world.store.mark_dead(ids[1], "too_large: 5 bytes", lease.term)
    letters = build_dead_letters(world.options)
    try:
        found = await letters.find(Selection())
        assert [(one.id, one.topic, one.reason) for one in found] == [
            (ids[0], "t", "abandoned"),
            (ids[1], "t", "too_large"),
        ]
        [shown] = await letters.read([ids[1], ids[2]])
        assert (shown.key, shown.attempts, shown.codec) == (b"b", 100, 0)
        assert shown.dead_at is not None
        before = shown.dead_at - timedelta(seconds=1)
        seen = await letters.find(Selection(known_at=shown.dead_at))
        # The other relay does not say when it gave up.
        known = await letters.find(Selection(known_at=before))
        assert [one.id for one in seen] == ids[:2]
        assert [one.id for one in known] == ids[:1]
        assert await letters.payload(ids[1]) == b'{"k": "b"}'
        assert len(await letters.find(Selection(reasons=("abandoned",), topics=("t",)))) == 1

        assert await letters.requeue(ids) == 2
        assert world.error(ids[1]) is None
        assert world.statuses(ids) == {Status.PENDING}
        set_state(world, ids[2], "NOT_PRODUCED", 7)
        assert await letters.discard(ids) == ids[2:3]
        assert world.ids() == ids[:2]
    finally:
        await letters.close()


async def test_nothing_is_purged(world):
    """
    Its rows do not say since when they are produced.
    """
    [row_id] = insert(world, b"{}")
    lease = await take(world)
    await world.store.mark_produced([row_id], lease.term)
    plan = PurgePlan(status=Status.PRODUCED, older_than_seconds=0, after_id=0, limit=10)

    assert await world.store.aged(plan) == []
    assert await world.store.purge([row_id], plan, lease.term) == 0
    assert world.ids() == [row_id]


async def test_a_row_may_be_deleted_on_the_ack(world):
    """
    With the fence of a mark.
    """
    ids = insert(world, b"{}", b"{}")
    lease = await take(world)
    set_state(world, ids[1], "PRODUCED", 0)

    await world.store.delete_produced(ids, lease.term)

    assert world.ids() == ids[1:]


async def test_without_its_index_no_relay_begins(world):
    """
    Each look below the cursor would pass the whole history.
    """
    on = "" if world.engine.dialect.name == "postgresql" else " ON outbox"
    world.execute(f"DROP INDEX outbox_relay_ix{on}")

    with pytest.raises(SchemaMismatch, match="--prepare"):
        await world.store.check_schema()


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
async def test_history_costs_a_read_nothing(kind, request, monkeypatch):
    """
    I10. Neither what is produced nor what waits beyond the page is looked at.
    """
    with metered(monkeypatch, kind) as meter:
        world = AdoptedWorld(request.getfixturevalue(f"{kind}_database"), key_path="")
        await world.prepare()
        with_history(world, 3000)
        await take(world)
        plan = ReadPlan(after_id=0, open_ids=frozenset(), limit=10)
        rows, _ = await meter.rows_and_pages(lambda: world.store.read(plan))
        await world.store.max_id()
        ahead, _ = await meter.rows_and_pages(lambda: world.store.uncommitted_ids(plan))
        await world.store.close()
        world.engine.dispose()

    assert rows < 100
    assert ahead < 60


async def test_history_costs_the_tools_nothing(mariadb, monkeypatch):
    """
    I10. Unhinted, MySQL would look for a few dead letters in the order of the primary key.
    """
    world = AdoptedWorld(mariadb.create_database(), key_path="")
    await world.prepare()
    with_history(world, 20_000)
    world.execute("UPDATE outbox SET flush_counter = 5 WHERE id > 19990")
    letters = build_dead_letters(world.options)

    def looked_at() -> int:
        found = world.execute("SHOW GLOBAL STATUS LIKE 'Handler_read_%'")
        return sum(int(count) for name, count in found if not name.endswith(("deleted", "retry")))

    world.execute("UPDATE outbox SET event_status = 'PRODUCED' WHERE id <= 19990")
    before = looked_at()
    found = await letters.find(Selection(), limit=100)
    access = Access(world.options)
    standing = await read_standing(access)
    await access.close()
    after = looked_at()
    await letters.close()
    await world.store.close()
    world.engine.dispose()

    assert (len(found), standing.dead_letter_rows) == (10, 10)
    assert after - before < 10_000
