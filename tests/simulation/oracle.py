"""
What must hold at every step. Knows every event's true story: written, committed, published, acked,
marked, given up; the relay's own word counts for nothing here.

Each check names the promise that it serves (docs/architecture.md). The first violation stays.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from outbox_relay.relay.ports import Record, Row
from outbox_relay.schema import Status


class Event:
    """One inserted row and what became of it."""

    __slots__ = (
        "acked", "acked_by", "acked_in", "appended", "committed", "committed_at", "dead_once", "gone", "kind",
        "marked", "order", "refused", "row", "status",
    )  # fmt: skip

    def __init__(self, row: Row, kind: str) -> None:
        self.row = row
        self.kind = kind
        self.order = 0
        self.committed = False
        self.committed_at = 0.0
        self.gone = False  # rolled back, discarded, or lost with its server
        self.status = Status.PENDING
        self.acked = False
        self.acked_by: set[str] = set()
        self.acked_in: TermSeen | None = None
        self.appended = 0
        self.marked = False
        self.refused = False
        self.dead_once = False


@dataclass(slots=True, eq=False)
class TermSeen:
    """A term as the database gave it. `unclean`: a fault may cost it marks; `overtaken`: its lease too."""

    nonce: str
    owner: str
    unclean: bool = False
    overtaken: bool = False
    out: set[int] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Call:
    """A batch under way, as its relay sees it."""

    term: TermSeen
    events: list[Event]
    stalled: bool = False


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken, and how."""

    promise: str
    text: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.text}"


