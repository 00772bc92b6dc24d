"""
Each alert that can be provoked: its fault is planted on a real relay, the alert fires in a real Prometheus,
the commands of its section in the runbook mend it, and the alert ends.

Times in the alerts are divided by a factor. To add one: a line of `CASES`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from typer.main import get_command

from outbox_relay.cli.app import app
from tests.deploy.runbook import blocks, faster
from tests.deploy.world import World, wait_until

VERBS = set(get_command(app).commands)

OLD_EVENT = (
    "INSERT INTO outbox (event_name, topic, payload, created_at) "
    "VALUES ('e', '{}', '{{}}', UTC_TIMESTAMP(6) - INTERVAL 30 SECOND)"
)
UNKNOWN_ERROR = (
    "CREATE TRIGGER strange BEFORE UPDATE ON outbox FOR EACH ROW "
    "SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 31999, MESSAGE_TEXT = 'strange'"
)
NO_CANARIES = (
    "CREATE TRIGGER refused BEFORE INSERT ON outbox FOR EACH ROW "
    "IF NEW.event_name = 'outbox_relay.canary' THEN "
    "SIGNAL SQLSTATE '42000' SET MYSQL_ERRNO = 1142, MESSAGE_TEXT = 'INSERT command denied'; END IF"
)


def _missing_topic(world: World) -> None:
    world.asked_for = f"{world.topic}-missing"
    world.write(world.asked_for, {"a": 1})


def _too_large(world: World) -> None:
    world.asked_for = f"{world.topic}-small"
    world.kafka.create_topic(world.asked_for, config={"max.message.bytes": "1000"})
    world.write(world.asked_for, {"a": "x" * 5000}, {"a": 2}, key="k")


def _larger_limit(world: World) -> None:
    world.set_topic(world.asked_for, max_message_bytes="100000")


def _late_events(world: World) -> None:
    world.stop_writing()
    statement = OLD_EVENT.format(world.topic)
    world.write_for_ever(lambda: world.execute(*[statement] * 20))


def _events_in_time(world: World) -> None:
    world.stop_writing()
    world.write_for_ever()


def _nothing(world: World) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """
    `fault` breaks something; `repair` does what the section says in words, before its commands are run.
    """

    alert: str
    fault: Callable[[World], None] = _nothing
    repair: Callable[[World], None] = _nothing
    factor: int = 60
    settings: str = ""
    relay: dict[str, Any] = field(default_factory=dict)
    is_migrated: bool = True


CANARY = '\n[canary]\ntopic = "{topic}{suffix}"\nevery_seconds = 1.0\n'
CASES = (
    # Those that page.
    Case(alert="OutboxOldestPending", fault=lambda w: w.kafka.stop()),
    Case(alert="OutboxNobodyRelays", fault=lambda w: w.relay.kill()),
    Case(alert="OutboxPublishStuck", fault=lambda w: w.kafka.freeze()),
    Case(alert="OutboxDatabaseAway", fault=lambda w: w.mariadb.kill()),
    Case(alert="OutboxBacklogSampleStale", fault=lambda w: w.mariadb.freeze()),
    Case(alert="OutboxSchemaMismatch", is_migrated=False),
    Case(alert="OutboxLatencyBurn", fault=_late_events, repair=_events_in_time, factor=120),
    Case(
        alert="OutboxCanaryLate",
        settings=CANARY.replace("{suffix}", "-canary"),
        fault=lambda w: setattr(w, "asked_for", f"{w.topic}-canary"),
    ),
    # Tickets.
    Case(alert="OutboxDeadLetters", fault=_too_large, repair=_larger_limit),
    Case(
        alert="OutboxBlockedKeys",
        fault=_too_large,
        repair=_larger_limit,
        relay={"on_dead_letter": '"hold_key"'},
    ),
    Case(alert="OutboxTopicsPaused", fault=_missing_topic),
    Case(alert="OutboxPublishFailures", fault=_missing_topic),
    Case(
        alert="OutboxPaused",
        fault=lambda w: w.execute(f"INSERT INTO outbox_control (topic) VALUES ('{w.topic}')"),
        factor=360,
    ),
    Case(
        alert="OutboxDatabaseResets",
        fault=lambda w: w.mariadb.kill(),
        factor=15,
    ),
    Case(
        alert="OutboxUnexpectedErrors",
        fault=lambda w: w.execute(UNKNOWN_ERROR),
        repair=lambda w: w.execute("DROP TRIGGER strange"),
        factor=360,
    ),
    Case(
        alert="OutboxCanaryMissing",
        settings=CANARY.replace("{suffix}", ""),
        fault=lambda w: w.execute(NO_CANARIES),
        repair=lambda w: w.execute("DROP TRIGGER refused"),
    ),
)


def commands(alert: str, part: str) -> list[str]:
    """The blocks of a part, without verbs that this release does not have."""

    def known(line: str) -> bool:
        verb = re.match(r"outbox-relay ([\w-]+)", line)
        return verb is None or verb[1] in VERBS

    return ["\n".join(filter(known, block.splitlines())) for block in blocks(alert, part)]


def is_whole(case: Case) -> bool:
    """Whether every verb that mends it is there."""
    return all("\n".join(commands(case.alert, "Mend")) for _ in blocks(case.alert, "Mend"))


@pytest.fixture
def world(request, installed_wheel, mariadb, mariadb_database, kafka, topic_name, tmp_path):
    case = request.param
    kafka.create_topic(topic_name, partitions=2)
    made = World(
        tmp_path,
        installed_wheel.command,
        mariadb=mariadb,
        database=mariadb_database,
        kafka=kafka,
        topic=topic_name,
        factor=case.factor,
        settings=case.settings.format(topic=topic_name),
        **case.relay,
    )
    if case.is_migrated:
        made.migrate()
        made.write_for_ever()
    made.relay.start()
    yield made
    made.end()


@pytest.mark.parametrize(
    ("case", "world"),
    [pytest.param(case, case, id=case.alert) for case in CASES if is_whole(case)],
    indirect=["world"],
)
def test_the_runbook_mends_what_the_alert_tells(case, world):
    """
    Fault, alert, the section's commands as printed, and the alert ends.
    """
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed; run: python -m tests.deploy.install")
    firing = f'ALERTS{{alertname="{case.alert}", alertstate="firing"}}'
    with world.watched() as prometheus:
        if case.is_migrated:
            prometheus.wait_for("sum(outbox_relay_lanes_owned) == 64")
            prometheus.wait_for("sum(outbox_relay_published_total) > 0")
            # It was nobody's while the relay started.
            wait_until(prometheus, 'ALERTS{alertstate="firing"}')
        case.fault(world)
        prometheus.wait_for(firing)
        with world.operator() as operator:
            for block in commands(case.alert, "Look"):
                operator.run(block)
            case.repair(world)
            for block in commands(case.alert, "Mend"):
                operator.run(block)
        wait_until(prometheus, firing)


def test_times_are_divided_and_nothing_else():
    """
    What is hurried is the same alert otherwise.
    """
    text = "for: 5m\nexpr: rate(x[1h]) > 300 # seconds\nand x offset 30m > 300\n"

    assert faster(text, 60) == (
        "for: 5000ms\nexpr: rate(x[60000ms]) > 5.0\nand x offset 30000ms > 300\n"
    )
