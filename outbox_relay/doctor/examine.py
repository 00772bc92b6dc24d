"""
Looks at everything at once, each within its own time, and says what follows.

A database or a broker that is away costs its own checks and no other's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from sqlalchemy.engine import make_url

from outbox_relay.config import Config
from outbox_relay.doctor.facts import (
    BrokerFacts,
    ConfigurationFacts,
    DatabaseFacts,
    KafkaFacts,
    Unreachable,
    WakeFacts,
)
from outbox_relay.doctor.findings import Area, Finding, Findings, Skipped, in_order
from outbox_relay.doctor.look.broker import look_at_broker
from outbox_relay.doctor.look.configuration import look_at_files
from outbox_relay.doctor.look.database import look_at_database
from outbox_relay.doctor.look.wake import look_at_wake
from outbox_relay.doctor.rules.brokers import of_broker
from outbox_relay.doctor.rules.configuration import of_configuration, of_error
from outbox_relay.doctor.rules.relay import of_relay
from outbox_relay.doctor.rules.server import of_rights, of_server, of_silence, of_unreachable
from outbox_relay.doctor.rules.settings import of_settings
from outbox_relay.doctor.rules.tables import of_tables
from outbox_relay.doctor.rules.wake import of_trigger, of_wake
from outbox_relay.errors import ConfigError
from outbox_relay.schema import tables

MOST_SECONDS: Final = 20.0
"""A look at one area, at most; all areas are looked at side by side."""

DATABASE_SECONDS: Final = 12.0
"""Of them for the database: the broker's topics are named by its rows."""

Result = TypeVar("Result")
_NAMES: Final = {
    "mariadb": "MariaDB",
    "mysql": "MySQL",
    "postgresql": "PostgreSQL",
    "sqlite": "SQLite",
}


@dataclass(slots=True)
class Seen:
    """The facts of all areas; None where nothing could be looked at."""

    files: ConfigurationFacts | None = None
    database: DatabaseFacts | None = None
    broker: BrokerFacts | None = None
    wake: tuple[WakeFacts, ...] | None = None
    skipped: list[Skipped] = field(default_factory=list)


def invalid(error: ConfigError) -> Findings:
    """What is to be said of settings that do not load: nothing else can be looked at."""
    return Findings(findings=in_order(of_error(error)), areas=(Area.CONFIGURATION,))


async def examine(config: Config, *, only: Collection[Area] = tuple(Area)) -> Findings:
    """
    Look at configuration, database, broker, relay and wake-up, and say what is not as it should be.

    Changes nothing. Never raises for what a database or a broker does, and takes at most about
    `MOST_SECONDS`, whatever hangs. *only* bounds what is told; what that needs is looked at.
    """
    seen = await _look(config, only)
    _what_the_database_hides(seen)
    if Area.RELAY in only and not _has_lease(seen):
        # Else what keeps the relay from being seen would go unsaid.
        only = {*only, Area.DATABASE}
    findings = [finding for finding in judge(config, seen) if finding.area in only]
    return Findings(
        findings=in_order(findings),
        skipped=tuple(item for item in seen.skipped if item.area in only),
        areas=tuple(area for area in Area if area in only),
        facts=_looked_at(config, seen),
        unseen=frozenset() if _has_lease(seen) else frozenset({Area.RELAY} & set(only)),
    )


def _has_lease(seen: Seen) -> bool:
    return seen.database is not None and seen.database.lease is not None


def _what_the_database_hides(seen: Seen) -> None:
    """Relay and topics are known by the rows alone."""
    needs = "the database, with its tables"
    if not _has_lease(seen):
        seen.skipped.append(Skipped(area=Area.RELAY, what="the relay", needs=needs))
    if seen.broker is not None and (seen.database is None or seen.database.rows is None):
        what = "the topics that the outbox uses"
        seen.skipped.append(Skipped(area=Area.BROKER, what=what, needs=needs))


def judge(config: Config, seen: Seen) -> list[Finding]:
    """All that follows from what was *seen*. Pure."""
    names = tables(config.database.table, schema=config.database.schema or None)
    found: list[Finding] = []
    if seen.files is not None:
        found += of_configuration(config, seen.files)
    database = seen.database
    if database is not None:
        found += _of_database(config, database)
        if database.tables is not None and database.tables.problem is None:
            found += of_relay(database.lease, database.rows, database.tables, names, config)
            found += of_trigger(database.tables, names)
    if seen.broker is not None:
        found += of_broker(seen.broker, config, database.rows if database else None)
    if seen.wake is not None:
        found += of_wake(seen.wake, database.lease if database else None)
    return found


