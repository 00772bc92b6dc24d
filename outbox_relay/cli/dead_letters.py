"""`outbox-relay dead-letters`: look at rows that were given up, send them once more, or delete them."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from outbox_relay.cli.exits import Exit, errors_as_exits, fail, require_driver
from outbox_relay.cli.options import ConfigOption, SetOption, load
from outbox_relay.compression import inflate
from outbox_relay.relay.dead_letters import DeadLetter, DeadLetters, Found, Selection
from outbox_relay.schema import MAX_PAYLOAD_BYTES, Codec

if TYPE_CHECKING:
    from outbox_relay.config import Config

Result = TypeVar("Result")

IdOption = Annotated[
    list[int] | None, typer.Option("--id", metavar="ID", help="This row. May be repeated.")
]
TopicOption = Annotated[
    list[str] | None, typer.Option("--topic", metavar="TOPIC", help="Of this topic.")
]
ReasonOption = Annotated[
    list[str] | None,
    typer.Option("--reason", metavar="REASON", help="Given up for this, such as too_large."),
]
AllOption = Annotated[bool, typer.Option("--all", help="Every dead letter.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object, for scripts.")]

dead_letters = typer.Typer(
    name="dead-letters",
    help="Look at rows that were given up, requeue them, or discard them.",
    no_args_is_help=True,
)


@dead_letters.command("list")
def list_(
    *,
    config: ConfigOption = None,
    flags: SetOption = None,
    ids: IdOption = None,
    topics: TopicOption = None,
    reasons: ReasonOption = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Most rows to show.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Count the dead letters by topic and reason, and show the oldest."""

    async def work(letters: DeadLetters) -> tuple[list[Found], bool, list[DeadLetter]]:
        found, capped = await letters.find(_selection(ids, topics, reasons))
        return found, capped, await letters.read([letter.id for letter in found[:limit]])

    found, capped, shown = _run(config, flags, lambda _: work)
    if as_json:
        rows = [_as_json(letter) for letter in shown]
        typer.echo(json.dumps({"counts": _counts(found), "capped": capped, "dead_letters": rows}))
        return
    _print_counts(found, capped)
    if shown:
        _print_table(
            ("id", "topic", "key", "event", "bytes", "dead since (UTC)", "error"),
            [
                (
                    str(letter.id),
                    letter.topic,
                    _key_text(letter.key),
                    letter.event_name,
                    f"{letter.payload_bytes:,}",
                    letter.dead_at.strftime("%Y-%m-%d %H:%M:%S") if letter.dead_at else "",
                    letter.last_error,
                )
                for letter in shown
            ],
        )
    if len(found) > len(shown):
        typer.echo(f"{len(found) - len(shown):,} more are not shown: see --limit")


