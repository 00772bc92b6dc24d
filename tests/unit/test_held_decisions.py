"""
Which rows wait for a dead letter of their key: what the store answered, and what a term knows itself.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from outbox_relay.relay import held
from outbox_relay.relay.options import RelayOptions
from outbox_relay.relay.ports import DeadKeys, Row
from outbox_relay.schema import Status
from outbox_relay.testing import Watcher


def row(row_id: int, key: bytes | None = b"k", topic: str = "orders") -> Row:
    return Row(row_id, topic, key, b"", 0, 0, None, b"", "e", "text/plain", 0, None)


class Blocked(Watcher):
    """Remembers how many keys were said to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.blocked_keys: list[int] = []

    def blocked(self, keys: int) -> None:
        self.blocked_keys.append(keys)


class Asked:
    """A store whose next answers are given."""

    def __init__(self) -> None:
        self.answers: list[DeadKeys] = []
        self.limits: list[int] = []

    async def dead_keys(self, *, limit: int) -> DeadKeys:
        self.limits.append(limit)
        return self.answers.pop(0)


class Held(held.HeldKeys):
    """With a store and an observer that a test looks at."""

    def __init__(self, on_dead_letter: str = "hold_key") -> None:
        self.asked = Asked()
        self.watcher = Blocked()
        super().__init__(
            SimpleNamespace(
                options=RelayOptions(on_dead_letter=on_dead_letter),
                store=self.asked,
                observer=self.watcher,
            )
        )

    async def answer(
        self,
        first_ids: dict[bytes, int],
        unread_above: int | None = None,
        *,
        pass_done: bool = True,
    ) -> bool:
        """The store is asked, and answers so; whether a row may go on."""
        named = {("orders", key): first for key, first in first_ids.items()}
        self.asked.answers.append(DeadKeys(first_ids=named, unread_above=unread_above))
        await self.refresh()
        return self.tick(pass_done=pass_done)


async def test_who_holds_nothing_asks_nothing() -> None:
    """
    With `skip` no row waits, whatever becomes of others; gained lanes make nobody go on.
    """
    keys = Held("skip")
    keys.give_up(row(1))
    await keys.refresh()

    assert (keys.is_on, keys.loaded, keys.any()) == (False, True, False)
    assert await keys.reload() is False
    assert keys.asked.limits == []
    assert keys.watcher.blocked_keys == []


async def test_nothing_is_known_before_the_store_was_asked() -> None:
    """
    I4. Nothing is read before; and no answer is followed twice.
    """
    keys = Held()
    before = keys.loaded, keys.tick(pass_done=True)
    first = await keys.answer({b"k": 3}, pass_done=False)

    assert before == (False, False)
    assert first is False
    assert keys.loaded
    assert keys.any()
    assert keys.asked.limits == [held.MOST_DEAD_LETTERS]
    assert keys.watcher.blocked_keys == [1]
    assert keys.tick(pass_done=True) is False
    assert keys.watcher.blocked_keys == [1]


async def test_only_what_comes_after_the_dead_letter_of_its_key_waits() -> None:
    """
    I4, I7. The dead letter itself, requeued, does not wait for itself.
    """
    keys = Held()
    await keys.answer({b"k": 5})
    rows = [row(4), row(5), row(6), row(7, b"other"), row(8, None), row(9, topic="users")]

    assert keys.without_held(rows) == [rows[0], rows[1], *rows[3:]]
    assert Held().without_held(iter(rows)) == rows


async def test_what_comes_after_more_dead_letters_than_are_looked_at_waits() -> None:
    """
    Whose they are is not known. The last that was looked at is known; what has no key waits for none.
    """
    keys = Held()
    await keys.answer({}, 5)

    assert keys.any()
    assert keys.without_held([row(5), row(6), row(7, None)]) == [row(5), row(7, None)]


async def test_that_there_are_too_many_is_said_when_it_becomes_so() -> None:
    """
    And again when it is another row; not with each look.
    """
    keys = Held()
    said = []
    for unread_above in (None, 5, 5, 9, None):
        await keys.answer({}, unread_above)
        said.append(len(keys.watcher.events))

    assert said == [0, 1, 1, 2, 2]
    assert keys.watcher.events[0] == ("dead_letters_capped", {"looked_at": held.MOST_DEAD_LETTERS})


@pytest.mark.parametrize(
    ("before", "after", "goes_on"),
    [
        (({b"k": 5}, None), ({b"k": 5}, None), False),
        (({b"k": 5}, None), ({b"k": 6}, None), True),
        (({b"k": 5}, None), ({b"k": 4}, None), False),
        (({b"k": 5}, None), ({}, None), True),
        (({b"k": 5, b"l": 6}, None), ({b"k": 5}, None), True),
        (({}, None), ({b"k": 5}, None), False),
        (({}, 5), ({}, 5), False),
        (({}, 5), ({}, 6), True),
        (({}, 5), ({}, 4), False),
        (({}, 5), ({}, None), True),
        (({}, None), ({}, 5), False),
        (({b"k": 5}, 9), ({}, 9), True),
    ],
)
async def test_a_row_may_go_on_where_less_is_held_than_before(before, after, goes_on) -> None:
    """
    The reader then begins again at the first pending row. A rewind for nothing would cost a pass.
    """
    keys = Held()
    await keys.answer(*before)

    assert await keys.answer(*after) is goes_on


