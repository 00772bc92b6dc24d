"""
The screen: live on a terminal, one line a second elsewhere, and the account at the end.

Colours are the terminal's own sixteen, so that light and dark themes both stay readable.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Final, Protocol, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from outbox_relay.demo.account import Account
from outbox_relay.demo.progress import PartState, Progress, percentile

_WIDTH: Final = 80
_NOTES: Final = 6
_STYLES: Final[dict[PartState, str]] = {
    "waiting": "dim",
    "running": "green",
    "frozen": "reverse cyan",
    "killed": "reverse red",
    "stopped": "dim",
}
_BARS: Final = " ▁▂▃▄▅▆▇█"
_ASCII_BARS: Final = " ..::||##"


class Screen(Protocol):
    """Where the demo shows what happens."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, progress: Progress) -> None:
        """Show *progress*. Called several times a second."""


class LiveScreen:
    """One picture, drawn again and again."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, progress: Progress) -> None:
        """Draw the picture."""
        width = min(self._console.width, _WIDTH)
        ascii_only = self._console.options.ascii_only
        self._live.update(picture(progress, width=width, ascii_only=ascii_only), refresh=True)


class PlainScreen:
    """A line a second, and one for whatever happens; for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._notes_shown = 0
        self._second = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def show(self, progress: Progress) -> None:
        """Print what is new."""
        for at_seconds, text in progress.notes[self._notes_shown :]:
            self._print(f"{at_seconds:5.1f} s  -- {text}")
        self._notes_shown = len(progress.notes)
        if int(progress.elapsed_seconds) != self._second:
            self._second = int(progress.elapsed_seconds)
            self._print(_plain_line(progress))

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def picture(progress: Progress, *, width: int, ascii_only: bool = False) -> RenderableType:
    """All of *progress*, in 20 lines of *width* columns."""
    body = Group(
        _parts(progress, ascii_only=ascii_only),
        Text(),
        _numbers(progress, inner_width=width - 4, ascii_only=ascii_only),
        Text(),
        _notes(progress),
        Text(),
        _clock(progress),
    )
    return Panel(
        body,
        title="[bold]outbox-relay demo[/]",
        subtitle="an order and its event are one transaction",
        box=box.ASCII if ascii_only else box.ROUNDED,
        border_style="blue",
        width=width,
    )


def _clock(progress: Progress) -> Table:
    total = progress.total_seconds
    done = total if progress.finished else min(progress.elapsed_seconds, total)
    clock = Table.grid(expand=True, padding=(0, 1))
    clock.add_column(ratio=1)
    clock.add_column(justify="right", no_wrap=True)
    clock.add_row(
        ProgressBar(
            total=total,
            completed=done,
            style="dim",
            complete_style="blue",
            finished_style="blue",
        ),
        f"{progress.elapsed_seconds:4.1f} s",
    )
    return clock


def _parts(progress: Progress, *, ascii_only: bool) -> Text:
    arrow = " -> " if ascii_only else " ─▶ "
    line = Text(justify="center", no_wrap=True)
    for position, (name, state) in enumerate(progress.parts.items()):
        line.append(arrow if position else "", style="dim")
        line.append(name, style=_STYLES[state])
        if state in ("frozen", "killed"):
            line.append(f" {state}", style=_STYLES[state])
    return line


def _numbers(progress: Progress, *, inner_width: int, ascii_only: bool) -> Table:
    columns = inner_width - 32
    table = Table.grid(padding=(0, 2))
    table.add_column(width=18, no_wrap=True, overflow="crop")
    table.add_column(width=8, justify="right", no_wrap=True, overflow="crop")
    table.add_column(width=columns, no_wrap=True, overflow="crop")
    table.add_row(
        "orders committed",
        _bold(progress.committed),
        f"{progress.commits_per_second:,.0f} a second",
    )
    table.add_row("rolled back", _bold(progress.rolled_back), "nobody may ever hear of these")
    line = sparkline(progress.backlogs, columns=columns, ascii_only=ascii_only)
    table.add_row("backlog", _bold(progress.backlog), Text(line, style="magenta"))
    table.add_row("events acked", _bold(progress.acked), "the broker has them, the row says so")
    table.add_row("delivered", _bold(progress.delivered), "counted by a consumer")
    table.add_row(
        "duplicates", _bold(progress.duplicates), "at least once: a crash may repeat some"
    )
    p50, p99 = _latencies(progress)
    table.add_row("latency", Text(p50, style="bold"), f"median, with the trouble made; p99 {p99}")
    return table


