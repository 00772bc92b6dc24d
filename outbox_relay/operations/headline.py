"""Whether events flow, in one line, and what to do if not: for `status` and for the dashboard. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from outbox_relay.operations.pausing import ALL_TOPICS
from outbox_relay.operations.standing import Standing, TopicBacklog
from outbox_relay.schema import LANES

LATE_SECONDS: Final = 300.0
"""As the alert OutboxOldestPending has it."""

SLOW_SECONDS: Final = 30.0
"""What waits for longer is said: a relay at work takes an event in a second or two."""

STILL_SECONDS: Final = 10.0
"""Nothing was produced for so long, and something waits: then nothing flows."""

MOST_NAMED: Final = 5

STORE_AWAY: Final = "the database refuses or does not answer: "
"""What an error begins with that says it too."""

Tone = Literal["good", "warning", "bad"]

DOCTOR: Final = "outbox-relay doctor"


class State(StrEnum):
    """What a script decides by. Part of the interface of `status --json`, as `state`."""

    FLOWS = "flows"
    DATABASE_AWAY = "database_away"
    TABLES = "tables"
    NOBODY_RELAYS = "nobody_relays"
    ALL_PAUSED = "all_paused"
    NOTHING_PRODUCED = "nothing_produced"
    LATE = "late"
    LANES_WITHOUT_OWNER = "lanes_without_owner"
    SLOW = "slow"
    DEAD_LETTERS = "dead_letters"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Headline:
    """
    `text` is the state, `advice` what to do about it.

    `page` of the dashboard and `command` of the command line are where more about it stands, or what mends it.
    """

    state: State
    tone: Tone
    text: str
    advice: str = ""
    page: str = ""
    command: str = ""


def headline(standing: Standing | None, trouble: str | None = None) -> Headline:
    """The worst first. *trouble* is why the database could not be read."""
    if standing is None:
        advice = (trouble or "it is being read").removeprefix(STORE_AWAY)
        text = "The database does not answer"
        return Headline(State.DATABASE_AWAY, "bad", text, advice, "doctor", DOCTOR)
    found = (rule(standing) for rule in _WORST_FIRST)
    return next((line for line in found if line), Headline(State.FLOWS, "good", "Events flow"))


def _tables(standing: Standing) -> Headline | None:
    if not standing.schema_problem:
        return None
    return Headline(State.TABLES, "bad", "The tables do not fit", standing.schema_problem)


def _nobody(standing: Standing) -> Headline | None:
    if standing.lanes_owned:
        return None
    advice = "no relay holds a lane: is one running, and can it write?"
    return Headline(State.NOBODY_RELAYS, "bad", "Nobody relays", advice, "doctor", DOCTOR)


def _all_paused(standing: Standing) -> Headline | None:
    if ALL_TOPICS not in standing.paused_topics:
        return None
    text, advice = "All topics are paused", "events wait until you resume"
    resume = "outbox-relay resume --all"
    return Headline(State.ALL_PAUSED, "warning", text, advice, "topics", resume)


def _nothing_produced(standing: Standing) -> Headline | None:
    if _waits(standing) <= STILL_SECONDS or not _stands_still(standing):
        return None
    last = standing.last_produced_seconds
    since = "yet" if last is None else f"for {last:,.0f} s"
    text = f"Nothing was produced {since}, and events wait"
    advice = "broker, database or relay: the doctor finds which"
    return Headline(State.NOTHING_PRODUCED, "bad", text, advice, "doctor", DOCTOR)


def _late(standing: Standing) -> Headline | None:
    if _waits(standing) <= LATE_SECONDS:
        return None
    advice = "see what the doctor finds: the broker refuses, or the relay cannot keep up"
    return Headline(State.LATE, "bad", "Events are late", advice, "doctor", DOCTOR)


def _lanes(standing: Standing) -> Headline | None:
    if standing.lanes_owned == LANES:
        return None
    advice = f"{standing.lanes_owned} of {LANES} lanes have an owner; the others follow soon"
    text = "Some lanes have no owner"
    return Headline(State.LANES_WITHOUT_OWNER, "warning", text, advice, "doctor", DOCTOR)


def _slow(standing: Standing) -> Headline | None:
    waits = _waits(standing)
    if waits <= SLOW_SECONDS:
        return None
    oldest = _oldest(standing)
    those = "some" if oldest is None else f"those of {oldest.topic}"
    text, advice = f"Events flow, but {those} wait", f"the oldest for {waits:,.0f} s"
    return Headline(State.SLOW, "warning", text, advice, "doctor", DOCTOR)


def _dead_letters(standing: Standing) -> Headline | None:
    if not standing.dead_letter_rows:
        return None
    text, look = "Events flow, but some were given up", "outbox-relay dead-letters list"
    return Headline(State.DEAD_LETTERS, "warning", text, "look at them", "dead-letters", look)


def _paused(standing: Standing) -> Headline | None:
    if not standing.paused_topics:
        return None
    text, advice = "Events flow, but some topics are paused", "they wait until you resume"
    topics = " ".join(map(shlex.quote, standing.paused_topics[:MOST_NAMED]))
    resume = f"outbox-relay resume -- {topics}"
    return Headline(State.PAUSED, "warning", text, advice, "topics", resume)


_WORST_FIRST: Final[tuple[Callable[[Standing], Headline | None], ...]] = (
    _tables,
    _nobody,
    _all_paused,
    _nothing_produced,
    _late,
    _lanes,
    _slow,
    _dead_letters,
    _paused,
)


def _oldest(standing: Standing) -> TopicBacklog | None:
    """The topic, of those that nobody paused, with the oldest row."""
    paused = set(standing.paused_topics)
    free = [topic for topic in standing.backlog_by_topic.topics if topic.topic not in paused]
    return max(free, key=lambda topic: topic.oldest_seconds, default=None)


def _waits(standing: Standing) -> float:
    """For how long the oldest row waits that nobody paused."""
    oldest = _oldest(standing)
    if oldest is not None:
        return oldest.oldest_seconds
    # With topics all that waits is paused; without, such as in a table of python-cqrs, nobody counts by topic.
    return 0.0 if standing.backlog_by_topic.topics else standing.oldest_pending_seconds or 0.0


def _stands_still(standing: Standing) -> bool:
    """Whether nothing was produced for a while, where the table can say so."""
    if standing.retention_seconds == 0 or not standing.backlog_by_topic.topics:
        return False
    last = standing.last_produced_seconds
    return last is None or last > STILL_SECONDS