@dead_letters.command()
def show(
    row_id: Annotated[int, typer.Argument(metavar="ID", help="The row.")],
    config: ConfigOption = None,
    flags: SetOption = None,
    with_payload: Annotated[
        bool, typer.Option("--payload", help="Also the payload, as it would be published.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show one dead letter. Exits with 1 if there is none of this id."""

    async def work(letters: DeadLetters) -> tuple[list[DeadLetter], bytes]:
        found = await letters.read([row_id])
        return found, await letters.payload(row_id) if found and with_payload else b""

    found, stored = _run(config, flags, lambda _: work)
    if not found:
        fail(Exit.FAILED, f"row {row_id} is no dead letter: see outbox-relay dead-letters list")
    fields = _as_json(found[0])
    if with_payload:
        fields |= _payload(stored, found[0].codec)
    if as_json:
        typer.echo(json.dumps(fields))
        return
    for name, value in fields.items():
        typer.echo(f"{name}: {'' if value is None else value}")


@dead_letters.command()
def requeue(
    *,
    config: ConfigOption = None,
    flags: SetOption = None,
    ids: IdOption = None,
    topics: TopicOption = None,
    reasons: ReasonOption = None,
    everything: AllOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """
    Let the relay publish dead letters once more.

    Says how many and asks first. What was wrong must be mended before: a row that is refused again
    is a dead letter again. With relay.on_dead_letter = "hold_key" it comes in its place, else late;
    its record has the header requeued-at.
    """
    selection = _chosen(ids, topics, reasons, everything)

    def make(settings: Config) -> Callable[[DeadLetters], Coroutine[Any, Any, int]]:
        async def work(letters: DeadLetters) -> int:
            found = await _confirmed(letters, selection, "requeue", yes=yes, quiet=as_json)
            return await letters.requeue([letter.id for letter in found])

        return work

    _tell("requeued", _run(config, flags, make), as_json)


@dead_letters.command()
def discard(
    *,
    config: ConfigOption = None,
    flags: SetOption = None,
    ids: IdOption = None,
    topics: TopicOption = None,
    reasons: ReasonOption = None,
    everything: AllOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """
    Delete dead letters: they will never be published.

    Says how many and asks first. Each row is logged to standard error, without payload and key.
    """
    selection = _chosen(ids, topics, reasons, everything)

    def make(settings: Config) -> Callable[[DeadLetters], Coroutine[Any, Any, int]]:
        async def work(letters: DeadLetters) -> int:
            found = await _confirmed(letters, selection, "discard", yes=yes, quiet=as_json)
            discarded = await letters.discard([letter.id for letter in found])
            _log_discarded(settings, found)
            return discarded

        return work

    _tell("discarded", _run(config, flags, make), as_json)


def _run(
    config: Any,
    flags: list[str] | None,
    make: Callable[[Config], Callable[[DeadLetters], Coroutine[Any, Any, Result]]],
) -> Result:
    """Do on the dead letters what *make* makes of the settings; errors become exit codes."""
    from outbox_relay.wiring import build_dead_letters

    with errors_as_exits():
        settings = load(config, flags)
        require_driver(settings.database.url)
        work = make(settings)

        async def main() -> Result:
            letters = build_dead_letters(settings.database)
            try:
                return await work(letters)
            finally:
                await letters.close()

        return asyncio.run(main())


def _selection(
    ids: Sequence[int] | None, topics: Sequence[str] | None, reasons: Sequence[str] | None
) -> Selection:
    return Selection(ids=tuple(ids or ()), topics=tuple(topics or ()), reasons=tuple(reasons or ()))


def _chosen(
    ids: list[int] | None, topics: list[str] | None, reasons: list[str] | None, everything: bool
) -> Selection:
    if bool(ids or topics or reasons) == everything:
        fail(Exit.USAGE, "say which dead letters: --id, --topic, --reason, or --all alone")
    return _selection(ids, topics, reasons)


async def _confirmed(
    letters: DeadLetters, selection: Selection, verb: str, *, yes: bool, quiet: bool
) -> list[Found]:
    """The dead letters of *selection*, once the operator has agreed to what they are."""
    found, capped = await letters.find(selection)
    if not quiet:
        _print_counts(found, capped)
    if found and not yes:
        # Not a word of ours goes on by default: without a terminal this ends the command.
        typer.confirm(f"{verb} {len(found):,} dead letters?", abort=True, err=True)
    return found


def _tell(done: str, rows: int, as_json: bool) -> None:
    typer.echo(json.dumps({done: rows}) if as_json else f"{done} {rows:,}")


def _log_discarded(settings: Config, found: Sequence[Found]) -> None:
    from outbox_relay.logs import configure_logs, get_logger

    configure_logs(settings.log)
    logger = get_logger()
    for letter in found:
        logger.info(
            "dead_letter_discarded",
            row_id=letter.id,
            topic=letter.topic,
            event_id=str(letter.event_id),
            reason=letter.reason,
        )


def _counts(found: Sequence[Found]) -> list[dict[str, Any]]:
    counts = Counter((letter.topic, letter.reason) for letter in found)
    return [
        {"topic": topic, "reason": reason, "rows": rows}
        for (topic, reason), rows in sorted(counts.items())
    ]


def _print_counts(found: Sequence[Found], capped: bool) -> None:
    if not found:
        typer.echo("no dead letters")
        return
    _print_table(
        ("topic", "reason", "rows"),
        [(c["topic"], c["reason"], f"{c['rows']:,}") for c in _counts(found)],
    )
    if capped:
        typer.echo(f"there are more than {len(found):,}: run the command again for the rest")


def _print_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def _as_json(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "event_id": str(letter.event_id),
        "event_name": letter.event_name,
        "topic": letter.topic,
        "key": None if letter.key is None else _key_text(letter.key),
        "headers": letter.headers,
        "content_type": letter.content_type,
        "payload_bytes": letter.payload_bytes,
        "attempts": letter.attempts,
        "created_at": f"{letter.created_at.isoformat()}Z",
        "dead_at": f"{letter.dead_at.isoformat()}Z" if letter.dead_at else None,
        "reason": letter.reason,
        "error": letter.last_error,
    }


def _key_text(key: bytes | None) -> str:
    """
    The key as text, or its bytes as 0x... if it is none.

    >>> _key_text(bytes([0, 255]))
    '0x00ff'
    """
    if key is None:
        return ""
    try:
        text = key.decode()
    except UnicodeDecodeError:
        text = ""
    return text if text.isprintable() and text else f"0x{key.hex()}"


def _payload(stored: bytes, codec: int) -> dict[str, str | None]:
    """What would be published; what is stored, if that cannot be made of it."""
    if codec == Codec.TOMBSTONE:
        return {"payload": None}
    if codec == Codec.ZLIB:
        try:
            stored = inflate(stored, max_bytes=MAX_PAYLOAD_BYTES)
        except ValueError:
            return {"stored_base64": base64.b64encode(stored).decode()}
    try:
        return {"payload": stored.decode()}
    except UnicodeDecodeError:
        return {"payload_base64": base64.b64encode(stored).decode()}
