"""
A file as a broker: whole lines, on the disk before the ack.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from outbox_relay.brokers.jsonl import JsonlBroker
from outbox_relay.brokers.options import JsonlOptions
from outbox_relay.relay.outcomes import Acked, Fault, Rejected, Unknown
from outbox_relay.relay.ports import HeaderBlock
from outbox_relay.testing import Watcher, record

BATCH = [record(b"k", b"%d" % n, seq=n) for n in range(3)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


@pytest.fixture
async def make_broker(path: Path) -> AsyncIterator[Callable[..., JsonlBroker]]:
    made: list[JsonlBroker] = []

    def make(**options: Any) -> JsonlBroker:
        chosen = {"path": str(path), "publish_deadline_seconds": 5.0, **options}
        made.append(JsonlBroker(JsonlOptions(**chosen), observer=Watcher()))
        return made[-1]

    yield make
    for broker in made:
        await broker.close(timeout_seconds=1)


def values(path: Path) -> list[str]:
    return [json.loads(line)["value"] for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("torn", [b'{"topic":"t"', b"x" * 200_000, b"\n{"])
async def test_a_torn_line_is_cut_off_before_the_next_one(
    path: Path, make_broker: Callable[..., JsonlBroker], torn: bytes
) -> None:
    """
    I3. A crash left it, so nobody was told that it is there; also where it is long.
    """
    assert await make_broker().publish("t", 0, BATCH) == Acked()
    with path.open("ab") as file:
        file.write(torn)

    assert await make_broker().publish("t", 0, BATCH) == Acked()

    lines = [line for line in path.read_bytes().split(b"\n") if line]
    assert [json.loads(line)["value"] for line in lines] == ["0", "1", "2"] * 2


async def test_a_file_that_is_one_torn_line_begins_anew(
    path: Path, make_broker: Callable[..., JsonlBroker]
) -> None:
    """
    There is no line end to go back to.
    """
    path.write_bytes(b"torn")

    assert await make_broker().publish("t", 0, BATCH) == Acked()
    assert values(path) == ["0", "1", "2"]


async def test_the_ack_follows_the_disk(
    path: Path, make_broker: Callable[..., JsonlBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    I3. fsync after the write, before the ack; not with fsync = false.
    """
    calls: list[str] = []
    write, fsync = os.write, os.fsync
    monkeypatch.setattr(os, "write", lambda fd, data: calls.append("write") or write(fd, data))
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append("fsync") or fsync(fd))

    await make_broker().publish("t", 0, BATCH)
    with_sync, calls[:] = calls[-2:], []
    await make_broker(fsync=False).publish("t", 0, BATCH)

    assert with_sync == ["write", "fsync"]
    assert calls == ["write"]


