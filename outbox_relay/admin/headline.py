"""Whether events flow, in one line, and what to look at if not. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from outbox_relay.operations import ALL_TOPICS, Standing
from outbox_relay.schema import LANES

LATE_SECONDS: Final = 300.0
"""As the alert OutboxOldestPending has it."""

Tone = Literal["good", "warning", "bad"]


@dataclass(frozen=True, slots=True)
class Headline:
    """`text` is the state, `advice` what to do about it; `page` is where more about it stands."""

    tone: Tone
    text: str
    advice: str = ""
    page: str = ""


def headline(standing: Standing | None, trouble: str | None) -> Headline:
    """The worst first. *trouble* is why the database could not be read."""
    if standing is None:
        advice = trouble or "it is being read"
        return Headline("bad", "The database does not answer", advice)
    if standing.schema_problem:
        return Headline("bad", "The tables do not fit", standing.schema_problem)
    if not standing.lanes_owned:
        return Headline(
            "bad", "Nobody relays", "no relay holds a lane: is one running, and can it write?"
        )
    if ALL_TOPICS in standing.paused_topics:
        return Headline(
            "warning", "All topics are paused", "events wait until you resume", "topics"
        )
    if _is_late(standing):
        advice = "see what the doctor finds: the broker refuses, or the relay cannot keep up"
        return Headline("bad", "Events are late", advice, "doctor")
    if standing.lanes_owned != LANES:
        advice = f"{standing.lanes_owned} of {LANES} lanes have an owner; the others follow soon"
        return Headline("warning", "Some lanes have no owner", advice)
    if standing.dead_letter_rows:
        return Headline(
            "warning", "Events flow, but some were given up", "look at them", "dead-letters"
        )
    if standing.paused_topics:
        return Headline("warning", "Events flow, but some topics are paused", "", "topics")
    return Headline("good", "Events flow")


def _is_late(standing: Standing) -> bool:
    """Whether something that nobody paused waits for long."""
    topics = standing.backlog_by_topic.topics
    if not topics:
        return (standing.oldest_pending_seconds or 0.0) > LATE_SECONDS
    paused = set(standing.paused_topics)
    return any(t.oldest_seconds > LATE_SECONDS for t in topics if t.topic not in paused)
