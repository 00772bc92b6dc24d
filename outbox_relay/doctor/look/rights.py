"""What the relay's user may do, asked without doing any of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa

from outbox_relay.doctor.ddl import dialect_of
from outbox_relay.doctor.facts import Backend, Grant, Right, RightsFacts
from outbox_relay.doctor.look.connection import Questions, Refused
from outbox_relay.doctor.rules.server import grants_beyond

_GRANT: Final = re.compile(r"GRANT (?P<names>.+?) ON (?P<target>.+?) TO ", re.DOTALL)
_COLUMNS: Final = re.compile(r"\s*\([^)]*\)")
_CHANGED: Final = ("event_status", "status", "owner", "last_error")
_MANY: Final = ("INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")

Needed = Mapping[sa.Table, tuple[str, ...]]


def needed_rights(
    outbox: sa.Table, lease: sa.Table, control: sa.Table, version: sa.Table
) -> Needed:
    """What a relay needs on each table of ours, and nothing else."""
    return {
        outbox: ("SELECT", "UPDATE", "DELETE"),
        lease: ("SELECT", "UPDATE"),
        control: ("SELECT",),
        version: ("SELECT",),
    }


def needed_adopted(
    outbox: sa.Table, dead: sa.Table, lease: sa.Table, control: sa.Table, version: sa.Table
) -> Needed:
    """The same where the table is one of python-cqrs."""
    return {
        outbox: ("SELECT", "UPDATE"),
        dead: ("SELECT", "INSERT", "UPDATE"),
        lease: ("SELECT", "UPDATE"),
        control: ("SELECT",),
        version: ("SELECT",),
    }


async def look_at_rights(questions: Questions, needed: Needed, backend: Backend) -> RightsFacts:
    """Raises Refused if not even that can be asked."""
    if backend == "postgresql":
        return await _on_postgresql(questions, needed)
    return await _on_mysql(questions, needed, backend)


async def _on_mysql(questions: Questions, needed: Needed, backend: Backend) -> RightsFacts:
    quote = dialect_of(backend).identifier_preparer
    (who, database), *_ = await questions.rows("SELECT CURRENT_USER(), DATABASE()")
    # EXPLAIN would leave a note behind each time, which the driver logs.
    await questions.rows("SET SESSION sql_notes = 0")
    rights, targets = [], {}
    for table, names in needed.items():
        schema = table.schema or database
        target = f"`{schema}`.`{table.name}`"
        targets[target] = frozenset(names)
        for name in names:
            granted = await _may(questions, quote.format_table(table), table, name)
            if granted is not None:
                rights.append(Right(table=target, name=name, granted=granted))
    user, _, host = who.rpartition("@")
    shown = await questions.rows("SHOW GRANTS")
    grants = [grant for row in shown if (grant := parse_grant(row[0])) is not None]
    return RightsFacts(
        user=f"'{user}'@'{host}'",
        rights=tuple(rights),
        grants=grants_beyond(tuple(grants), targets),
    )


async def _may(questions: Questions, name: str, table: sa.Table, right: str) -> bool | None:
    """EXPLAIN needs the rights of what it explains, and does nothing."""
    first = next(iter(table.columns)).name
    changed = next((column for column in _CHANGED if column in table.c), first)
    statement = {
        "SELECT": f"SELECT 1 FROM {name} LIMIT 0",
        "UPDATE": f"EXPLAIN UPDATE {name} SET {changed} = NULL WHERE 1 = 0",
        "DELETE": f"EXPLAIN DELETE FROM {name} WHERE 1 = 0",
        "INSERT": f"EXPLAIN INSERT INTO {name} ({first}) VALUES (0)",
    }[right]
    try:
        await questions.rows(statement)
    except Refused as error:
        # Whatever else it minds, it looked at the rights first.
        return False if error.lacks_right else None
    return True


def parse_grant(text: str) -> Grant | None:
    """
    One line of SHOW GRANTS, without what it tells of passwords.

    >>> parse_grant("GRANT SELECT (`id`), DROP ON `shop`.* TO `relay`@`%`").covers
    'database'
    """
    found = _GRANT.match(text)
    if found is None or found["target"].startswith(("'", "`performance_schema`")):
        return None
    if "@" in found["target"]:
        return None
    names = {part.strip() for part in _COLUMNS.sub("", found["names"]).split(",")}
    if "WITH GRANT OPTION" in text and names != {"USAGE"}:
        names.add("GRANT OPTION")
    target = found["target"]
    if target == "*.*":
        return Grant(target=target, names=frozenset(names), covers="server")
    covers: Any = "database" if target.endswith(".*") else "table"
    return Grant(target=target, names=frozenset(names), covers=covers)


async def _on_postgresql(questions: Questions, needed: Needed) -> RightsFacts:
    quote = dialect_of("postgresql").identifier_preparer
    ((user, is_superuser),) = await questions.rows(
        "SELECT quote_ident(current_user), rolsuper FROM pg_roles WHERE rolname = current_user"
    )
    rights, grants, owns = [], [], []
    for table, names in needed.items():
        name = quote.format_table(table)
        literal = "'" + name.replace("'", "''") + "'"
        asked = ", ".join(
            f"has_table_privilege({literal}, '{right}')" for right in ("SELECT", *_MANY)
        )
        try:
            (answers,) = await questions.rows(
                f"SELECT pg_get_userbyid(relowner) = current_user, {asked} FROM pg_class "
                f"WHERE oid = {literal}::regclass"
            )
        except Refused:
            continue  # not there, which is said elsewhere
        held = {
            right for right, granted in zip(("SELECT", *_MANY), answers[1:], strict=True) if granted
        }
        rights += [Right(table=name, name=right, granted=right in held) for right in names]
        if answers[0]:
            owns.append(name)
        elif held - set(names):
            more = frozenset(held - set(names))
            grants.append(Grant(target=name, names=more, covers="table"))
    return RightsFacts(
        user=user,
        rights=tuple(rights),
        grants=() if is_superuser else tuple(grants),
        is_superuser=bool(is_superuser),
        owns=tuple(owns),
    )
