"""
What `doctor` gathers: plain data, so that each rule is a pure function with tests that need no server.

None stands for what could not be learnt; `Skipped` says so then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Backend = Literal["mysql", "mariadb", "postgresql", "sqlite"]


# Configuration


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """A file that a setting names. `problem` says why it cannot be used, if so."""

    setting: str
    path: str
    is_secret: bool
    mode: int | None
    problem: str | None = None
    not_after_days: float | None = None
    """For certificates: how many days from now the first of them ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationFacts:
    """The files that the settings name, and the file that holds them."""

    files: tuple[FileFacts, ...] = ()
    config_path: str | None = None
    config_mode: int | None = None
    secrets_in_config: tuple[str, ...] = ()


# Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreachable:
    """Why something does not answer: `what` is what it or the driver said, `mend` what to do."""

    kind: Literal["away", "login", "tls", "missing"]
    what: str
    mend: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A setting of a server, and where PostgreSQL has it from."""

    value: str
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTransaction:
    """`name` is what ends it: a connection's number, or the name of a prepared one."""

    name: str
    seconds: float
    user: str
    origin: str = ""
    is_prepared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """
    What was seen of something between relay and server.

    `greeted_by_another`: who greeted us is not who answers. `shares_connections`: two of our
    connections met on one of the server's, or one of ours on several.
    """

    greeted_by_another: bool = False
    shares_connections: bool = False
    product: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """One right on one table, and whether the relay's user has it."""

    table: str
    name: str
    granted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Rights on `target`, as the server writes it; `covers` says how wide that is."""

    target: str
    names: frozenset[str]
    covers: Literal["server", "database", "table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RightsFacts:
    """What the relay's user may do."""

    user: str
    rights: tuple[Right, ...] = ()
    grants: tuple[Grant, ...] = ()
    """What it was given, as far as it goes beyond single tables or what is needed there."""
    is_superuser: bool = False
    owns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """The server, as this connection sees it."""

    backend: Backend
    version: tuple[int, ...]
    version_text: str
    settings: Mapping[str, Setting] = field(default_factory=dict)
    skew_seconds: float | None = None
    """How far the server's clock is ahead of ours, less what the question took."""
    only_reads: bool = False
    connections: int | None = None
    transactions: tuple[OpenTransaction, ...] | None = None
    bulk_inserts: int | None = None
    """How many INSERT ... SELECT into the outbox the server remembers."""
    between: Between = Between()

    def value(self, name: str) -> str | None:
        """The setting *name*, or None where there is none."""
        setting = self.settings.get(name)
        return None if setting is None else setting.value


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnFacts:
    """A column, its type as the server writes it, without widths that mean nothing."""

    type: str
    nullable: bool
    has_default: bool
    generated: bool = False
    collation: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexFacts:
    """An index; `where` of a partial one."""

    columns: tuple[str, ...]
    where: str = ""
    valid: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFacts:
    """A table that is there."""

    columns: Mapping[str, ColumnFacts]
    indexes: Mapping[str, IndexFacts] = field(default_factory=dict)
    engine: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    """PostgreSQL's storage parameters."""
    dead_rows: int | None = None
    live_rows: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TablesFacts:
    """The tables of the outbox. `problem` says why this release cannot serve them, if so."""

    version: int | None
    min_reader: int | None
    there: Mapping[str, TableFacts] = field(default_factory=dict)
    problem: str | None = None
    wrong_lanes: int | None = None
    """Of the newest rows: how many have a lane that is not that of their key."""
    missing: tuple[str, ...] = ()
    """With layout = "python-cqrs": the statements that `adopt --prepare` would run."""
    has_notify_trigger: bool | None = None


# Rows and relay


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicUse:
    """A topic that pending or recent rows name."""

    topic: str
    pending: int = 0
    unkeyed: int = 0
    routing_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadCount:
    """Dead letters of one topic and reason."""

    topic: str
    reason: str
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    """A row of the control table."""

    topic: str
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseFacts:
    """Who relays. `lane_rows` and `slot_rows` are the rows that are there."""

    lane_rows: int
    slot_rows: int
    owners: Mapping[str, int]
    lanes: int
    """As many as this database has: 64, or 1 where one owner has all."""
    crash_count: int = 0
    suspects: tuple[int, int] | None = None
    wake_addresses: tuple[str, ...] = ()
    last_owner: str = ""
    """Whose lease ran out last, and was not handed back; empty while one lasts."""
    ended_seconds: float = 0.0

    @property
    def held(self) -> int:
        """Lanes with a lease that lasts."""
        return sum(self.owners.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsFacts:
    """What is in the table. Counts end at a cap."""

    pending: int
    oldest_pending_seconds: float | None
    oldest_produced_seconds: float | None
    dead: tuple[DeadCount, ...] = ()
    topics: tuple[TopicUse, ...] = ()
    paused: tuple[Paused, ...] = ()
    oldest_of_paused: bool = False
    """Whether the oldest pending row is of a topic that is paused."""


THE_SERVER: Final = "the server"
THE_TABLES: Final = "the tables"
THE_LEASE: Final = "the lease"
THE_ROWS: Final = "the rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFacts:
    """All of the database. What was not reached is None."""

    backend: Backend
    unreachable: Unreachable | None = None
    server: ServerFacts | None = None
    tables: TablesFacts | None = None
    rights: RightsFacts | None = None
    lease: LeaseFacts | None = None
    rows: RowsFacts | None = None
    silent: tuple[str, ...] = ()
    """What was asked and not answered in time, such as `THE_ROWS`."""


# Brokers


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicFacts:
    """A topic of Kafka. `leaderless` and `in_sync` go by partition."""

    topic: str
    exists: bool
    may_write: bool | None = None
    may_describe: bool = True
    replicas: tuple[int, ...] = ()
    in_sync: tuple[int, ...] = ()
    leaderless: tuple[int, ...] = ()
    away: tuple[int, ...] = ()
    """Brokers that hold replicas, and are away."""
    configs: Mapping[str, str] | None = None

    @property
    def partitions(self) -> int:
        """How many there are."""
        return len(self.replicas)


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaFacts:
    """The brokers, and the topics that the outbox uses."""

    unreachable: Unreachable | None = None
    brokers: int = 0
    auto_create: bool | None = None
    topics: tuple[TopicFacts, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AmqpFacts:
    """RabbitMQ. Places are exchanges, or queues of the default exchange."""

    unreachable: Unreachable | None = None
    exchanges: Mapping[str, bool] = field(default_factory=dict)
    queues: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisFacts:
    """Redis, as INFO says; None where the user may not ask."""

    unreachable: Unreachable | None = None
    role: str | None = None
    replicas: int | None = None
    has_log: bool | None = None
    policy: str | None = None
    max_memory: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonlFacts:
    """The file of JSON lines; `problem` says why it cannot be written."""

    problem: str | None = None


BrokerFacts = KafkaFacts | AmqpFacts | RedisFacts | JsonlFacts


# Wake-up


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeFacts:
    """
    One address at which the relay takes hints.

    `state` of a socket: what became of a hint. `counted` is whether the relay's own count of hints
    grew after one; None where it cannot be asked.
    """

    address: str
    state: Literal["taken", "missing", "refused", "nobody", "unknown"]
    detail: str = ""
    counted: bool | None = None