def test_a_row_that_is_given_up_holds_its_key_at_once() -> None:
    """
    I4. From the first of its dead letters on; what has no key holds nobody.
    """
    keys = Held()
    keys.give_up(row(3, None))
    nobody = keys.any()
    keys.give_up(row(5))
    keys.give_up(row(7))
    keys.give_up(row(9, b"other"))

    assert not nobody
    assert keys.without_held([row(4), row(6), row(8), row(10, b"other"), row(11, b"new")]) == [
        row(4),
        row(11, b"new"),
    ]
    assert keys.watcher.blocked_keys == [1, 1, 2]


async def test_a_row_given_up_while_the_store_was_asked_stays_held() -> None:
    """
    I4. The answer may be from before it was written. The next one is not.
    """
    keys = Held()
    keys.give_up(row(5, b"known"))
    keys.asked.answers = [DeadKeys(first_ids={("orders", b"known"): 5}), DeadKeys(first_ids={})]
    await keys.refresh()
    keys.give_up(row(6, b"new"))
    keys.give_up(row(7, b"newer"))
    keys.tick(pass_done=True)
    at_first = keys.without_held([row(8, b"known"), row(9, b"new"), row(10, b"newer")])
    await keys.refresh()
    goes_on = keys.tick(pass_done=True)

    assert at_first == []
    assert goes_on
    assert keys.without_held([row(8, b"known"), row(9, b"new"), row(10, b"newer")]) != []
    assert not keys.any()


async def test_of_what_is_known_twice_the_earlier_row_counts() -> None:
    """
    I4. The store may name an earlier dead letter of the key than the one just given up, or a later one.
    """
    keys = Held()
    keys.asked.answers = [DeadKeys(first_ids={("orders", b"k"): 3, ("orders", b"l"): 8})]
    await keys.refresh()
    keys.give_up(row(5))
    keys.give_up(row(6, b"l"))
    keys.tick(pass_done=True)

    assert keys.without_held([row(4), row(7, b"l"), row(6, b"l")]) == [row(6, b"l")]


async def test_before_new_lanes_are_read_the_answer_is_followed_at_once() -> None:
    """
    I4. Though a pass is under way: a key of the new lanes may be held.
    """
    keys = Held()
    await keys.answer({b"k": 3})
    keys.asked.answers = [DeadKeys(first_ids={("orders", b"new"): 5})]

    assert await keys.reload() is True
    assert keys.without_held([row(4), row(6, b"new")]) == [row(4)]


async def test_a_key_goes_on_only_when_no_pass_is_under_way(store):
    """
    I7. Else requeues in a row would keep the reader from the tail of the table. What a term must know
    before it reads does not wait.
    """
    dead, waiting = store.insert("orders", key=b"k"), store.insert("orders", key=b"k")
    store.rows[dead].status = Status.DEAD
    later = store.rows[waiting].row
    options = RelayOptions(on_dead_letter="hold_key")
    keys = held.HeldKeys(SimpleNamespace(options=options, store=store, observer=Watcher()))
    await keys.refresh()
    first = keys.tick(pass_done=False), keys.loaded, keys.holds(later)
    store.requeue(dead)
    await keys.refresh()
    meanwhile = keys.tick(pass_done=False), keys.holds(later)
    after = keys.tick(pass_done=True), keys.holds(later)

    assert first == (False, True, True)
    assert meanwhile == (False, True)
    assert after == (True, False)


async def test_a_key_that_goes_on_as_lanes_are_gained_is_told(store):
    """
    I4. What a term learns before it reads new lanes may free a key of those that it has.
    """
    dead = store.insert("orders", key=b"k")
    store.rows[dead].status = Status.DEAD
    options = RelayOptions(on_dead_letter="hold_key")
    keys = held.HeldKeys(SimpleNamespace(options=options, store=store, observer=Watcher()))
    first = await keys.reload()
    store.requeue(dead)

    assert (first, await keys.reload(), await keys.reload()) == (False, True, False)


async def test_a_held_key_is_known_by_its_name() -> None:
    """
    Of its topic alone, and never what has no key: as the metrics ask, which have no ids.
    """
    keys = Held()
    await keys.answer({b"k": 3})

    assert keys.holds_key("orders", b"k")
    assert not keys.holds_key("users", b"k")
    assert not keys.holds_key("orders", b"other")
    assert not keys.holds_key("orders", None)
