"""Findings about the address at which the relay takes hints."""

from __future__ import annotations

import shlex

from outbox_relay.doctor.catalogue import found
from outbox_relay.doctor.facts import LeaseFacts, TablesFacts, WakeFacts
from outbox_relay.doctor.findings import Finding, shell, sql
from outbox_relay.schema import Tables


def of_wake(facts: tuple[WakeFacts, ...], lease: LeaseFacts | None) -> list[Finding]:
    """Whether hints reach the relay. Without an active relay nobody can listen, which is said."""
    if lease is not None and not lease.held:
        return []
    return [finding for item in facts if (finding := _address(item)) is not None]


def _address(facts: WakeFacts) -> Finding | None:
    path = facts.address.removeprefix("unix:")
    match facts.state:
        case "missing":
            return found(
                "wake-socket-missing",
                f"{facts.address}: there is no such socket",
                "Start the relay, which makes it; or correct relay.wake_address, or mount the folder "
                "here too. From another machine this cannot be seen: run doctor beside the relay.",
            )
        case "refused":
            return found(
                "wake-socket-refused",
                f"{facts.address}: {facts.detail}",
                "Let the applications' user write to the socket and enter its folder.",
                shell(f"chmod a+w {shlex.quote(path)}"),
            )
        case "nobody":
            return found(
                "wake-nobody-listens",
                f"{facts.address}: nobody listens there",
                "Start the relay, or correct relay.wake_address; a socket's file that a dead relay left "
                "behind is replaced by the next one.",
            )
    if facts.counted is False:
        return found(
            "wake-hint-lost",
            f"{facts.address} took a hint, and the relay of this configuration did not count it",
            "Another relay listens there: give each an address of its own.",
        )
    return None


def of_trigger(facts: TablesFacts, names: Tables) -> list[Finding]:
    """PostgreSQL's notifications come from a trigger."""
    if facts.has_notify_trigger is not False:
        return []
    table, function = names.outbox.fullname, "outbox_notify"
    return [
        found(
            "trigger-missing",
            f"relay.wake_notify = true, and no trigger of {names.outbox.name} sends notifications",
            "Make it, as the owner of the table:",
            sql(
                f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN PERFORM pg_notify(TG_TABLE_NAME::text, ''); RETURN NULL; END $$",
                f"CREATE TRIGGER {function} AFTER INSERT ON {table} FOR EACH STATEMENT "
                f"EXECUTE FUNCTION {function}()",
            ),
        )
    ]
