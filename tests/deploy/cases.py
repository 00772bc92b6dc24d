"""
The alerts, each with a fault that provokes it. To add one: a `Case` here, and a block in its section.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.deploy import faults
from tests.deploy.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """
    *what* is the fault in words, which `fault` plants on a healthy relay, that `before` made ready.

    `factor` divides the times in the alert; counts and limits in it stay what they are.
    """

    alert: str
    what: str
    fault: Callable[[World], None] = faults.nothing
    before: Callable[[World], None] = faults.nothing
    factor: int = 60
    settings: str = ""
    relay: dict[str, Any] = field(default_factory=dict)
    server: str = "mariadb"
    is_migrated: bool = True
    relays: int = 1

    @property
    def name(self) -> str:
        """For the test's id."""
        return f"{self.alert}-{self.what.replace(' ', '_')}"


CANARY = '\n[canary]\ntopic = "{topic}{suffix}"\nevery_seconds = 1.0\n'
SHORT_LEASE = {"lease_seconds": 2.1, "publish_deadline_seconds": 1.0}

CASES = (
    # Those that page.
    Case(
        alert="OutboxOldestPending",
        what="the broker is stopped",
        fault=lambda w: w.kafka.stop(),
    ),
    Case(
        alert="OutboxNobodyRelays",
        what="the relay is killed",
        fault=lambda w: w.relay.kill(),
    ),
    Case(
        alert="OutboxNobodyRelays",
        what="the relay's process is stopped",
        fault=lambda w: w.relay.freeze(),
    ),
    Case(
        alert="OutboxPublishStuck",
        what="the broker hangs",
        fault=lambda w: w.kafka.freeze(),
    ),
    Case(
        alert="OutboxDatabaseAway",
        what="the database is killed",
        fault=lambda w: w.mariadb.kill(),
    ),
    Case(
        alert="OutboxBacklogSampleStale",
        what="the database hangs",
        fault=lambda w: w.mariadb.freeze(),
    ),
    Case(
        alert="OutboxSchemaMismatch",
        what="no tables",
        is_migrated=False,
    ),
    Case(
        alert="OutboxLoopStalled",
        what="the main loop hangs",
        before=faults.with_a_bug,
        fault=faults.hanging_loop,
        factor=30,
        relay={"stop_seconds": 2.0},
    ),
    Case(
        alert="OutboxLatencyBurn",
        what="a quota of the brokers",
        fault=faults.events_are_late,
        factor=120,
        relay={"batch_bytes": 2000},
    ),
    Case(
        alert="OutboxCanaryLate",
        what="the canary's topic was deleted",
        settings=CANARY.replace("{suffix}", "-canary"),
        before=faults.with_a_canary_topic,
        fault=lambda w: w.kafka.delete_topic(w.words["TOPIC"]),
    ),
    # Tickets.
    Case(
        alert="OutboxLatencyBurnSlow",
        what="a job with long transactions",
        fault=faults.long_transactions,
        factor=180,
    ),
    Case(
        alert="OutboxBacklogGrowing",
        what="more is written than a quota lets through",
        fault=faults.more_than_the_brokers_take,
        factor=360,
        relay={"batch_bytes": 20_000},
    ),
    Case(
        alert="OutboxPublishFailures",
        what="a topic is missing",
        fault=faults.missing_topic,
    ),
    Case(
        alert="OutboxInFlightFull",
        what="a forgotten transaction locks rows",
        fault=faults.forgotten_locks,
        factor=180,
        relay={"in_flight_rows": 300, "chunk_rows": 150},
    ),
    Case(
        alert="OutboxLanesFlapping",
        what="a CPU limit: relays stand still for longer than their lease",
        fault=faults.too_little_cpu,
        relay={"lease_seconds": 1.5, "publish_deadline_seconds": 0.5, "standby_seconds": 0.2},
        relays=2,
    ),
    Case(
        alert="OutboxProducerRebuilds",
        what="answers later than the deadline, on many partitions",
        fault=faults.answers_come_too_late,
        factor=20,
        relay={"publish_deadline_seconds": 1.0},
    ),
    Case(
        alert="OutboxDatabaseResets",
        what="the database is killed",
        fault=lambda w: w.mariadb.kill(),
        factor=45,
    ),
    Case(
        alert="OutboxDatabaseSlow",
        what="commits wait for others",
        fault=partial(faults.commits_wait, seconds=1.5),
        factor=120,
    ),
    Case(
        alert="OutboxDeadLetters",
        what="an event larger than its topic takes",
        fault=faults.too_large,
    ),
    Case(
        alert="OutboxBlockedKeys",
        what="the same, with on_dead_letter = hold_key",
        fault=faults.too_large,
        relay={"on_dead_letter": '"hold_key"'},
    ),
    Case(
        alert="OutboxTopicsPaused",
        what="a topic is missing",
        fault=faults.missing_topic,
    ),
    Case(
        alert="OutboxPaused",
        what="an operator paused a topic",
        fault=lambda w: w.run("pause", w.topic),
        factor=360,
    ),
    Case(
        alert="OutboxCertificateExpires",
        what="five days are left",
        before=faults.with_a_certificate,
        fault=faults.certificate_ends,
        factor=1200,
        server="secure_mariadb",
    ),
    Case(
        alert="OutboxDuplicates",
        what="answers later than the deadline",
        fault=faults.answers_come_too_late,
        factor=120,
        relay={"publish_deadline_seconds": 1.5},
    ),
    Case(
        alert="OutboxCareful",
        what="too little memory for the backlog",
        fault=faults.too_little_memory,
        factor=90,
        relay=SHORT_LEASE,
    ),
    Case(
        alert="OutboxUnexpectedErrors",
        what="a trigger with an error of its own",
        fault=faults.strange_trigger,
        factor=360,
    ),
    Case(
        alert="OutboxLateRows",
        what="a slow INSERT ... SELECT on MySQL 8",
        fault=faults.slow_copies,
        factor=360,
        server="mysql",
    ),
    Case(
        alert="OutboxCanaryMissing",
        what="the relay may not insert",
        settings=CANARY.replace("{suffix}", ""),
        before=faults.poor_relay,
        fault=faults.right_taken_away,
    ),
)