@pytest.mark.parametrize("call", ["write", "fsync"])
async def test_a_full_disk_is_unknown_and_leaves_no_part_of_the_batch(
    path: Path, make_broker: Callable[..., JsonlBroker], monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """
    I8. The probe says no until there is room; nothing is given up and no line is torn.
    """
    broker = make_broker()
    assert await broker.publish("t", 0, BATCH) == Acked()
    write = os.write

    def full(descriptor: int, data: bytes = b"") -> int:
        if call == "write" and len(data) > 10:
            return write(descriptor, data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    class Disk:
        f_bavail, f_frsize = 0, 4096

    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        outcome = await broker.publish("t", 0, BATCH)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fstatvfs", lambda descriptor: Disk)
        answers = await broker.probe()

    assert isinstance(outcome, Unknown)
    assert outcome.fault is Fault.BROKER
    assert outcome.detail.endswith("ENOSPC (No space left on device)")
    assert not answers
    assert values(path) == ["0", "1", "2"]
    assert await broker.probe()
    assert await broker.publish("t", 0, BATCH) == Acked()
    assert values(path) == ["0", "1", "2"] * 2


async def test_a_file_that_was_rotated_is_left_alone(
    path: Path, make_broker: Callable[..., JsonlBroker]
) -> None:
    """
    The next batch goes to a new file under the name.
    """
    broker = make_broker()
    await broker.publish("t", 0, BATCH[:1])
    path.rename(path.with_suffix(".1"))
    await broker.publish("t", 0, BATCH[1:])

    assert values(path.with_suffix(".1")) == ["0"]
    assert values(path) == ["1", "2"]


async def test_two_relays_may_write_to_one_file(
    path: Path, make_broker: Callable[..., JsonlBroker]
) -> None:
    """
    Batches do not mix, and nobody cuts off what another is writing.
    """
    brokers = [make_broker(fsync=False) for _ in range(2)]
    batches = [[record(b"k", b"%d" % n, seq=n)] * 50 for n in range(20)]
    outcomes = await asyncio.gather(
        *(brokers[n % 2].publish("t", 0, batch) for n, batch in enumerate(batches))
    )

    found = values(path)
    assert outcomes == [Acked()] * 20
    assert sorted(found) == sorted(str(n) for n in range(20) for _ in range(50))
    assert all(len(set(found[start : start + 50])) == 1 for start in range(0, 1000, 50))


async def test_a_disk_that_hangs_is_unknown_and_nothing_mixes_with_it_later(
    path: Path, make_broker: Callable[..., JsonlBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    I9. The deadline holds; the next batch waits for what hangs, and close ends in time.
    """
    goes_on = threading.Event()
    write = os.write

    def hangs(descriptor: int, data: bytes) -> int:
        goes_on.wait(30)
        return write(descriptor, data)

    broker = make_broker(publish_deadline_seconds=0.1)
    monkeypatch.setattr(os, "write", hangs)
    outcomes = [await broker.publish("t", 0, BATCH) for _ in range(2)]
    answers = await broker.probe()
    async with asyncio.timeout(5):
        await broker.close(timeout_seconds=0.1)
    goes_on.set()

    assert [type(outcome) for outcome in outcomes] == [Unknown, Unknown]
    assert not answers


async def test_a_folder_that_is_gone_and_a_record_that_is_no_text(
    path: Path, make_broker: Callable[..., JsonlBroker], tmp_path: Path
) -> None:
    """
    The one is everybody's trouble and passes, the other one record's for good.
    """
    broker = make_broker(path=str(tmp_path / "gone" / "events"))
    outcome = await broker.publish("t", 0, BATCH)
    bad = BATCH[0]._replace(own=HeaderBlock((("x", b"\xff"),)))
    rejected = await broker.publish("t", 0, [bad])

    assert isinstance(outcome, Unknown)
    assert "ENOENT" in outcome.detail
    assert not await broker.probe()
    assert isinstance(rejected, Rejected)
    (tmp_path / "gone").mkdir()
    assert await broker.probe()
    assert await broker.publish("t", 0, BATCH) == Acked()


async def test_a_torn_line_on_standard_output_is_ended(
    make_broker: Callable[..., JsonlBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Nothing can be taken back there: it ends, and is no JSON. A closed pipe is unknown.
    """
    reads, writes = os.pipe()
    monkeypatch.setattr("outbox_relay.brokers.jsonl.STANDARD_OUTPUT", writes)
    broker = make_broker(path="-")
    write = os.write

    written: list[int] = []

    def breaks(descriptor: int, data: bytes) -> int:
        if written:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        written.append(write(descriptor, data[:5]))
        return 5

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", breaks)
        outcome = await broker.publish("t", 0, BATCH)
    assert await broker.publish("t", 0, BATCH[:1]) == Acked()
    os.close(writes)
    with os.fdopen(reads, "rb") as output:
        torn, whole = output.read().splitlines()

    assert isinstance(outcome, Unknown)
    assert torn == b'{"top'
    assert json.loads(whole)["value"] == "0"
