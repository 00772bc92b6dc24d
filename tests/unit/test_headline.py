"""
Whether events flow, in one line: what `status` begins with and the dashboard has on each page.
"""

from __future__ import annotations

import pytest

from outbox_relay.operations import ALL_TOPICS, Backlog, Standing, TopicBacklog
from outbox_relay.operations.headline import State, headline

WELL = {"schema_version": 3, "schema_problem": None, "lanes_owned": 64}


def waiting(seconds: float, topic: str = "orders", last: float | None = 1.0) -> dict[str, object]:
    """A row that waits, and when the last one was produced."""
    backlog = Backlog(topics=(TopicBacklog(topic, 1, 1, seconds),))
    return {
        "backlog_by_topic": backlog,
        "oldest_pending_seconds": seconds,
        "last_produced_seconds": last,
    }


@pytest.mark.parametrize(
    ("standing", "tone", "text"),
    [
        ({}, "good", "Events flow"),
        ({"schema_problem": "run migrate"}, "bad", "The tables do not fit"),
        ({"lanes_owned": 0}, "bad", "Nobody relays"),
        ({"lanes_owned": 32}, "warning", "Some lanes have no owner"),
        (waiting(301), "bad", "Events are late"),
        (waiting(299), "warning", "Events flow, but those of orders wait"),
        (waiting(29), "good", "Events flow"),
        (waiting(9, last=999), "good", "Events flow"),
        (waiting(11, last=40), "bad", "Nothing was produced for 40 s, and events wait"),
        (waiting(11, last=None), "bad", "Nothing was produced yet, and events wait"),
        (
            {**waiting(31, last=None), "retention_seconds": 0.0},
            "warning",
            "Events flow, but those of orders wait",
        ),
        (
            {**waiting(999, last=999), "paused_topics": ("orders",)},
            "warning",
            "Events flow, but some topics are paused",
        ),
        ({"oldest_pending_seconds": 301.0}, "bad", "Events are late"),
        ({"oldest_pending_seconds": 31.0}, "warning", "Events flow, but some wait"),
        ({"dead_letter_rows": 1}, "warning", "Events flow, but some were given up"),
        (
            {**waiting(999, last=999), "paused_topics": (ALL_TOPICS,)},
            "warning",
            "All topics are paused",
        ),
    ],
)
def test_the_headline_is_the_worst_there_is(standing, tone, text):
    """
    What nobody can mend by waiting comes first; a paused topic is not late.
    """
    found = headline(Standing(**{**WELL, **standing}))

    assert (found.tone, found.text) == (tone, text)


def test_a_database_that_cannot_be_read_is_the_headline():
    """
    With the reason.
    """
    found = headline(None, "is it up?")

    assert (found.state, found.tone, found.text, found.advice) == (
        State.DATABASE_AWAY,
        "bad",
        "The database does not answer",
        "is it up?",
    )


def test_of_several_topics_the_oldest_that_nobody_paused_is_named():
    """
    A pause hides its own topic alone.
    """
    topics = (
        TopicBacklog("paused", 9, 1, 900.0),
        TopicBacklog("missing", 2, 2, 45.0),
        TopicBacklog("well", 1, 3, 0.5),
    )
    standing = {"backlog_by_topic": Backlog(topics=topics), "paused_topics": ("paused",)}
    found = headline(Standing(**{**WELL, **standing, "last_produced_seconds": 0.1}))

    assert (found.text, found.advice, found.command) == (
        "Events flow, but those of missing wait",
        "the oldest for 45 s",
        "outbox-relay doctor",
    )


def test_a_topics_name_is_quoted_for_the_shell():
    """
    Anybody who writes events may give it any name.
    """
    found = headline(Standing(**{**WELL, "paused_topics": ("orders", "$(reboot)")}))

    assert found.command == "outbox-relay resume -- orders '$(reboot)'"
