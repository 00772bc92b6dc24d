"""`outbox-relay audit`: the table and the topics, compared."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from sqlalchemy.engine import make_url

from outbox_relay.audit.plan import EVER, KINDS, Plan, from_offsets
from outbox_relay.cli.exits import SIGNALLED, Exit, errors_as_exits, fail, require_driver
from outbox_relay.cli.options import ConfigOption, JsonOption, SetOption, instant, load
from outbox_relay.errors import AuditError, ConfigError, StoreUnavailable

if TYPE_CHECKING:
    from datetime import datetime

    from outbox_relay.audit.report import Report
    from outbox_relay.config import Config

TopicOption = Annotated[
    list[str] | None,
    typer.Option(
        "--topic", metavar="TOPIC", help="Only this one. May be repeated. Else all of the table."
    ),
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="TIME",
        help="Events created then (UTC) or later, or so long ago, such as 90m, 2h or 3d.",
    ),
]
UntilOption = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Events created before that time.")
]
FromOffsetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--from-offset",
        metavar="[TOPIC[:PARTITION]=]OFFSET",
        help="Read the partitions from there. May be repeated.",
    ),
]
SourceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--source", metavar="SOURCE", help="Only records with this ce_source. May be repeated."
    ),
]
DatabaseUrlOption = Annotated[
    str | None,
    typer.Option("--database-url", metavar="URL", help="Read this one instead, such as a replica."),
]
RateOption = Annotated[
    int | None,
    typer.Option("--rate", metavar="ROWS", min=1, help="Most rows a second of the table."),
]
WorkOption = Annotated[
    Path | None,
    typer.Option(
        "--work", metavar="FILE", help="Keep what is read there, and go on with it the next time."
    ),
]
MostOption = Annotated[
    int, typer.Option("--most", metavar="N", min=0, help="Most events shown of each kind.")
]
AllowOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow", metavar="KIND", help=f"Exit with 0 all the same for: {', '.join(KINDS)}."
    ),
]
SettleOption = Annotated[
    float,
    typer.Option(
        "--settle",
        metavar="SECONDS",
        min=0.0,
        help="How late a mark, or a replica, may be before an event counts as a ghost.",
    ),
]


def audit(
    *,
    config: ConfigOption = None,
    flags: SetOption = None,
    topics: TopicOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    from_offset: FromOffsetOption = None,
    sources: SourceOption = None,
    database_url: DatabaseUrlOption = None,
    rate: RateOption = None,
    work: WorkOption = None,
    most: MostOption = 20,
    allow: AllowOption = None,
    settle: SettleOption = 20.0,
    as_json: JsonOption = False,
) -> None:
    """
    Find loss, duplicates, inversions and ghosts in topics.

    Compares table and topics. Only reads, while applications write and relays publish. With --work it goes on where it was, after
    whatever ended it. Exits with 0 if nothing was found, with 4 if something was, with 1 if it could
    not be done.
    """
    with errors_as_exits():
        if database_url is not None:
            flags = [*(flags or []), f"database.url={database_url}"]
        settings = load(config, flags)
        require_driver(settings.database.url)
        _refuse(settings)
        asked = {
            "topics": sorted(topics or ()),
            "since": since,
            "until": until,
            "from_offset": sorted(from_offset or ()),
            "sources": sorted(sources or ()),
        }
        allowed = _kinds(allow)
        plan = _plan(settings, asked, rate=rate, settle=settle)
    report = _carry_out(settings, plan, work=work, most=most)
    if as_json:
        fields = dataclasses.asdict(report)
        typer.echo(json.dumps({"clean": report.is_clean(allowed), **fields}))
    else:
        from outbox_relay.cli.audit_view import show

        show(report, most=most)
    if not report.is_clean(allowed):
        raise typer.Exit(Exit.FOUND)


def _refuse(settings: Config) -> None:
    """What cannot be audited: said before anything is read."""
    if settings.broker.kind != "kafka":
        raise ConfigError(
            [
                f"broker.kind = {settings.broker.kind}: an audit reads a topic again from its beginning, "
                "which Kafka alone can do"
            ]
        )
    if settings.database.layout != "outbox":
        raise ConfigError(
            [
                f"database.layout = {settings.database.layout}: that table does not keep when a row was "
                "produced, so a loss could not be told from retention; `outbox-relay adopt python-cqrs "
                "--move-to` makes a table that can be audited"
            ]
        )
    if settings.wire.headers == "none" and settings.wire.envelope == "none":
        raise ConfigError(
            [
                "wire.headers = none with wire.envelope = none: the records do not say which event they "
                'are, so nothing can be compared; take wire.headers = "cloudevents", or an envelope'
            ]
        )


def _kinds(allow: list[str] | None) -> frozenset[str]:
    unknown = sorted({*(allow or ())} - {*KINDS})
    if unknown:
        fail(Exit.USAGE, f"--allow {unknown[0]}: use {', '.join(KINDS)}")
    return frozenset(allow or ())


def _plan(settings: Config, asked: dict[str, Any], *, rate: int | None, settle: float) -> Plan:
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    try:
        offsets = from_offsets(asked["from_offset"])
    except ValueError as error:
        fail(
            Exit.USAGE, f"--from-offset {error}: use OFFSET, TOPIC=OFFSET or TOPIC:PARTITION=OFFSET"
        )
    if offsets and asked["since"]:
        fail(Exit.USAGE, "--since and --from-offset both say where to begin: take one")
    since = _microseconds(instant(asked["since"], now=now, option="--since"), 0)
    until = _microseconds(instant(asked["until"], now=now, option="--until"), EVER)
    if until <= since:
        fail(Exit.USAGE, "--until must be later than --since")
    url = make_url(settings.database.url)
    place = {
        "database": f"{url.get_backend_name()}://{url.host or ''}:{url.port or ''}/{url.database}",
        "table": f"{settings.database.schema}.{settings.database.table}",
        "kafka": settings.kafka.bootstrap_servers,
    }
    return Plan(
        asked={**asked, **place},
        topics=tuple(asked["topics"]),
        since=since,
        until=until,
        from_offsets=offsets,
        sources=frozenset(source.encode() for source in asked["sources"]),
        bare=settings.wire.headers == "none",
        keeps_produced_us=int(settings.relay.retention_seconds * 1_000_000),
        settle_seconds=settle,
        rows_per_second=rate,
    )


def _microseconds(at: datetime | None, default: int) -> int:
    from datetime import UTC, datetime

    if at is None:
        return default
    since = at.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    # Records know milliseconds.
    return ((since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000) * 1000


def _carry_out(settings: Config, plan: Plan, *, work: Path | None, most: int) -> Report:
    from outbox_relay.audit.run import audit as run_audit
    from outbox_relay.cli.audit_view import Stop, Stopped, progress_of
    from outbox_relay.logs import configure_logs
    from outbox_relay.wiring import build_audited_table, build_audited_topics

    configure_logs(settings.log)
    kept = f"; the same command goes on with what is in {work}" if work else ""
    with errors_as_exits(), Stop() as stop, _folder(work) as folder:
        try:
            with progress_of(stop) as progress:
                return asyncio.run(
                    run_audit(
                        plan,
                        path=work or Path(folder) / "audit.db",
                        table=build_audited_table(settings.database),
                        topics=build_audited_topics(settings.kafka),
                        progress=progress,
                        most=most,
                        is_stopped=stop.is_set,
                        keep=work is not None,
                    )
                )
        except (Stopped, AuditError, StoreUnavailable) as error:
            if stop.signal is not None:
                typer.echo(f"stopped{kept}", err=True)
                raise typer.Exit(SIGNALLED + stop.signal) from error
            raise AuditError(f"{error}{kept}") from error


def _folder(work: Path | None) -> AbstractContextManager[str]:
    """Where the work file is that nobody asked to keep."""
    if work is not None:
        return nullcontext("")
    return tempfile.TemporaryDirectory(prefix="outbox-audit-")
