"""Findings about the relay, as the database shows it: who has the lanes, how far it is, what stopped."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Final

from outbox_relay.config import Config
from outbox_relay.doctor.catalogue import found
from outbox_relay.doctor.facts import LeaseFacts, RowsFacts, TablesFacts
from outbox_relay.doctor.findings import Finding, Severity, shell, sql
from outbox_relay.relay.pauses import EVERYTHING
from outbox_relay.relay.purge import PURGE
from outbox_relay.schema import LANES, Tables

BEHIND_SECONDS: Final = 300.0
"""As the alert has it."""

DEATHS: Final = 2
"""So many in a row, and rows are read with care."""

MOST_REASONS: Final = 5
PURGE_SLACK_SECONDS: Final = 3600.0
PURGE_SLACK_SHARE: Final = 0.1


def of_relay(
    lease: LeaseFacts | None,
    rows: RowsFacts | None,
    tables: TablesFacts,
    names: Tables,
    config: Config,
) -> list[Finding]:
    """Whether events flow."""
    found_: list[Finding] = []
    if lease is not None:
        found_ += [*_lease_rows(lease, tables, names, config), *_owners(lease, rows)]
        found_ += _deaths(lease)
    if rows is not None:
        found_ += [*_lag(lease, rows), *_paused(rows), *_dead(rows)]
        found_ += _purge(rows, names, config)
    return found_


def _lease_rows(
    lease: LeaseFacts, tables: TablesFacts, names: Tables, config: Config
) -> Iterator[Finding]:
    if config.database.layout == "python-cqrs":
        wanted_slots, first = 0, 0
    else:
        wanted_slots = LANES if lease.lanes == LANES and (tables.version or 0) >= 2 else 0
        first = LANES
    missing = lease.lanes - lease.lane_rows, wanted_slots - lease.slot_rows
    if max(missing) <= 0:
        return
    table = names.lease.fullname
    numbers = [
        *(range(lease.lanes) if missing[0] > 0 else ()),
        *(range(first, first + wanted_slots) if missing[1] > 0 else ()),
    ]
    rows = " UNION ALL ".join(f"SELECT {number} AS lane" for number in numbers)
    yield found(
        "lease-rows",
        f"{names.lease.name} lacks {max(missing[0], 0)} lanes and {max(missing[1], 0)} places of "
        "active relays",
        "Put the missing rows in; relays take them at once.",
        sql(
            f"INSERT INTO {table} (lane) SELECT lane FROM ({rows}) AS wanted "
            f"WHERE lane NOT IN (SELECT lane FROM {table})"
        ),
    )


def _owners(lease: LeaseFacts, rows: RowsFacts | None) -> Iterator[Finding]:
    if not lease.lane_rows:
        return
    pending = rows.pending if rows is not None else 0
    if not lease.held:
        waits = f"{pending:,} events wait" if pending else "nothing waits"
        last = f"; {lease.last_owner} had it, until {lease.ended_seconds:,.0f} s ago"
        yield found(
            "no-relay",
            f"nobody holds the lease; {waits}{last if lease.last_owner else ''}",
            "Mend what is said of the database first: a relay that runs goes on by itself. Else start "
            "one, or look into its log for why it does not run.",
            shell("outbox-relay run"),
            severity=Severity.ERROR if pending else Severity.WARNING,
        )
    elif lease.held < lease.lane_rows:
        owners = ", ".join(f"{owner} ({lanes})" for owner, lanes in sorted(lease.owners.items()))
        yield found(
            "lanes-without-owner",
            f"{lease.lane_rows - lease.held} of {lease.lane_rows} lanes are nobody's; relays: {owners}",
            "Look again in a minute: relays take them within relay.standby_seconds, or when the lease "
            "of a dead one has run out. If it stays, relay.max_active_relays differs between relays.",
        )


def _deaths(lease: LeaseFacts) -> Iterator[Finding]:
    if lease.crash_count < DEATHS:
        return  # one, by a node that went or by hand, says nothing
    suspects = lease.suspects
    where = f"; rows {suspects[0]} to {suspects[1]} were looked at then" if suspects else ""
    yield found(
        "relay-dies",
        f"{lease.crash_count} relays in a row ended without handing their lanes back{where}",
        "Look at how they ended (`kubectl describe pod`, `dmesg` for lack of memory, the log). A row "
        "that kills a relay becomes a dead letter by itself; the count goes back to 0 when a relay "
        "stops cleanly.",
    )


def _lag(lease: LeaseFacts | None, rows: RowsFacts) -> Iterator[Finding]:
    age = rows.oldest_pending_seconds
    if age is None or age <= BEHIND_SECONDS or rows.oldest_of_paused:
        return
    if lease is not None and not lease.held:
        return  # said by no-relay
    yield found(
        "relay-behind",
        f"the oldest of {rows.pending:,} pending events has waited for {age:,.0f} s",
        "Mend what is said of broker, database and topics first; if there is nothing, the relay's log "
        "says what it waits for (topic_paused, broker_unavailable, mark_failed).",
        shell("outbox-relay status"),
    )


def _paused(rows: RowsFacts) -> Iterator[Finding]:
    for item in rows.paused:
        why = f" ({item.reason})" if item.reason else ""
        since = f"for {item.seconds:,.0f} s now{why}"
        if item.topic == PURGE:
            resume = shell("outbox-relay resume --purge")
            yield found(
                "purge-paused", f"the purge has been paused {since}", "Let it go on:", resume
            )
        elif item.topic == EVERYTHING:
            resume = shell("outbox-relay resume --all")
            yield found(
                "topic-paused", f"all topics have been paused {since}", "Let them go on:", resume
            )
        else:
            what = f"the topic {item.topic} has been paused {since}"
            resume = shell(f"outbox-relay resume -- {shlex.quote(item.topic)}")
            yield found("topic-paused", what, "Let it go on:", resume)


def _dead(rows: RowsFacts) -> Iterator[Finding]:
    if not rows.dead:
        return
    total = sum(item.rows for item in rows.dead)
    largest = sorted(rows.dead, key=lambda item: -item.rows)[:MOST_REASONS]
    text = ", ".join(f"{item.rows:,} of {item.topic} ({item.reason})" for item in largest)
    yield found(
        "dead-letters",
        f"{total:,} dead letters: {text}",
        "Look at them, mend the cause, then requeue them, or discard what nobody needs.",
        shell("outbox-relay dead-letters list", "outbox-relay dead-letters requeue --all"),
    )


def _purge(rows: RowsFacts, names: Tables, config: Config) -> Iterator[Finding]:
    if config.database.layout == "python-cqrs":
        return
    kept, age = config.relay.retention_seconds, rows.oldest_produced_seconds
    if age is None or age <= kept + max(PURGE_SLACK_SECONDS, PURGE_SLACK_SHARE * kept):
        return
    if any(item.topic == PURGE for item in rows.paused):
        return  # said by purge-paused
    if kept == 0:
        mend = "What was produced before the setting was 0 is deleted by hand, in small portions:"
    else:
        mend = (
            "The active relay purges: look whether one runs, and for purge_failed in its log. By hand, "
            "in small portions until none is left:"
        )
    yield found(
        "purge-behind",
        f"the first produced row has been kept for {age:,.0f} s; relay.retention_seconds is {kept:,.0f}",
        mend,
        sql(_purge_statement(names, config, kept)),
    )


def _purge_statement(names: Tables, config: Config, kept: float) -> str:
    table = names.outbox.fullname
    if config.database.url.startswith("postgresql"):
        old = f"produced_at < now() - INTERVAL '{kept:.0f} seconds'"
    elif config.database.url.startswith("sqlite"):
        old = f"produced_at < strftime('%Y-%m-%d %H:%M:%f', 'now', '-{kept:.0f} seconds')"
    else:
        return (
            f"DELETE FROM {table} WHERE status = 1 AND produced_at < UTC_TIMESTAMP(6) - INTERVAL "
            f"{kept:.0f} SECOND ORDER BY id LIMIT 1000"
        )
    return (
        f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE status = 1 AND {old} "
        "ORDER BY id LIMIT 1000)"
    )