class Oracle:
    """Watches one world. `violation` is the first one."""

    def __init__(
        self, *, hold_key: bool, retention_seconds: float, in_flight_rows: int, chunk_rows: int
    ) -> None:
        self._hold_key = hold_key
        self._retention_seconds = retention_seconds
        self._in_flight_rows = in_flight_rows
        self._chunk_rows = chunk_rows
        self.violation: Violation | None = None
        self.events: dict[bytes, Event] = {}
        self.lines: dict[tuple[str, bytes], list[Event]] = {}
        self.calls: set[Call] = set()
        self.terms: dict[str, TermSeen] = {}
        self.duplicates = 0
        self.unsettled = 0

    def broken(self, promise: str, text: str) -> None:
        """A promise does not hold."""
        if self.violation is None:
            self.violation = Violation(promise, text)

    # Writers

    def placed(self, event: Event) -> None:
        """The row is there, for dirty reads."""
        row = event.row
        self.events[row.event_id] = event
        if row.key is not None:
            line = self.lines.setdefault((row.topic, row.key), [])
            event.order = len(line)
            line.append(event)

    def committed(self, event: Event, now: float) -> None:
        """Its transaction committed."""
        event.committed, event.committed_at = True, now
        self.unsettled += 1

    def vanished(self, event: Event) -> None:
        """Rolled back, discarded or lost with its server."""
        if event.committed and not event.gone and event.status is Status.PENDING:
            self.unsettled -= 1
        event.gone = True

    # Publishing

    def sends(
        self, term: TermSeen | None, topic: str, records: Sequence[Record], owners: dict[int, str]
    ) -> Call:
        """A relay hands *records* to its broker's client; *owners* has the nonce of each lane."""
        call = Call(term or TermSeen("", "nobody"), [])
        if term is None:
            self.broken("I5", f"{topic}: published without a term")
        for record in records:
            event = self._known(topic, record)
            if event is not None:
                self._may_go(event, call, owners)
                call.events.append(event)
                if event.status is Status.PENDING:  # else a late mark of another term came first
                    call.term.out.add(event.row.id)
        if len(call.term.out) > self._in_flight_rows:
            self.broken("I10", f"{len(call.term.out)} rows are published and not yet marked")
        self.calls.add(call)
        return call

    def _known(self, topic: str, record: Record) -> Event | None:
        event = self.events.get(bytes.fromhex(record.event_id.decode().replace("-", "")))
        number = int(record.seq)
        if event is None or not event.committed:
            self.broken("I1", f"row {number} is published, but its transaction never committed")
            return None
        row = event.row
        if (row.topic, row.key, row.id) != (topic, record.key, number):
            self.broken("I1", f"row {number} is published as another event")
        return event

    def _may_go(self, event: Event, call: Call, owners: dict[int, str]) -> None:
        row, term = event.row, call.term
        owner = owners[row.lane]
        if owner != term.nonce and not term.overtaken:
            whose = self.terms[owner].owner if owner in self.terms else "nobody"
            self.broken("I5", f"{term.owner} publishes row {row.id}; its lane is {whose}'s now")
        if event.acked_in is not None and not event.gone:
            if event.acked_in is term:
                self.broken(
                    "I6", f"{term.owner} publishes row {row.id} again in the term of its ack"
                )
            elif not event.acked_in.unclean and not term.unclean:
                text = f"row {row.id} was acked in a term that ended well, and is published again"
                self.broken("I6", text)
        if row.key is None or (event.dead_once and not self._hold_key):
            return
        for earlier in self.lines[row.topic, row.key][: event.order]:
            if earlier.dead_once and term.overtaken:
                continue  # with two owners at once, one does not know what the other gave up
            if not self._settled(earlier) and earlier not in call.events:
                self.broken("I4", self._order_text(earlier, event))

    def _settled(self, event: Event) -> bool:
        if event.acked or event.gone or not event.committed:
            return True
        return event.dead_once and not self._hold_key

    @staticmethod
    def _order_text(earlier: Event, event: Event) -> str:
        how = "is dead and holds the key" if earlier.status is Status.DEAD else "is not settled"
        row = event.row
        return f"row {row.id} of {row.topic}/{row.key!r} goes, but row {earlier.row.id} {how}"

    def appended(self, events: Iterable[Event]) -> None:
        """The broker has them."""
        for event in events:
            event.appended += 1
            if event.appended > 1:
                self.duplicates += 1
                continue
            row = event.row
            if row.key is None or event.dead_once or event.gone:
                continue
            for earlier in self.lines[row.topic, row.key][: event.order]:
                if not (earlier.appended or earlier.gone or earlier.dead_once):
                    self.broken("I4", f"row {row.id} is on the topic before row {earlier.row.id}")

    def answered(self, call: Call, *, acked: bool, refused: bool) -> None:
        """The relay learns what became of its batch."""
        self.calls.discard(call)
        for event in call.events:
            if acked:
                event.acked, event.acked_in = True, call.term
                event.acked_by.add(call.term.nonce)
            else:
                call.term.out.discard(event.row.id)
        if refused and len(call.events) == 1:
            call.events[0].refused = True

    def asked(self, limit: int, statements: int) -> None:
        """A relay reads up to *limit* rows, with so many *statements* under way."""
        if limit > 2 * self._chunk_rows + self._in_flight_rows:
            self.broken("I10", f"a read asks for {limit} rows")
        if statements > 10:
            self.broken("I10", f"{statements} statements are under way at once")

    # Marking

    def marked(self, event: Event, *, nonce: str, owner: str) -> None:
        """A mark by *nonce* changes a row whose lane was *owner*'s when the statement began."""
        row = event.row
        if event.status is not Status.PENDING:
            self.broken("I5", f"a mark changes row {row.id}, which is {event.status.name}")
            return
        # An ack stays true: whoever had it may mark the row still when another term has given it up
        # meanwhile and an operator has requeued it.
        if nonce not in event.acked_by:
            self.broken("I3", f"row {row.id} is marked, and its term has no ack for it")
        self._fenced(event, nonce, owner)
        event.status, event.marked, event.acked = Status.PRODUCED, True, True
        self._out(event)

    def died(self, event: Event, error: str, *, nonce: str, owner: str) -> None:
        """A row is given up."""
        row = event.row
        if event.status is not Status.PENDING:
            self.broken("I5", f"row {row.id}, which is {event.status.name}, becomes a dead letter")
            return
        if not event.refused and event.kind != "unreadable":
            self.broken("I8", f"row {row.id} is given up, but nobody refused it alone")
        if not error:
            self.broken("I2", f"row {row.id} is given up without a reason")
        self._fenced(event, nonce, owner)
        event.status, event.dead_once = Status.DEAD, True
        self._out(event)

    def _fenced(self, event: Event, nonce: str, owner: str) -> None:
        if nonce != owner:
            self.broken("I5", f"a stale term changes row {event.row.id}")

    def _out(self, event: Event) -> None:
        for term in self.terms.values():
            term.out.discard(event.row.id)
        if event.committed and not event.gone:
            self.unsettled -= 1

    def requeued(self, event: Event) -> None:
        """An operator wants a dead letter published once more."""
        event.status = Status.PENDING
        event.acked = False
        event.acked_in = None
        self.unsettled += 1

    def deleted(self, event: Event, status: Status) -> None:
        """A row is purged as one of *status*."""
        if event.status is not Status.PRODUCED or status is not Status.PRODUCED:
            self.broken("I2", f"row {event.row.id} is purged, and it is {event.status.name}")

    def canary_acked(self, event: Event | None, seconds: float) -> None:
        """A relay says that its canary arrived, *seconds* after it was written."""
        if event is None or event.appended:
            return
        discarded = event.gone and event.status is Status.DEAD
        # A dead letter that is discarded at once looks like a row that was produced and purged since.
        if not (discarded and seconds >= self._retention_seconds):
            self.broken("I3", f"canary {event.row.id} counts as acked, and no broker has it")

    # Leases

    def took(self, term: TermSeen, passed: dict[str, set[int]]) -> None:
        """*term* has lanes now that others had: *passed* has them by nonce."""
        self.terms.setdefault(term.nonce, term)
        for call in self.calls:
            lanes = passed.get(call.term.nonce)
            if not lanes or call.stalled or call.term.overtaken:
                continue
            if any(event.row.lane in lanes for event in call.events):
                text = f"{term.owner} takes lanes while a batch of {call.term.owner} is under way"
                self.broken("I5", text)

    def trouble(self, terms: Iterable[TermSeen], *, overtaken: bool = False) -> None:
        """A fault that may cost *terms* their marks, or even their leases."""
        for term in terms:
            term.unclean = True
            term.overtaken |= overtaken

    def stalled(self, terms: Iterable[TermSeen]) -> None:
        """The processes of *terms* stand still, or are gone: what is under way is out of their hands."""
        for term in terms:
            for call in self.calls:
                call.stalled |= call.term is term

    # The end

    def unfinished(self) -> list[Event]:
        """Committed events that are neither produced nor dead."""
        return [
            event
            for event in self.events.values()
            if event.committed and not event.gone and event.status is Status.PENDING
        ]


