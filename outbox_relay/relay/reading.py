"""
Gap-safe reading without a lock: which rows to ask for next, and what an answer means.

Ids are given out before their transactions commit, so they commit out of order, and a cursor
``id > last`` loses rows. Here the status is the truth and the cursor only a hint. Finding every row
is not enough: each answer must also keep the order within a key. Four rules do it.

* *Open ids.* After each read of (a, b] the ids of that range are read once more, committed or not.
  What is there, was not returned and is not in flight is open. Every later read asks, in its one
  snapshot, for the rows above the cursor and for the open ids. So a row whose transaction was open
  comes no later than a row that its transaction held up: two writers of one key that lock their
  aggregate are in one snapshot or in two in the right order.
* *Safe.* The cursor never passes `safe`: the largest id that was noted at least `settle_seconds`
  ago. Every id up to it had been given out by then, so a read sees its row, finds it open, or it is
  gone. Above `safe` each read starts again at `safe`. Nothing moves by the clock alone: a reader
  that stalled has noted nothing.
* *In flight.* Rows in flight are skipped. An id is forgotten only when a read starts after its mark
  committed; earlier reads may still return it as pending.
* *Sweep.* Pages over (0, cursor] find what the others cannot, such as ids that a long
  ``INSERT ... SELECT`` held on MySQL 8, and rows that were requeued.
* *Lanes.* Lanes gained while others are held are read by a `Reading` of their own, from the first id
  on, in turn with the common one, so that their backlog holds up no event of the others. When it has
  come to the end, both go on together from the lower cursor. What is in flight, `safe` and the room
  are common to both.

PostgreSQL has no dirty read. There nothing is open: what is noted is the id up to which every
transaction has ended (`outbox_relay.store.holders`), which is `safe` at once.
Pure: time comes in as an argument.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from outbox_relay.relay.lease import ALL_LANES
from outbox_relay.relay.ports import LARGE_PAYLOAD_BYTES, ReadPlan, Row
from outbox_relay.relay.window import MAX_OPEN_IDS, Window, fitting, id_ranges
from outbox_relay.schema import LANES

NOTE_SECONDS = 1.0
"""How often the largest id is noted."""


@dataclass(slots=True, kw_only=True)
class Reading:
    """Cursor, open ids and ids in flight of one term over its lanes."""

    settle_seconds: float
    chunk_rows: int
    in_flight_rows: int
    in_flight_bytes: int
    safe: int = 0
    cursor: int = 0
    open_ids: set[int] = field(default_factory=set)
    in_flight: dict[int, Row] = field(default_factory=dict)
    bytes_in_flight: int = 0
    lanes: frozenset[int] = ALL_LANES
    gained: Reading | None = None
    """Reads the lanes that were gained and have not yet come to the end."""
    skip_topics: frozenset[str] = frozenset()
    caught_up: bool = False
    pass_done: bool = True
    largest_read: int = 0
    at_the_end: bool = False
    """Whether the last read came to the end, whatever it found."""
    _common: Reading | None = None
    _turn_of_gained: bool = False
    window: Window = field(default_factory=Window)
    _read_from: int = 0
    _wanted: int = 1 << 40
    _more: bool = False
    _pass_to: int = 0
    _notes: deque[tuple[float, int]] = field(default_factory=deque)
    _noted_at: float | None = None
    _settled: list[int] = field(default_factory=list)
    _sweep_from: int = 0
    _late_upto: int | None = None
    _left: set[int] = field(default_factory=set)  # read, and cannot go before the next `rewind`
    _page_ids: frozenset[int] = frozenset()

    # What was given out

    def note(self, max_id: int, *, now: float) -> None:
        """*max_id* is the largest id of the table, by an answer that arrived at *now*."""
        if max_id < self.safe:
            # The table was emptied or restored: ids above may be given out again.
            self.safe = max_id
            self.cursor = min(self.cursor, max_id)
            self._left.clear()
        if self._noted_at is not None and (silent := now - self._noted_at - NOTE_SECONDS) > 0.5:
            # The database stood still, and with it whoever held an id: that time does not count.
            self._notes = deque((at + silent, noted) for at, noted in self._notes)
        self._noted_at = now
        while self._notes and self._notes[-1][1] > max_id:
            self._notes.pop()
        if not self._notes or self._notes[-1][1] < max_id:
            self._notes.append((now, max_id))

    def _advance_safe(self, now: float) -> None:
        # Only time in which the database answered counts: it goes up to the last note.
        now = now if self._noted_at is None else min(now, self._noted_at)
        while self._notes and now - self._notes[0][0] >= self.settle_seconds:
            self.safe = max(self.safe, self._notes.popleft()[1])

    # Room

    def room(self) -> int:
        """How many more rows may be in flight."""
        if self._common is not None:
            return self._common.room()
        if 4 * self.bytes_in_flight > 3 * self.in_flight_bytes:
            # Else each mark would make room for a read of hardly any rows.
            return 0
        return max(0, self.in_flight_rows - len(self.in_flight) + len(self._settled))

    def _fitting(self) -> int:
        """How many rows fit for sure: of each, a read may bring as much as is not left behind."""
        common = self._common or self  # what is in flight is counted there
        left = common.in_flight_bytes - common.bytes_in_flight
        return min(self.room(), max(1, left // LARGE_PAYLOAD_BYTES))

    def idle(self) -> bool:
        """Whether the last read found nothing to publish, and nothing is in flight."""
        everything = self.caught_up and self.gained is None
        return everything and len(self.in_flight) == len(self._settled)

    def at_rest(self) -> bool:
        """Whether nothing waits, pauses or is open, and `safe` is where the last note was."""
        noted = self._notes[-1][1] if self._notes else self.safe
        calm = self.idle() and self.pass_done and noted <= self.safe
        return calm and not self.open_ids and not self.skip_topics

    # Forward

    def plan(self, *, now: float) -> ReadPlan:
        """The next read. Call it right before the read starts."""
        self.forget_settled()
        if self._common is None:
            self._advance_safe(now)
        else:
            self._common._advance_safe(now)
            self.safe, self.skip_topics = self._common.safe, self._common.skip_topics
        self.cursor = min(self.cursor, self.safe)
        self._left = {i for i in self._left if i > self.cursor}
        ahead = [i for i in self.in_flight if i > self.cursor]
        skip_ids, skipped = id_ranges(sorted({*ahead, *self._left}))
        skipped = min(skipped, len(ahead) + self.chunk_rows)
        # The cursor stands still at a large transaction: those behind it are read all the same.
        upto = self.safe if self._at_a_wall() else self.cursor + self.window.ids
        self._read_from = self.cursor
        self._wanted = min(self.chunk_rows, self._fitting())
        return ReadPlan(
            after_id=self.cursor,
            open_ids=frozenset(self.open_ids),
            limit=self._wanted + skipped,
            upto_id=upto if upto < self.safe else self._end(),
            skip_topics=self.skip_topics,
            skip_ids=skip_ids,
            lanes=self.lanes,
        )

    def _end(self) -> int | None:
        # What is skipped is passed up to `safe` first: above it, each read would pass it again.
        if self._at_a_wall() or not (self.skip_topics or len(self.lanes) < LANES):
            return None
        if self.cursor < self.safe:
            return self.safe
        # A term that has noted nothing before its own first look has everything above `safe`.
        notes = (self._common or self)._notes
        window = self.cursor + self.window.ids
        return window if notes and notes[-1][1] > window else None

    def _at_a_wall(self) -> bool:
        return len(self.open_ids) >= MAX_OPEN_IDS

    def answered(self, plan: ReadPlan, rows: Sequence[Row] | None, *, seconds: float) -> None:
        """*plan* was answered with *rows* after *seconds*, or not at all."""
        ids = (self.safe if plan.upto_id is None else plan.upto_id) - plan.after_id
        if rows is None:
            self.window.failed(ids)
        elif len(rows) < plan.limit:
            self.window.passed(ids, seconds=seconds)

    def goes_on(self) -> bool:
        """Whether the last read said that there is more: none need wait for the next poll."""
        return self._more or self._read_from < self.cursor < self.safe

    def page(self, plan: ReadPlan, rows: Sequence[Row]) -> tuple[list[Row], ReadPlan | None]:
        """
        What *rows*, the answer to *plan*, mean: the rows not seen before, oldest first, and the
        range to read once more for open ids before the cursor may pass it, if there is one.
        """
        in_flight, left = self.in_flight, self._left
        count, rows = len(rows), fitting(rows, self._wanted, in_flight, left)
        full = count >= plan.limit or len(rows) < count
        if rows:
            common = self._common or self
            common.largest_read = max(common.largest_read, rows[-1].id)
        fresh = [row for row in rows if row.id not in in_flight and row.id not in left]
        self._more = full and bool(fresh)
        end = rows[-1].id if full and rows else plan.upto_id
        target = self.safe if end is None else min(end, self.safe)
        self.caught_up = not full and plan.upto_id is None and not fresh and not self.open_ids
        self.at_the_end = not full and plan.upto_id is None
        self.pass_done |= self.at_the_end
        if target <= self.cursor or self._at_a_wall():
            return fresh, None
        self._page_ids = frozenset([row.id for row in rows])
        return fresh, self._peek(target)

    def dispatched(self, rows: Iterable[Row]) -> None:
        """
        *rows* are on their tracks, or skipped until a rewind: they are open no more.

        Not before that: when a payload cannot be fetched, its row must be asked for again, ahead of
        what came after it.
        """
        if self.open_ids:
            self.open_ids.difference_update([row.id for row in rows])
        # Above `safe` each read starts again at the cursor. Rows that are parked must not fill it.
        self._left.update([row.id for row in rows if row.id not in self.in_flight])

    def _peek(self, target: int) -> ReadPlan:
        known = self._page_ids | self._left | self.in_flight.keys()
        skip_ids, more = id_ranges(sorted([i for i in known if i > self.cursor]))
        return ReadPlan(
            after_id=self.cursor,
            upto_id=target,
            open_ids=frozenset(self.open_ids),
            limit=more + len(self.open_ids) + MAX_OPEN_IDS + 1,
            skip_topics=self.skip_topics,
            skip_ids=skip_ids,
            lanes=self.lanes,
        )

    def peek_open(self) -> ReadPlan | None:
        """A look at the open ids alone, to learn which of them are gone; None if there are none."""
        if not self.open_ids:
            return None
        self._page_ids = frozenset()
        return self._peek(self.cursor)

    def peeked(self, plan: ReadPlan, ids: Iterable[int]) -> None:
        """
        *ids* are pending in the range of *plan*, committed or not: the cursor moves past it.

        What was open and is not among them was rolled back.
        """
        present = set(ids)
        self.open_ids.intersection_update(present)
        new = sorted(present - self._page_ids - self._left - self.in_flight.keys() - self.open_ids)
        target = plan.upto_id or 0
        if len(present) >= plan.limit:
            target = min(target, max(present))
        excess = len(new) + len(self.open_ids) - MAX_OPEN_IDS
        if excess > 0 and new:
            kept = max(0, len(new) - excess)
            target = new[kept] - 1
            new = new[:kept]
        self.open_ids.update(new)
        self.cursor = max(self.cursor, target)
        self.pass_done |= self.cursor >= min(self._pass_to, self.safe)

    # In flight

    def take(self, row: Row) -> None:
        """*row* goes on to its track."""
        self.in_flight[row.id] = row
        self.bytes_in_flight += row.payload_bytes

    def settled(self, ids: Iterable[int]) -> None:
        """The marks of *ids* have committed."""
        self._settled.extend(ids)

    def dropped(self, ids: Iterable[int]) -> None:
        """*ids* are not published for now; they stay pending. `rewind` finds them again."""
        for row_id in ids:
            row = self.in_flight.pop(row_id, None)
            if row is not None:
                self.bytes_in_flight -= row.payload_bytes

    def lanes_in_flight(self) -> set[int]:
        """The lanes of what is under way and not yet marked."""
        settled = set(self._settled)
        return {row.lane for row_id, row in self.in_flight.items() if row_id not in settled}

    def forget_settled(self) -> None:
        """Forget the ids whose marks have committed. Never call it while a read is under way."""
        if self._common is not None:
            self._common.forget_settled()
        if self._settled:
            settled, self._settled = self._settled, []
            self.dropped(settled)

    # Below the cursor

    def rewind(self) -> None:
        """Make one ordered pass from the first pending row: something parked may go on."""
        self.cursor = 0
        self.pass_done = False
        self._pass_to = self.safe
        self._sweep_from = 0
        self.open_ids.clear()
        self._left.clear()
        self.caught_up = self.at_the_end = False
        if self.gained is not None:
            self.gained.rewind()

    def passed(self) -> bool:
        """Whether the passes that `rewind` asked for are done."""
        return self.pass_done and (self.gained is None or self.gained.pass_done)

    def sweep(self, limit: int) -> ReadPlan | None:
        """The next page below the cursor, or None if there is nothing below."""
        self.forget_settled()
        if self.cursor <= self._sweep_from or not self.room():
            self._sweep_from = 0
            return None
        self._wanted = min(limit, self._fitting())
        return ReadPlan(
            after_id=self._sweep_from,
            upto_id=min(self.cursor, self._sweep_from + self.window.ids),
            open_ids=frozenset(),
            limit=self._wanted
            + sum(1 for row_id in self.in_flight if self._sweep_from < row_id <= self.cursor),
            skip_topics=self.skip_topics,
            lanes=self.lanes,
        )

    def late(self, rows: Sequence[Row]) -> list[Row]:
        """The late rows among *rows*, as far as there is room. Open ids are left to the forward read."""
        kept = fitting(rows, self._wanted, self.in_flight, ())
        self._late_upto = kept[-1].id if len(kept) < len(rows) else None
        return [row for row in kept if row.id not in self.in_flight and row.id not in self.open_ids]

    def swept_to(self, plan: ReadPlan, rows: Sequence[Row]) -> None:
        """The late rows among *rows*, the answer to *plan*, are on their tracks."""
        full = len(rows) >= plan.limit
        end = self._late_upto or (rows[-1].id if full and rows else plan.upto_id or 0)
        self._sweep_from = end if end < self.cursor else 0

    # Lanes

    def gain(self, lanes: frozenset[int]) -> None:
        """*lanes* are read from now on, from the first id. Call it between two reads."""
        if not self.lanes or not self._begun():
            self._read_lanes(self.lanes | lanes)
            self.rewind()
        elif self.gained is not None:
            self.gained._read_lanes(self.gained.lanes | lanes)
            self.gained.rewind()
        else:
            self.gained = Reading(
                settle_seconds=self.settle_seconds,
                chunk_rows=self.chunk_rows,
                in_flight_rows=self.in_flight_rows,
                in_flight_bytes=self.in_flight_bytes,
                in_flight=self.in_flight,
                lanes=lanes,
                _common=self,
            )

    def lose(self, lanes: frozenset[int]) -> None:
        """*lanes* are read no more."""
        self._read_lanes(self.lanes - lanes)
        if self.gained is not None:
            self.gained._read_lanes(self.gained.lanes - lanes)
            if not self.gained.lanes:
                self.gained = None

    def parts(self) -> tuple[Reading, ...]:
        """The common reading, and that of gained lanes: each has a cursor and open ids of its own."""
        return (self,) if self.gained is None else (self, self.gained)

    def turn(self) -> Reading:
        """Whose read is next: the common one's, or every second time that of the gained lanes."""
        self._turn_of_gained = self.gained is not None and not self._turn_of_gained
        return self.gained if self._turn_of_gained and self.gained is not None else self

    def join(self) -> None:
        """Go on together, if the gained lanes have come to the end. Call it between two reads."""
        gained = self.gained
        if gained is None or not gained.at_the_end:
            return
        # A cursor may always go back: what is above it is read again, or is in flight.
        self.cursor = min(self.cursor, gained.cursor)
        self.open_ids |= gained.open_ids
        self.caught_up = False
        self._read_lanes(self.lanes | gained.lanes)
        self.gained = None

    def _begun(self) -> bool:
        return self.cursor > 0 or self.at_the_end

    def _read_lanes(self, lanes: frozenset[int]) -> None:
        self._left.clear()
        self.lanes = lanes