def _bold(count: int) -> Text:
    return Text(f"{count:,}", style="bold")


def _notes(progress: Progress) -> Text:
    lines = progress.notes[-_NOTES:]
    text = Text(overflow="crop", no_wrap=True)
    for at_seconds, line in lines:
        style = "bold" if line == progress.now else ""
        text.append(f"{at_seconds:5.1f} s  ", style="dim").append(f"{line}\n", style=style)
    # The picture keeps its height, so that nothing on the screen jumps.
    text.append("\n" * (_NOTES - len(lines)))
    text.right_crop(1)
    return text


def _plain_line(progress: Progress) -> str:
    p50, p99 = _latencies(progress)
    return (
        f"{progress.elapsed_seconds:5.1f} s  committed {progress.committed}"
        f"  rolled back {progress.rolled_back}  backlog {progress.backlog}"
        f"  acked {progress.acked}  delivered {progress.delivered}"
        f"  duplicates {progress.duplicates}  latency p50 {p50} p99 {p99}"
    )


def _latencies(progress: Progress) -> tuple[str, str]:
    return (
        _milliseconds(percentile(progress.latencies, 0.5)),
        _milliseconds(percentile(progress.latencies, 0.99)),
    )


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{max(seconds, 0) * 1000:,.0f} ms"


def sparkline(values: Iterable[int], *, columns: int, ascii_only: bool = False) -> str:
    """
    The last *columns* of *values* as bars; the highest of them is a full one.

    >>> sparkline([0, 4, 8], columns=3)
    ' ▄█'
    """
    bars = _ASCII_BARS if ascii_only else _BARS
    shown = list(values)[-columns:]
    highest = max(shown, default=0) or 1
    return "".join(bars[-(-value * (len(bars) - 1) // highest)] for value in shown)


def account_table(account: Account, *, ascii_only: bool = False) -> Table:
    """The account, each rule with a mark that says whether it held."""
    table = Table(
        title="The account",
        box=box.ASCII if ascii_only else box.ROUNDED,
        title_style="bold",
        show_header=False,
    )
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    same = account.committed == account.delivered > 0
    rows: list[tuple[str, int, bool | None, str]] = [
        ("events committed", account.committed, None, "what the shop's orders tell of"),
        ("events delivered", account.delivered, same, "each counted once; must equal committed"),
        ("ghosts", account.ghosts, account.ghosts == 0, "delivered, but never committed"),
        ("lost", account.lost, account.lost == 0, "committed, but never delivered"),
        (
            "order violations",
            account.order_violations,
            account.order_violations == 0,
            "overtaken by a later event of its customer",
        ),
        ("duplicates", account.duplicates, None, "delivered again: at least once allows it"),
        ("rolled back", account.rolled_back, None, "commands that failed after adding an event"),
    ]
    if account.booked is not None:
        dropped = f"by the consumer, each event once: its inbox dropped {account.dropped:,}"
        rows.insert(-1, ("booked", account.booked, account.booked == account.delivered, dropped))
    for name, count, held, meaning in rows:
        table.add_row(name, f"{count:,}", _mark(held, ascii_only=ascii_only), meaning)
    return table


def _mark(held: bool | None, *, ascii_only: bool) -> Text:
    if held is None:
        return Text("")
    if held:
        return Text("ok" if ascii_only else "✓", style="bold green")
    return Text("no" if ascii_only else "✗", style="bold red")


def verdict(account: Account) -> Text:
    """What the account shows, in a sentence or two."""
    if not account.balanced:
        return Text("The account does not balance: the relay broke its promise.", style="bold red")
    return Text.assemble(
        ("The account balances. ", "bold green"),
        "The broker was taken away and the relay killed, and yet every committed event arrived, "
        "in the order of its customer, and none of the rolled back ones did. The consumer's inbox "
        "drops the duplicates, by their ce_id header.",
    )
