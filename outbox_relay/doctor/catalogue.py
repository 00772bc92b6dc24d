"""
Every code that `doctor` can say: its area, how bad it is, and why it matters. The one home of these.

Codes are part of the interface: dashboards and scripts know them, and each has a section of the same
name in ``docs/guide/doctor.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from outbox_relay.doctor.findings import Area, Command, Finding, Severity

CONFIGURATION, DATABASE, BROKER, RELAY, WAKE = Area
_, NOTE, WARNING, ERROR = Severity


@dataclass(frozen=True, slots=True)
class Kind:
    """One code. `severity` is the usual one; a rule may say less."""

    area: Area
    severity: Severity
    why: str


_LOST_COMMIT: Final = (
    "An event can be committed, seen and published, and then be lost with its state change when the "
    "server dies: consumers know of something that never was."
)
_LOST_ACK: Final = (
    "The broker may confirm an event that it then loses; the relay has marked it as produced and will "
    "not publish it again."
)

KINDS: Final[dict[str, Kind]] = {
    # configuration
    "configuration-invalid": Kind(
        CONFIGURATION, ERROR, "The relay does not start with these settings."
    ),
    "secret-unreadable": Kind(
        CONFIGURATION,
        ERROR,
        "Each new connection reads it; the next one will fail, and events wait.",
    ),
    "secret-open": Kind(
        CONFIGURATION, NOTE, "Every user of this machine can read the password or key."
    ),
    "certificate-expiring": Kind(
        CONFIGURATION,
        WARNING,
        "From its last day on the server refuses the relay, or the relay the server: events wait.",
    ),
    "password-in-clear": Kind(
        CONFIGURATION,
        WARNING,
        "Anybody on the network between can read the password, and the events.",
    ),
    "unsafe-publishing": Kind(
        CONFIGURATION,
        NOTE,
        "What the client repeats by itself may be stored twice and out of order.",
    ),
    "file-not-synced": Kind(CONFIGURATION, WARNING, _LOST_ACK),
    "no-order": Kind(
        CONFIGURATION,
        NOTE,
        "Events without a key have no order: consumers may see a newer one before an older one.",
    ),
    # database: reach
    "database-unreachable": Kind(
        DATABASE, ERROR, "The relay can neither read nor mark events: all of them wait."
    ),
    "database-login-refused": Kind(DATABASE, ERROR, "The relay cannot log in: all events wait."),
    "tables-blocked": Kind(
        DATABASE,
        ERROR,
        "The relay can neither read nor mark while somebody locks the tables, or the server is too busy: "
        "events wait.",
    ),
    "database-tls-refused": Kind(
        DATABASE, ERROR, "No encrypted connection comes about: all events wait."
    ),
    "database-missing": Kind(DATABASE, ERROR, "There is nothing to relay from."),
    "server-too-old": Kind(
        DATABASE, ERROR, "What the relay asks of the server is not all there: it was never tried."
    ),
    "server-only-reads": Kind(
        DATABASE,
        ERROR,
        "The relay takes no lease from a server that only reads: after a failover it is the old "
        "primary, or a replica. All events wait.",
    ),
    "clock-skew": Kind(
        DATABASE,
        WARNING,
        "Latencies and the age of the backlog are wrong by as much, and Kafka refuses records that "
        "are more than message.timestamp.after.max.ms ahead of its own clock.",
    ),
    "pooler-mode": Kind(
        DATABASE,
        ERROR,
        "Each transaction gets another server connection: settings of the relay's session, such as "
        "its time limits, are lost or are somebody else's.",
    ),
    "pooler-setting-needless": Kind(
        DATABASE, NOTE, "Each statement costs three round trips instead of one."
    ),
    "proxy-between": Kind(
        DATABASE,
        WARNING,
        "A proxy that shares connections or splits reads from writes may answer from a replica, where "
        "events show up late and marks cannot be seen.",
    ),
    "connections-scarce": Kind(
        DATABASE,
        WARNING,
        "When none is left, neither the relay nor the application can connect.",
    ),
    "idle-timeout": Kind(
        DATABASE,
        WARNING,
        "The server closes connections between two statements: samples of the backlog fail, and "
        "applications meet closed connections in their pools.",
    ),
    # database: tables
    "tables-missing": Kind(
        DATABASE, ERROR, "There is no outbox yet: nothing can be written or read."
    ),
    "tables-too-new": Kind(
        DATABASE, ERROR, "This release cannot serve the tables: the relay waits."
    ),
    "tables-outdated": Kind(
        DATABASE,
        WARNING,
        "This release serves them, but without what came later, such as the search for a row that "
        "kills the relay.",
    ),
    "table-incomplete": Kind(
        DATABASE,
        ERROR,
        "The version says that it is there. Whoever needs it fails: the relay, or every insert.",
    ),
    "column-shape": Kind(
        DATABASE,
        ERROR,
        "Inserts may fail or be cut short, keys may be mixed up, or the relay may not be able to mark.",
    ),
    "index-missing": Kind(
        DATABASE,
        ERROR,
        "Each read would go through the whole table; the relay names the index, and its reads fail.",
    ),
    "index-shape": Kind(
        DATABASE,
        ERROR,
        "Reads sort or pass rows that are produced: they get slower with every event.",
    ),
    "lane-column": Kind(
        DATABASE,
        ERROR,
        "Keys would change their lanes: two relays may hold one key, and its order is lost; a lane "
        "that is none is never read.",
    ),
    "lease-rows": Kind(
        DATABASE, ERROR, "A lane without its row is nobody's, and its events are never published."
    ),
    "table-engine": Kind(
        DATABASE,
        ERROR,
        "Without transactions an event is there although its state change was rolled back.",
    ),
    "table-collation": Kind(
        DATABASE,
        WARNING,
        "Names that differ only by case or accents count as the same: a pause of one topic pauses "
        "another, and characters may be refused.",
    ),
    "trigger-missing": Kind(
        WAKE, WARNING, "The relay listens for notifications that nobody sends: it polls."
    ),
    # database: rights
    "rights-missing": Kind(
        DATABASE, ERROR, "The database will refuse the relay's statements: events wait."
    ),
    "rights-needless": Kind(
        DATABASE,
        NOTE,
        "Whoever gets hold of the relay's password can do all of this; the relay needs none of it.",
    ),
    # database: settings
    "binlog-format": Kind(
        DATABASE,
        ERROR,
        "The relay works at READ COMMITTED, where the server refuses to log statements: no mark "
        "succeeds (error 1665).",
    ),
    "binlog-row-image": Kind(
        DATABASE,
        NOTE,
        "Nothing for this relay. Whoever tails the log, such as Debezium, misses columns.",
    ),
    "binlog-not-synced": Kind(DATABASE, WARNING, _LOST_COMMIT),
    "commit-not-flushed": Kind(DATABASE, WARNING, _LOST_COMMIT),
    "semi-sync-after-commit": Kind(DATABASE, WARNING, _LOST_COMMIT),
    "fsync-off": Kind(DATABASE, ERROR, _LOST_COMMIT + " The whole database may be damaged."),
    "isolation": Kind(
        DATABASE,
        WARNING,
        "At SERIALIZABLE plain reads take locks and transactions are refused for one another; at READ "
        "UNCOMMITTED an application may publish what was never committed.",
    ),
    "ids-without-lock": Kind(
        DATABASE,
        WARNING,
        "While such a statement runs it holds ids that no read can see. Its rows are never lost, but "
        "may come after later rows of their key.",
    ),
    "backslash-escapes": Kind(
        DATABASE,
        WARNING,
        "asyncmy escapes bytes with backslashes even so: a payload or key that an application writes "
        "through it may be changed, or break the statement.",
    ),
    "packet-too-small": Kind(
        DATABASE,
        WARNING,
        "An event that the broker would take fails in the application's transaction, or cannot be "
        "read by the relay.",
    ),
    "statement-timeout": Kind(
        DATABASE, WARNING, "The server ends statements of the relay before the relay would."
    ),
    # database: work
    "long-transaction": Kind(
        DATABASE,
        WARNING,
        "Events of an open transaction do not exist yet, and what was deleted or marked since it began "
        "cannot be cleared away: reads get slower the longer it lasts.",
    ),
    "autovacuum-off": Kind(
        DATABASE,
        ERROR,
        "Each mark leaves a dead row behind that nobody clears away: reads get slower with every event.",
    ),
    "autovacuum-settings": Kind(
        DATABASE,
        NOTE,
        "Dead rows are cleared away after a fifth of the table, which comes too late here.",
    ),
    "dead-rows": Kind(DATABASE, WARNING, "Reads pass dead rows; they get slower with every event."),
    "purge-behind": Kind(
        DATABASE, WARNING, "Produced rows stay longer than they should, and the table grows."
    ),
    "purge-paused": Kind(DATABASE, NOTE, "Produced rows stay, and the table grows."),
    # broker
    "broker-unreachable": Kind(BROKER, ERROR, "Nothing can be published: all events wait."),
    "broker-login-refused": Kind(BROKER, ERROR, "Nothing can be published: all events wait."),
    "topic-missing": Kind(BROKER, ERROR, "Its events wait until it is there; others go on."),
    "topic-unauthorised": Kind(BROKER, ERROR, "Its events wait until the relay may write to it."),
    "topic-without-leader": Kind(
        BROKER, ERROR, "Events of these partitions wait until a broker leads them."
    ),
    "topic-not-enough-replicas": Kind(
        BROKER, ERROR, "The broker refuses every record (NOT_ENOUGH_REPLICAS): its events wait."
    ),
    "topic-one-replica": Kind(BROKER, WARNING, _LOST_ACK + " One disk is enough for that."),
    "topic-min-isr": Kind(BROKER, WARNING, _LOST_ACK + " One broker's end is enough for that."),
    "topic-unclean-election": Kind(
        BROKER,
        WARNING,
        "A replica that lags may be made leader; what it lacks is gone. " + _LOST_ACK,
    ),
    "topic-compacted-unkeyed": Kind(
        BROKER, ERROR, "A compacted topic refuses records without a key: each is a dead letter."
    ),
    "topic-record-limit": Kind(
        BROKER,
        WARNING,
        "An event between the two limits is sent, refused, and becomes a dead letter.",
    ),
    "topic-old-refused": Kind(
        BROKER,
        ERROR,
        "A record carries the time at which its event was created. After an outage the oldest ones are "
        "refused, and the topic pauses.",
    ),
    "topic-append-time": Kind(
        BROKER,
        NOTE,
        "Consumers see when a record was stored, not when its event happened; ce_time still says it.",
    ),
    "topic-one-partition": Kind(
        BROKER, NOTE, "All relays publish to one partition: more of them do not make it faster."
    ),
    "topics-made-by-themselves": Kind(
        BROKER,
        NOTE,
        "A name that is written wrongly makes a topic of its own, which nobody consumes.",
    ),
    "exchange-missing": Kind(BROKER, ERROR, "Its events wait until the exchange is there."),
    "queue-missing": Kind(
        BROKER, ERROR, "No queue takes its events: they become dead letters, or wait."
    ),
    "stream-not-durable": Kind(BROKER, WARNING, _LOST_ACK),
    "stream-evicted": Kind(
        BROKER, ERROR, "When the memory is full, Redis throws whole streams away, read or not."
    ),
    "broker-only-reads": Kind(BROKER, ERROR, "A replica takes no writes: all events wait."),
    "replicas-too-few": Kind(
        BROKER,
        ERROR,
        "So many replicas never confirm: each batch waits for its deadline, and again.",
    ),
    "file-not-writable": Kind(BROKER, ERROR, "Nothing can be written: all events wait."),
    # relay
    "no-relay": Kind(RELAY, ERROR, "Nobody publishes: events wait."),
    "lanes-without-owner": Kind(RELAY, WARNING, "Events of their keys wait."),
    "relay-behind": Kind(RELAY, ERROR, "Consumers see the world as it was so long ago."),
    "relay-dies": Kind(
        RELAY,
        WARNING,
        "After each end of a relay the next waits for its lease and publishes some events again; after "
        "two in a row rows are read with care, which is slow.",
    ),
    "topic-paused": Kind(
        RELAY, WARNING, "Somebody paused it: its events wait until it is resumed."
    ),
    "dead-letters": Kind(RELAY, WARNING, "These events were given up: consumers never got them."),
    # wake
    "wake-socket-missing": Kind(
        WAKE, WARNING, "Hints of applications get lost; the relay finds new events when it polls."
    ),
    "wake-socket-refused": Kind(
        WAKE, WARNING, "Hints of applications get lost; the relay finds new events when it polls."
    ),
    "wake-nobody-listens": Kind(
        WAKE, WARNING, "Hints of applications get lost; the relay finds new events when it polls."
    ),
    "wake-hint-lost": Kind(
        WAKE, WARNING, "Hints of applications get lost; the relay finds new events when it polls."
    ),
}


def found(
    code: str,
    what: str,
    mend: str,
    commands: Sequence[Command] = (),
    *,
    severity: Severity | None = None,
) -> Finding:
    """The finding *code*. *severity* only where it is less than usual."""
    kind = KINDS[code]
    return Finding(
        code=code,
        area=kind.area,
        severity=kind.severity if severity is None else severity,
        what=what,
        why=kind.why,
        mend=mend,
        commands=tuple(commands),
    )
