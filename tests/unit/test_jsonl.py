"""
A file as a broker: whole lines, on the disk before the ack.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import stat
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


async def test_a_batch_is_written_under_a_lock(
    make_broker: Callable[..., JsonlBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    I3. Else a relay that finds a torn line could cut off what another one is just writing.
    """
    broker, seen = make_broker(), []
    lock, write = fcntl.flock, os.write

    def locks(descriptor: int, how: int) -> None:
        lock(descriptor, how)
        seen.append(how)

    def writes(descriptor: int, lines: bytes) -> int:
        seen.append(len(lines))
        return write(descriptor, lines)

    monkeypatch.setattr(fcntl, "flock", locks)
    monkeypatch.setattr(os, "write", writes)
    await broker.publish("t", 0, BATCH[:1])

    assert [seen[0], seen[-1]] == [fcntl.LOCK_EX, fcntl.LOCK_UN]
    assert len(seen) == 3


async def test_after_a_failure_the_file_is_opened_anew(
    make_broker: Callable[..., JsonlBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    I3. A descriptor tells of pages that the disk did not take only once: a second fsync would say that
    all is well.
    """
    broker, opened, failures = make_broker(), [], [OSError(errno.EIO, "I/O error")]
    opens, sync = os.open, os.fsync

    def counts(*arguments: Any, **named: Any) -> int:
        opened.append(arguments[0])
        return opens(*arguments, **named)

    def fails(descriptor: int) -> None:
        if failures and stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise failures.pop()
        sync(descriptor)

    monkeypatch.setattr(os, "open", counts)
    monkeypatch.setattr(os, "fsync", fails)
    outcomes = [type(await broker.publish("t", 0, BATCH)) for _ in range(2)]

    assert outcomes == [Unknown, Acked]
    assert [str(name).endswith("events.jsonl") for name in opened].count(True) == 2


@pytest.mark.parametrize("what", ["rename", "unlink"])
async def test_a_file_that_goes_while_a_batch_is_written_is_not_the_ack(
    path: Path,
    make_broker: Callable[..., JsonlBroker],
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    """
    I3. Whoever rotates may have read the old file to its end, or removed it, before the lines came:
    they are in the file that the path leads to, when the ack is given.
    """
    broker, old = make_broker(), path.with_suffix(".1")
    real, moves = os.fsync, [path.unlink if what == "unlink" else lambda: path.rename(old)]

    def rotate_first(descriptor: int) -> None:
        real(descriptor)
        if moves and path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            moves.pop()()

    monkeypatch.setattr(os, "fsync", rotate_first)

    assert await broker.publish("t", 0, BATCH) == Acked()
    assert moves == []
    assert values(path) == ["0", "1", "2"]


async def test_a_path_that_leads_elsewhere_each_time_is_said(
    path: Path, make_broker: Callable[..., JsonlBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    I2. Such as on a file system whose inodes change: unknown, with the reason, and not written for ever.
    """
    real = os.fsync

    def remove_first(descriptor: int) -> None:
        real(descriptor)
        path.unlink(missing_ok=True)

    monkeypatch.setattr(os, "fsync", remove_first)
    outcome = await make_broker().publish("t", 0, BATCH)

    assert isinstance(outcome, Unknown)
    assert "another file each time" in outcome.detail


async def test_a_file_whose_name_may_be_lost_acks_nothing(
    path: Path, make_broker: Callable[..., JsonlBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    I3. The folder could not be synced when the file was new: it is asked again before the next ack.
    """
    broker, asked = make_broker(), []

    def sync_folder(folder: Path) -> None:
        asked.append(folder)
        if len(asked) < 3:
            raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr("outbox_relay.brokers.jsonl._sync_folder", sync_folder)
    outcomes = [type(await broker.publish("t", 0, BATCH)) for _ in range(3)]

    assert outcomes == [Unknown, Unknown, Acked]


async def test_a_pipe_that_nobody_reads_is_not_taken_for_one_that_answers(
    make_broker: Callable[..., JsonlBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    I8. The probe says so: everything waits, instead of writing each batch again and again.
    """
    reader, writer = os.pipe()
    monkeypatch.setattr("outbox_relay.brokers.jsonl.STANDARD_OUTPUT", writer)
    broker = make_broker(path="-")
    before = await broker.probe()
    os.close(reader)

    outcome = await broker.publish("t", 0, BATCH)
    answers = await broker.probe()
    os.close(writer)

    assert isinstance(outcome, Unknown)
    assert "EPIPE" in outcome.detail
    assert (before, answers) == (True, False)
