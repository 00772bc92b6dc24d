"""
Settings that are fine one by one and do harm together: they lose time, memory or the lease, or wedge.

Pure: takes the sections, returns one line for each combination, which begins with the key to change.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from outbox_relay.config import Config

LEASE_MARGIN_SECONDS: Final = 1.0
MOST_LEASE_SECONDS: Final = 300.0
MOST_SILENT_SECONDS: Final = 20.0
"""/livez takes a relay whose main loop does nothing for 30 s for stuck."""

MOST_SAMPLE_SECONDS: Final = 100.0
"""A server closes a connection that was idle for 120 s."""

LAST_WORDS_SECONDS: Final = 1.0
MOST_BATCH_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Rule:
    """`reason` is what happens where `is_broken`. The first of `keys` is the one that is named."""

    keys: tuple[str, ...]
    is_broken: Callable[[Config], bool]
    reason: str


def _has_no_margin(section: str, config: Config) -> bool:
    margin = config.relay.lease_seconds - config.publish_deadline_seconds
    return config.broker.section == section and 0 < margin < LEASE_MARGIN_SECONDS


def _is_no_room(section: str, config: Config) -> bool:
    limit = getattr(config, section).max_record_bytes
    return config.broker.section == section and limit < config.relay.batch_bytes <= MOST_BATCH_BYTES


RULES: Final = (
    *(
        Rule(
            ("relay.lease_seconds", f"{section}.publish_deadline_seconds", "broker.kind"),
            partial(_has_no_margin, section),
            "must be greater than {other} by 1 or more: a batch is published only while the rest of "
            "the lease is longer than the deadline, which would hardly ever be so",
        )
        for section in ("kafka", "amqp", "redis", "jsonl")
    ),
    Rule(
        ("relay.lease_seconds",),
        lambda c: c.relay.lease_seconds > MOST_LEASE_SECONDS,
        "must be at most 300: after a crash nobody relays for so long",
    ),
    Rule(
        ("relay.standby_seconds", "relay.lease_seconds"),
        lambda c: c.relay.standby_seconds > c.relay.lease_seconds,
        "must be at most {other}: a lease that ran out would lie there for longer than it lasted",
    ),
    Rule(
        ("relay.poll_seconds",),
        lambda c: c.relay.poll_seconds > MOST_SILENT_SECONDS,
        "must be at most 20: /livez takes a relay that does nothing for 30 s for stuck",
    ),
    Rule(
        ("relay.standby_seconds",),
        lambda c: c.relay.standby_seconds > MOST_SILENT_SECONDS,
        "must be at most 20: /livez takes a relay that does nothing for 30 s for stuck",
    ),
    Rule(
        ("relay.sample_seconds",),
        lambda c: c.relay.sample_seconds > MOST_SAMPLE_SECONDS,
        "must be at most 100: the server closes a connection that is idle for 120 s, so every "
        "other sample would fail, and the backlog would count as unknown",
    ),
    Rule(
        ("relay.stop_seconds",),
        lambda c: 0 < c.relay.stop_seconds <= LAST_WORDS_SECONDS,
        "must be greater than 1: the last second is for closing connections, so nothing that is "
        "under way would be settled, and all of it published twice",
    ),
    Rule(
        ("relay.batch_bytes", "relay.in_flight_bytes"),
        lambda c: c.relay.batch_bytes > c.relay.in_flight_bytes,
        "must be at most {other}: no batch would ever be full",
    ),
    Rule(
        ("relay.batch_bytes", "kafka.max_request_bytes", "kafka.compression", "broker.kind"),
        lambda c: (
            c.broker.section == "kafka"
            and c.kafka.compression == "none"
            and c.kafka.max_request_bytes < c.relay.batch_bytes <= MOST_BATCH_BYTES
        ),
        "must be at most {other}: the brokers' limit is for whole batches, and each of them would "
        "be refused first and then published in halves",
    ),
    *(
        Rule(
            ("relay.batch_bytes", f"{section}.max_record_bytes", "broker.kind"),
            partial(_is_no_room, section),
            "must be at most {other}: an event that is too large must travel alone",
        )
        for section in ("amqp", "redis")
    ),
    Rule(
        ("relay.batch_bytes",),
        lambda c: c.relay.batch_bytes > MOST_BATCH_BYTES,
        "must be at most 67108864: the client makes no larger batch, so none would ever go out",
    ),
    Rule(
        ("relay.max_payload_bytes", "relay.in_flight_bytes"),
        lambda c: c.relay.max_payload_bytes > c.relay.in_flight_bytes,
        "must be at most {other}: one event would take more memory than all together may",
    ),
    Rule(
        ("relay.wake_published", "relay.wake_address"),
        lambda c: bool(c.relay.wake_published) and not c.relay.wake_address,
        "needs relay.wake_address: nobody listens for the hints that others send there",
    ),
    Rule(
        ("canary.topic", "database.layout"),
        lambda c: bool(c.canary.topic) and c.database.layout != "outbox",
        "does not go with {other}: the relay writes nothing into a table of python-cqrs",
    ),
    Rule(
        ("relay.wake_notify", "database.url"),
        lambda c: c.relay.wake_notify and not c.database.url.startswith("postgresql"),
        "is for PostgreSQL: use relay.wake_address",
    ),
    Rule(
        ("relay.wake_notify", "database.transaction_pooler"),
        lambda c: c.relay.wake_notify and c.database.transaction_pooler,
        "does not go with {other}: LISTEN belongs to a session, and behind such a pooler nothing "
        "would ever be heard: use relay.wake_address",
    ),
    Rule(
        ("relay.wake_notify", "database.layout"),
        lambda c: c.relay.wake_notify and c.database.layout == "python-cqrs",
        "does not go with {other}: its table has no trigger that would send hints",
    ),
    Rule(
        ("relay.max_active_relays", "database.layout"),
        lambda c: c.relay.max_active_relays > 1 and c.database.layout == "python-cqrs",
        "must be 1 with {other}: its rows have no lanes to share; other relays stand by",
    ),
    Rule(
        ("relay.dead_letter_retention_seconds", "database.layout"),
        lambda c: c.relay.dead_letter_retention_seconds > 0 and c.database.layout == "python-cqrs",
        "must be 0 with {other}: nothing is purged there; discard dead letters by hand",
    ),
    Rule(
        ("wire.envelope", "database.layout"),
        lambda c: c.wire.envelope != "none" and c.database.layout == "python-cqrs",
        'must be "none" with {other}: its rows hold documents already; database.layout_envelope '
        "is for those that do not",
    ),
    Rule(
        ("wire.envelope", "wire.compressed_payloads"),
        lambda c: c.wire.envelope != "none" and c.wire.compressed_payloads == "pass_through",
        "does not go with {other}: a payload that is not inflated fits into no document",
    ),
    Rule(
        ("wire.headers", "redis.format", "broker.kind"),
        lambda c: (
            c.broker.kind == "redis_pubsub"
            and c.wire.headers == "none"
            and c.redis.format == "cloudevents"
        ),
        "does not go with {other}: a CloudEvent is made of the headers",
    ),
    Rule(
        ("wire.headers", "amqp.routing_key", "broker.kind"),
        lambda c: (
            c.broker.kind == "amqp" and c.wire.headers == "none" and "{event}" in c.amqp.routing_key
        ),
        "does not go with {other}: the event's name is one of the headers, so no event could be "
        "routed, and each would become a dead letter",
    ),
    Rule(
        ("database.layout", "database.url"),
        lambda c: c.database.layout == "python-cqrs" and c.database.url.startswith("sqlite"),
        "is for MySQL, MariaDB and PostgreSQL: python-cqrs cannot write to SQLite",
    ),
)


def combination_problems(config: Config, broken: Collection[str]) -> list[str]:
    """What does not fit together, but for what has a key in *broken*, whose value is not known."""
    return [
        f"{rule.keys[0]} = {_value(config, rule.keys[0])} {_said(config, rule)}"
        for rule in RULES
        if not set(rule.keys) & set(broken) and rule.is_broken(config)
    ]


def _said(config: Config, rule: Rule) -> str:
    other = rule.keys[1] if len(rule.keys) > 1 else ""
    if "{other}" not in rule.reason:
        # Perhaps a secret.
        return rule.reason
    return rule.reason.format(other=f"{other} = {_value(config, other)}")


def _value(config: Config, key: str) -> object:
    section, _, name = key.partition(".")
    value = getattr(getattr(config, section), name)
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else value
