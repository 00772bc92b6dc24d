"""What a replay is to publish, and how far it has come: kept in a file, so that it can go on."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from outbox_relay.errors import ConfigError
from outbox_relay.operations.selection import EventFilter

FORMAT: Final = 1

_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
"""What flock(2) answers where the file system has no locks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOrder:
    """
    What somebody wants published again.

    With `as_new` each event gets a new id, which follows from its own and from `replay_id`: going on, and
    repeating, gives the same one.
    """

    which: EventFilter
    to_topic: str | None = None
    as_new: bool = False
    replay_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    said: Mapping[str, Any] = field(default_factory=dict)
    """How it was asked for, so that the same command is known again."""

    def event_id(self, original: uuid.UUID) -> uuid.UUID:
        """The id that goes on the wire."""
        if not self.as_new:
            return original
        return uuid.uuid5(uuid.UUID(hex=self.replay_id), str(original))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayState:
    """How far a replay has come: all that is meant up to `after_id` is published, or was passed over."""

    last_id: int
    """Later rows are not meant: they were not there when it began."""
    rows: int
    """How many were counted."""
    after_id: int = 0
    published: int = 0
    passed_over: int = 0
    """Rows that the broker refuses, or that cannot become a record."""

    @property
    def done(self) -> bool:
        """Whether nothing is left."""
        return self.after_id >= self.last_id


def save(path: Path, order: ReplayOrder, state: ReplayState) -> None:
    """
    Write the file *path*, as a whole or not at all, and durably.

    Raises ConfigError if it cannot be written.
    """
    content = {
        "format": FORMAT,
        "filter": _plain(order.which),
        "to_topic": order.to_topic,
        "as_new": order.as_new,
        "replay_id": order.replay_id,
        "said": dict(order.said),
        **dataclasses.asdict(state),
    }
    beside = path.with_name(f"{path.name}.new")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise ConfigError([f"--resume {path}: cannot be written ({error.strerror})"]) from error


def load(path: Path) -> tuple[ReplayOrder, ReplayState] | None:
    """What `save` wrote; None if there is no such file. Raises ConfigError for another file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']} is of another release")
        order = ReplayOrder(
            which=_filter(content["filter"]),
            to_topic=content["to_topic"],
            as_new=content["as_new"],
            replay_id=uuid.UUID(hex=content["replay_id"]).hex,
            said=dict(content["said"]),
        )
        names = [field.name for field in dataclasses.fields(ReplayState)]
        return order, ReplayState(**{name: int(content[name]) for name in names})
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError([f"--resume {path}: cannot be read ({error.strerror})"]) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            [f"--resume {path}: is not what a replay left ({error}): name another file"]
        ) from error


@contextlib.contextmanager
def claimed(path: Path | None) -> Iterator[None]:
    """
    No other replay works with the file *path* meanwhile: two at once would bring a key's events in no order.

    A claim ends with its process, however that ends. None needs none. Raises ConfigError if another has it.
    """
    if path is None:
        yield
        return
    beside = path.with_name(f"{path.name}.lock")
    try:
        descriptor = _locked(beside)
    except BlockingIOError as error:
        text = (
            f"--resume {path}: another replay works with it: wait until that has ended, or stop it"
        )
        raise ConfigError([text]) from error
    except OSError as error:
        raise ConfigError([f"--resume {path}: cannot be written ({error.strerror})"]) from error
    try:
        yield
    finally:
        beside.unlink(missing_ok=True)
        os.close(descriptor)


def _locked(path: Path) -> int:
    """A descriptor of the file at *path*, which nobody else has locked. Raises OSError."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _leads_to(path, descriptor):
                return descriptor
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return descriptor
            os.close(descriptor)
            raise
        os.close(descriptor)


def _leads_to(path: Path, descriptor: int) -> bool:
    """False if who had it locked has removed it since we opened it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _plain(which: EventFilter) -> dict[str, Any]:
    found: dict[str, Any] = dataclasses.asdict(which)
    del found["statuses"]
    found["keys"] = [key.hex() for key in which.keys]
    for name in ("since", "until"):
        found[name] = found[name] and found[name].isoformat()
    return found


def _filter(plain: dict[str, Any]) -> EventFilter:
    return EventFilter(
        topics=tuple(plain["topics"]),
        keys=tuple(bytes.fromhex(key) for key in plain["keys"]),
        names=tuple(plain["names"]),
        since=plain["since"] and datetime.fromisoformat(plain["since"]),
        until=plain["until"] and datetime.fromisoformat(plain["until"]),
        first_id=plain["first_id"],
        last_id=plain["last_id"],
    )