def _of_database(config: Config, facts: DatabaseFacts) -> list[Finding]:
    if facts.unreachable is not None:
        return [of_unreachable(facts.unreachable)]
    names = tables(config.database.table, schema=config.database.schema or None)
    found = of_silence(facts)
    if facts.server is not None:
        found += [*of_server(facts.server, config), *of_settings(facts.server, config)]
    if facts.tables is not None:
        version = facts.server.version if facts.server is not None else ()
        found += of_tables(facts.tables, names, config, facts.backend, version)
    if facts.rights is not None:
        found += of_rights(facts.rights, facts.server)
    return found


async def _look(config: Config, only: Collection[Area]) -> Seen:
    seen = Seen()
    wanted = set(only)
    topics: asyncio.Future[Collection[str]] = asyncio.get_running_loop().create_future()
    work: list[Awaitable[None]] = []
    if Area.CONFIGURATION in wanted:
        seen.files = look_at_files(config)
    # Relay and hints are judged by what the database says, and topics are named by its rows.
    if wanted - {Area.CONFIGURATION}:
        work.append(_database(config, seen, topics))
    if Area.BROKER in wanted:
        work.append(_broker(config, seen, topics))
    if Area.WAKE in wanted and config.relay.wake_address:
        work.append(_wake(config, seen))
    await asyncio.gather(*work)
    return seen


async def _database(config: Config, seen: Seen, topics: asyncio.Future[Collection[str]]) -> None:
    found = await _bounded(look_at_database(config), DATABASE_SECONDS)
    if isinstance(found, Unreachable):
        seen.database = DatabaseFacts(backend=_backend(config), unreachable=found)
    else:
        seen.database, skipped = found
        seen.skipped += skipped
    rows = seen.database.rows
    topics.set_result([] if rows is None else [use.topic for use in rows.topics])


def _backend(config: Config) -> Any:
    return make_url(config.database.url).get_backend_name()


async def _broker(config: Config, seen: Seen, topics: asyncio.Future[Collection[str]]) -> None:
    found = await _bounded(look_at_broker(config, topics))
    if isinstance(found, Unreachable):
        seen.broker = KafkaFacts(unreachable=found)
    else:
        seen.broker, skipped = found
        seen.skipped += skipped


async def _wake(config: Config, seen: Seen) -> None:
    found = await _bounded(look_at_wake(config))
    if isinstance(found, Unreachable):
        seen.skipped.append(Skipped(area=Area.WAKE, what="hints", needs=found.what))
    else:
        seen.wake = found


async def _bounded(work: Awaitable[Result], seconds: float = MOST_SECONDS) -> Result | Unreachable:
    """What *work* found, or why it did not come to an end."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        return Unreachable(
            kind="away",
            what=f"it did not answer everything within {seconds:g} s",
            mend="Look at its load, and at the network between.",
        )
    except ConfigError as error:
        return Unreachable(kind="login", what=str(error), mend="Correct what it names.")
    except Exception as error:  # noqa: BLE001 - a driver raises what it likes; other areas go on
        return Unreachable(
            kind="away",
            what=f"it could not be looked at ({type(error).__name__})",
            mend="Look at the log of its server.",
        )


def _looked_at(config: Config, seen: Seen) -> dict[Area, str]:
    """One line for each area."""
    found = {}
    database = seen.database
    if database is not None and database.server is not None:
        name = _NAMES[database.server.backend]
        found[Area.DATABASE] = f"{name} {database.server.version_text}"
        if database.lease is not None:
            owners = ", ".join(sorted(database.lease.owners))
            found[Area.RELAY] = f"{owners or 'nobody'}"
            if database.rows is not None:
                found[Area.RELAY] += f", {database.rows.pending:,} events wait"
    if seen.broker is not None:
        found[Area.BROKER] = config.broker.kind
        if isinstance(seen.broker, KafkaFacts) and seen.broker.unreachable is None:
            topics, brokers = len(seen.broker.topics), seen.broker.brokers
            found[Area.BROKER] = f"Kafka, brokers: {brokers}, topics in use: {topics}"
    found[Area.WAKE] = config.relay.wake_address or "no address: the relay polls"
    origins = [o for o in config.origins.values() if o != "flag"]
    found[Area.CONFIGURATION] = f"{len(origins)} settings" if origins else "defaults"
    return found