class Replayed:
    """
    Watches one replay. What was produced when it began must come again, each key's events in their order,
    however often it was killed; and nothing that was never published.
    """

    def __init__(
        self, oracle: Oracle, event_id: Callable[[UUID], UUID], to_topic: str | None
    ) -> None:
        self._oracle = oracle
        self._event_id = event_id
        self._to_topic = to_topic
        self._highest: dict[tuple[str, bytes], int] = {}
        self._there: set[bytes] = set()
        self.expected: dict[bytes, Event] = {}

    def sends(self, topic: str, record: Record) -> Event | None:
        """The replay hands *record* to its broker's client."""
        oracle, headers = self._oracle, dict(record.headers)
        original = UUID(headers.get("replay-of", b"0" * 32).decode())
        event = oracle.events.get(original.bytes)
        if event is None or not event.committed:
            oracle.broken("I1", f"a replay brings row {record.seq!r}, which never committed")
            return None
        row = event.row
        if (topic, record.key, int(record.seq)) != (self._to_topic or row.topic, row.key, row.id):
            oracle.broken("I1", f"a replay brings row {row.id} as another event")
        if record.event_id.decode() != str(self._event_id(original)):
            oracle.broken("I1", f"a replay brings row {row.id} with an id that does not follow")
        if not event.appended:
            oracle.broken("I1", f"a replay brings row {row.id}, which was never published")
        return event

    def appended(self, events: Iterable[Event]) -> None:
        """The broker has them."""
        for event in events:
            row = event.row
            if row.event_id in self._there:
                continue
            self._there.add(row.event_id)
            if row.key is None or row.event_id not in self.expected:
                continue  # it was marked while the replay was under way: it may be left out, or come late
            line = (row.topic, row.key)
            highest = self._highest.get(line, 0)
            if row.id < highest:
                text = f"a replay brings row {row.id} of {line} behind row {highest}"
                self._oracle.broken("I4", text)
            self._highest[line] = max(highest, row.id)

    def ended(self, kept: Collection[bytes]) -> None:
        """It says that it is done; *kept* is what the table still has."""
        for event_id, event in self.expected.items():
            if event_id not in self._there and event_id in kept and not event.gone:
                self._oracle.broken("I2", f"a replay that ended has left out row {event.row.id}")
