"""
A file, or standard output, as a broker: one JSON object a line.

An ack says that the batch is on the disk. A batch that could not be written as a whole is taken back, and
a line that a crash left torn is cut off before the next one, so that a reader finds whole lines only; on
standard output, where nothing can be taken back, a torn line is ended, and no JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import select
import stat
from base64 import b64encode
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from outbox_relay.brokers.cloudevents import as_text, data_of
from outbox_relay.brokers.options import JsonlOptions
from outbox_relay.relay.known import label_of, of_the_system
from outbox_relay.relay.outcomes import Acked, Fault, Outcome, Rejected, RejectReason, Unknown
from outbox_relay.relay.ports import Observer, Record
from outbox_relay.relay.watching import Silent

STANDARD_OUTPUT = 1
TAIL_BYTES = 65_536
WRITABLE_SECONDS = 1.0
MOST_ROTATIONS = 3
"""While one batch is written. More of them say that the file system cannot tell files apart."""

Result = TypeVar("Result")


def line_of(topic: str, record: Record) -> bytes:
    """
    *record* on one line, with its end: topic, key, timestamp (milliseconds), headers and value.

    A payload in JSON stands there as it is, other text as a string. A key or a payload that is no text
    is in ``key_base64`` or ``value_base64`` instead; a tombstone has the value null.
    """
    headers = {name: value.decode() for name, value in record.headers}
    content: dict[str, object] = {"topic": topic}
    key = as_text(record.key)
    if record.key is not None and key is None:
        content["key_base64"] = b64encode(record.key).decode()
    else:
        content["key"] = key
    content["timestamp"] = record.timestamp_ms
    content["headers"] = headers
    head = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    name, data = data_of(record.value, headers.get("content-type", ""))
    member = name.replace("data", "value").encode()
    return b'%b,"%b":%b}\n' % (head[:-1], member, b"null" if data is None else data)


class JsonlBroker:
    """The `MessageBroker` port over a file of JSON lines."""

    def __init__(self, options: JsonlOptions, *, observer: Observer | None = None) -> None:
        self._options = options
        self._observer = observer or Silent()
        self._output = _Output(options)
        # One thread: a write that hangs keeps the next one waiting, so that lines never mix.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="jsonl")

    def known_partitions(self, topic: str) -> int | None:
        """See MessageBroker. All topics are in one file."""
        return 1

    async def partitions(self, topic: str) -> int:
        """See MessageBroker."""
        return 1

    async def publish(self, topic: str, partition: int, records: Sequence[Record]) -> Outcome:
        """See MessageBroker."""
        try:
            lines = b"".join([line_of(topic, record) for record in records])
        except (TypeError, ValueError) as error:
            return Rejected(reason=RejectReason.UNREADABLE, detail=type(error).__name__)
        seconds = self._options.publish_deadline_seconds
        try:
            await self._within(seconds, lambda: self._output.write(lines))
        except TimeoutError:
            return Unknown(
                fault=Fault.BROKER, detail=f"{self._name} not written within {seconds} s"
            )
        except OSError as error:
            if of_the_system(error) is None:
                self._observer.log("unexpected_error", source="jsonl", error=label_of(error))
            return Unknown(fault=Fault.BROKER, detail=f"{self._name}: {_said(error)}")
        return Acked()

    @property
    def _name(self) -> str:
        return f"jsonl.path = {self._options.path}"

    async def _within(self, seconds: float, work: Callable[[], Result]) -> Result:
        """Do *work* in the thread; after *seconds* it goes on there, and TimeoutError is raised."""
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        future.add_done_callback(_forget)
        async with asyncio.timeout(seconds):
            return await asyncio.shield(future)

    async def probe(self) -> bool:
        """See MessageBroker. There must be room for the batch that found none."""
        try:
            return await self._within(
                self._options.publish_deadline_seconds, self._output.may_write
            )
        except OSError as error:
            self._observer.log("broker_unavailable", error=f"{self._name}: {_said(error)}")
            return False

    async def close(self, *, timeout_seconds: float) -> None:
        """See MessageBroker."""
        with contextlib.suppress(OSError, RuntimeError):
            await self._within(timeout_seconds, self._output.close)
        self._thread.shutdown(wait=False, cancel_futures=True)


def _forget(future: asyncio.Future[Result]) -> None:
    if not future.cancelled():
        future.exception()


def _said(error: OSError) -> str:
    if isinstance(error, TimeoutError) and not error.errno:
        return "no answer of the disk in time"
    name = errno.errorcode.get(error.errno or 0, type(error).__name__)
    return f"{name} ({error.strerror})"


class _Output:
    """Where the lines go. Used by one thread."""

    def __init__(self, options: JsonlOptions) -> None:
        self._path = Path(options.path).absolute()
        self._fsync = options.fsync
        self._is_file = options.path != "-"
        self._descriptor: int | None = None if self._is_file else STANDARD_OUTPUT
        self._is_torn = False
        self._needed_bytes = 0

    def write(self, lines: bytes) -> None:
        """All of *lines*, or none of them as far as that can be had. Raises OSError."""
        if not self._is_file:
            self._write_to_output(self._opened(), lines)
            return
        for _ in range(MOST_ROTATIONS):
            descriptor = self._opened()
            # Another relay may write to the same file: nobody cuts off what another is writing.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._write_to_file(descriptor, lines)
            # After a failure the descriptor is closed, and the lock gone with it.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            if self._is_still_there():
                return
            # Renamed or removed meanwhile: whoever did that may have read it to its end before these
            # lines came. Twice is better than never.
        raise OSError(errno.ESTALE, "the path leads to another file each time")

    def _write_to_file(self, descriptor: int, lines: bytes) -> None:
        start = None
        try:
            start = _cut_torn_line(descriptor)
            _write_all(descriptor, lines)
            if self._fsync:
                os.fsync(descriptor)
        except OSError as error:
            self._needed_bytes = len(lines) if error.errno in (errno.ENOSPC, errno.EDQUOT) else 0
            if start is not None:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, start)
            # What the disk did with the pages that it could not write, only a new descriptor asks.
            self._let_go()
            raise
        self._needed_bytes = 0

    def _write_to_output(self, descriptor: int, lines: bytes) -> None:
        start = b"\n" if self._is_torn else b""
        self._is_torn = True
        _write_all(descriptor, start + lines)
        self._is_torn = False

    def may_write(self) -> bool:
        """Whether the file can be opened and there is room, or somebody reads. Raises OSError."""
        descriptor = self._opened()
        if not self._is_file and _has_no_reader(descriptor):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        if not self._needed_bytes:
            return True
        found = os.fstatvfs(descriptor)
        return found.f_bavail * found.f_frsize > self._needed_bytes

    def _opened(self) -> int:
        if self._descriptor is not None and self._is_file and not self._is_still_there():
            self._let_go()
        if self._descriptor is None:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o640)
            try:
                if self._fsync:
                    _sync_folder(self._path)
            except OSError:
                self._let_go()  # else the next batch would be acked in a file that may have no name
                raise
        return self._descriptor

    def _is_still_there(self) -> bool:
        """Whether the path leads to the file that is open: it may have been rotated."""
        assert self._descriptor is not None
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self._descriptor))

    def _let_go(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def close(self) -> None:
        """Standard output stays open."""
        if self._is_file:
            self._let_go()


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            # Somebody who shares standard output with us made it so.
            select.select([], [descriptor], [], WRITABLE_SECONDS)


def _has_no_reader(descriptor: int) -> bool:
    """Whether it is a pipe that nobody will ever read from again."""
    asked = select.poll()
    asked.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in asked.poll(0))


def _cut_torn_line(descriptor: int) -> int:
    """
    Remove what follows the last line end: a crash left it, so nobody was told that it is there.

    The size of the file then. What is no regular file, such as a pipe, has none.
    """
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        return 0
    end = size = found.st_size
    while end > 0:
        start = max(0, end - TAIL_BYTES)
        tail = os.pread(descriptor, end - start, start)
        at = tail.rfind(b"\n")
        if at >= 0:
            end = start + at + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)
    return end


def _sync_folder(path: Path) -> None:
    """Let the disk know the name of a file that may be new."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
