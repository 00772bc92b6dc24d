"""`outbox-relay status`: how the outbox stands, read from the database alone."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import sqlalchemy as sa
import typer
from sqlalchemy.engine import make_url

from outbox_relay.cli.exits import Exit, errors_as_exits, fail, require_driver
from outbox_relay.cli.options import ConfigOption, SetOption, load
from outbox_relay.errors import StoreUnavailable
from outbox_relay.schema import LANES, Status, Tables, schema_problem, tables, utc_now
from outbox_relay.store.options import DatabaseOptions

MOST_ROWS = 100_000
"""Rows are counted up to here: an exact count of ten million would take seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What `status` shows. `--json` prints these fields. Counts end at 100,000."""

    schema_version: int | None
    schema_problem: str | None
    backlog_rows: int = 0
    oldest_pending_seconds: float | None = None
    dead_letter_rows: int = 0
    owner: str | None = None
    owners: dict[str, int] = dataclasses.field(default_factory=dict)
    lanes_owned: int = 0
    lease_seconds_left: float | None = None
    crash_count: int = 0
    paused_topics: tuple[str, ...] = ()


def status(
    config: ConfigOption = None,
    flags: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for scripts.")] = False,
) -> None:
    """
    Show backlog, dead letters, who relays, and what pauses.

    Reads the database and nothing else, so it works while no relay runs. Exits with 1 if the
    database does not answer, with 3 if the tables are missing or do not fit.
    """
    with errors_as_exits():
        settings = load(config, flags)
        require_driver(settings.database.url)
        standing = read_standing(settings.database)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(standing)))
    else:
        _print(standing)
    if standing.schema_problem:
        # With --json the object has said it, and standard error says it for eyes.
        fail(Exit.SCHEMA, standing.schema_problem)


def read_standing(options: DatabaseOptions) -> Standing:
    """How the outbox stands. Raises StoreUnavailable if the database does not answer."""
    url = make_url(options.url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        # SQLite would create the file, and looking must change nothing.
        return Standing(schema_version=None, schema_problem=schema_problem(None, None))
    return asyncio.run(_connect_and_read(options))


async def _connect_and_read(options: DatabaseOptions) -> Standing:
    from outbox_relay.migrate import database_engine
    from outbox_relay.store.login import hint, said

    engine = database_engine(options)
    try:
        async with asyncio.timeout(options.connect_timeout_seconds + options.timeout_seconds):
            async with engine.connect() as connection:
                if options.layout == "python-cqrs":
                    return await connection.run_sync(_read_adopted, options)
                names = tables(options.table, schema=options.schema or None)
                return await connection.run_sync(_read, names)
    except TimeoutError as error:
        raise StoreUnavailable("the database does not answer in time: is it up?") from error
    except (sa.exc.DBAPIError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        raise StoreUnavailable(
            f"the database cannot be read: {said(cause)}{hint(cause)}"
        ) from error
    finally:
        await engine.dispose()


def _read(connection: sa.Connection, names: Tables) -> Standing:
    from outbox_relay.migrate import read_version, refuse_python_cqrs

    refuse_python_cqrs(connection, names.outbox)
    version, min_reader = read_version(connection, names)
    problem = schema_problem(version, min_reader)
    if version is None or problem:
        return Standing(schema_version=version, schema_problem=problem)
    now = _now(connection)
    return Standing(
        schema_version=version,
        schema_problem=None,
        paused_topics=_paused(connection, names),
        **_rows(connection, names.outbox, now),
        **_lease(connection, names.lease, now),
    )


def _read_adopted(connection: sa.Connection, options: DatabaseOptions) -> Standing:
    from outbox_relay.adoption_prepare import missing
    from outbox_relay.migrate import read_version
    from outbox_relay.python_cqrs import adopted_in, beside_problem

    names = adopted_in(connection, options.table, options.schema or None)
    version, min_reader = read_version(connection, names.beside)
    has_index = version is not None and not missing(connection, names)
    problem = beside_problem(version, min_reader, has_index=has_index)
    if problem:
        return Standing(schema_version=version, schema_problem=problem)
    now, id_ = _now(connection), names.outbox.c.id
    waits = connection.execute(sa.select(names.seconds_waited(connection))).scalar_one()
    return Standing(
        schema_version=version,
        schema_problem=None,
        paused_topics=_paused(connection, names.beside),
        backlog_rows=_count(connection, id_, names.pending()),
        oldest_pending_seconds=None if waits is None else float(waits),
        dead_letter_rows=_count(connection, id_, names.given_up()),
        **_lease(connection, names.beside.lease, now),
    )


def _now(connection: sa.Connection) -> datetime:
    clock = sa.select(sa.type_coerce(utc_now(), sa.DateTime()))
    return _utc(connection.execute(clock).scalar_one())


def _paused(connection: sa.Connection, names: Tables) -> tuple[str, ...]:
    return tuple(connection.execute(sa.select(names.control.c.topic).order_by("topic")).scalars())


def _count(connection: sa.Connection, id_: sa.Column[Any], wanted: sa.ColumnElement[bool]) -> int:
    some = sa.select(id_).where(wanted).limit(MOST_ROWS).subquery()
    return connection.execute(sa.select(sa.func.count()).select_from(some)).scalar_one()


def _rows(connection: sa.Connection, outbox: sa.Table, now: datetime) -> dict[str, Any]:
    def count(wanted: Status) -> int:
        return _count(connection, outbox.c.id, outbox.c.status == wanted)

    oldest = connection.execute(
        sa.select(outbox.c.created_at)
        .where(outbox.c.status == Status.PENDING)
        .order_by(outbox.c.id)
        .limit(1)
    ).scalar_one_or_none()
    return {
        "backlog_rows": count(Status.PENDING),
        "oldest_pending_seconds": (now - _utc(oldest)).total_seconds() if oldest else None,
        "dead_letter_rows": count(Status.DEAD),
    }


def _lease(connection: sa.Connection, lease: sa.Table, now: datetime) -> dict[str, Any]:
    # By name: tables of an older version lack some.
    columns = (lease.c.lane, lease.c.owner, lease.c.expires_at, lease.c.crash_count)
    lanes = connection.execute(sa.select(*columns).where(lease.c.lane < LANES)).all()
    held = [lane for lane in lanes if _utc(lane.expires_at) > now]
    if not held:
        return {"crash_count": max((lane.crash_count for lane in lanes), default=0)}
    # SQLite has one lane, whose owner holds them all.
    each = 1 if len(lanes) > 1 else LANES
    owners = Counter(sorted(lane.owner for lane in held))
    return {
        "owner": ", ".join(owners),
        "owners": {owner: count * each for owner, count in owners.items()},
        "lanes_owned": len(held) * each,
        "lease_seconds_left": min((_utc(lane.expires_at) - now).total_seconds() for lane in held),
        "crash_count": max(lane.crash_count for lane in held),
    }


def _utc(instant: datetime | str) -> datetime:
    # SQLite has no type for instants, so what an expression returns is text.
    parsed = datetime.fromisoformat(instant) if isinstance(instant, str) else instant
    return parsed.replace(tzinfo=UTC)


def _print(standing: Standing) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value, good in _lines(standing):
        table.add_row(Text(name, style="bold"), Text(value, style="" if good else "red"))
    Console().print(table)


def _lines(standing: Standing) -> list[tuple[str, str, bool]]:
    """What is shown, as (name, value, whether it is as it should be)."""
    if standing.schema_problem:
        return [("schema", str(standing.schema_version or "missing"), False)]
    age = standing.oldest_pending_seconds
    left = standing.lease_seconds_left
    owner = (
        f"{_owners_text(standing.owners)}; {left:.1f} s left"
        if left is not None
        else "nobody: no relay is active"
    )
    return [
        ("schema", f"version {standing.schema_version}", True),
        ("backlog", _rows_text(standing.backlog_rows), True),
        ("oldest pending", "none" if age is None else f"{age:.1f} s", age is None or age < 300),
        ("dead letters", _rows_text(standing.dead_letter_rows), not standing.dead_letter_rows),
        ("relay", owner, left is not None),
        ("paused topics", ", ".join(standing.paused_topics) or "none", not standing.paused_topics),
    ]


def _owners_text(owners: dict[str, int]) -> str:
    return ", ".join(f"{owner} ({lanes} lanes)" for owner, lanes in owners.items())


def _rows_text(count: int) -> str:
    return f"{count:,} rows" + (" or more" if count >= MOST_ROWS else "")
