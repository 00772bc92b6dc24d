"""
Results as Markdown: the tables that a run prints, and `docs/benchmarks.md`.

Every figure on the page comes from a JSON file that a run wrote; what did not run says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.orders import CUSTOMERS, PARTITIONS, PAYLOAD_BYTES
from benchmarks.relays import QUIET
from benchmarks.results import MEASURES, Case, Outcome, load

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "benchmarks.md"
CHARTS: Final = ROOT / "docs" / "benchmarks"

DATABASES: Final = {"mariadb": "MariaDB", "mysql": "MySQL", "postgresql": "PostgreSQL"}

INTRODUCTION: Final = """\
# Benchmarks

Written by `make bench` from what its runs measured (`benchmarks/results/*.json`); do not edit it. Each line is the
median of its runs, with the smallest and the largest in brackets. All systems share the same servers and rows: JSON of
about {payload} bytes, stored with zlib, {keys:,} keys, {partitions} partitions; MariaDB with a row binlog and `sync_binlog=1`, PostgreSQL
with `synchronous_commit`, one broker of Kafka. Relay, database, broker and the benchmark itself share the
cores. The relay has the defaults of `config.example.toml`, but for {quiet}; every other setting that differs stands
in the table.

Each run reads its topic with a consumer of its own. *lost* are rows that are not on the topic, *twice* those that came
more than once, *inverted* those that came after a later row of their key in the same partition. *rows/s* goes from the
first to the last record on the topic, by the broker's clock.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """
    A scenario on the page: its title, what it does, and the measures that its chart shows.

    `make bench` runs it on *databases*; what ran on another one is shown too.
    """

    scenario: str
    title: str
    text: str
    chart: Sequence[str]
    databases: Sequence[str] = ("mariadb",)


SECTIONS: Final[Sequence[Section]] = (
    Section(
        scenario="drain",
        title="Drain",
        text=(
            "A backlog waits when the relay starts; it ends when the table holds no pending row. The limit is CPU: the three "
            "columns together, against the cores that all share."
        ),
        chart=("rows_per_second", "relay_us"),
        databases=("mariadb", "postgresql"),
    ),
    Section(
        scenario="latency",
        title="From commit to consumer",
        text="A writer commits 200 events a second, at uneven times; a consumer notes when each arrives.",
        chart=("p50_ms", "p99_ms"),
    ),
    Section(
        scenario="idle",
        title="Idle",
        text="Nothing is there to relay. Standbys are measured together, and divided by their number.",
        chart=("cpu_percent", "statements_per_second"),
    ),
    Section(
        scenario="insert",
        title="Insert",
        text=(
            "One event in a transaction of its own, through SQLAlchemy's asyncio. The bare Core INSERT writes the same "
            "columns, encoded beforehand."
        ),
        chart=("client_cpu_us", "client_us"),
    ),
    Section(
        scenario="inbox",
        title="Inbox",
        text=(
            "A consumer's handler that writes one row for each event, in a transaction of its own, through SQLAlchemy's "
            "asyncio; alone, and with the inbox in the same transaction. A duplicate is dropped: its handler writes nothing."
        ),
        chart=("client_cpu_us", "client_us"),
    ),
    Section(
        scenario="mediator",
        title="Mediator",
        text=(
            "A command through `mediator.send`, with a container of di and the logging middleware, as python-cqrs has them "
            "by default. The handler does nothing; or it commits one event, in the documents' form, through the outbox. "
            "SQLAlchemy and its driver do most of the work of the second, on both sides."
        ),
        chart=("client_cpu_us", "client_us"),
    ),
    Section(
        scenario="flatness",
        title="Flat cost",
        text=(
            "The same backlog, with more and more around it. *cost* is the CPU of relay and database for a row, beside "
            "the first line's. Rows of a paused topic are passed once in a term; here the relay had passed them "
            "before the backlog was written, held meanwhile, and let go. A thousand partitions make batches of a few rows, and a batch costs relay "
            "and broker more than a row does."
        ),
        chart=("over_first", "rows_per_second"),
    ),
    Section(
        scenario="several",
        title="Several relays",
        text=(
            "One backlog, one table, and several relays that share its lanes. Where one relay, its database and its broker "
            "fill the cores, more relays only add work: each reads past the lanes of the others, so the database looks at "
            "a row once for each of them."
        ),
        chart=("rows_per_second", "relay_us"),
    ),
    Section(
        scenario="takeover",
        title="Take-over",
        text=(
            "From the signal until another relay has published and marked a row that was committed right after it. An owner "
            "that is told to stop hands its lanes back; one that is killed cannot, and its lease must end first "
            "(`relay.lease_seconds`)."
        ),
        chart=("p50_ms", "max_ms"),
    ),
    Section(
        scenario="roundtrip",
        title="Round trips",
        text=(
            "A proxy (toxiproxy) stands before broker or database and adds the round trip. It takes its own share of the "
            "cores, so the first lines go through it as well."
        ),
        chart=("rows_per_second", "rate_to_first"),
    ),
    Section(
        scenario="migrate",
        title="Migrations",
        text=(
            "Four writers commit an event each every few milliseconds, and the lease is renewed 20 times a second as an "
            "active relay does, while the tables of version 1 are brought to this release, and then more is done to the "
            "outbox than any step so far does. *max* is the longest that a writer waited for its INSERT and COMMIT, "
            "among all *writes meanwhile*; the first line is the same without any work, and shows what the disk and the other "
            "processes of the machine do. `make bench` leaves it out."
        ),
        chart=("max_ms", "renewal_ms"),
        databases=("mariadb", "mysql", "postgresql"),
    ),
    Section(
        scenario="rivals",
        title="Debezium and watermill",
        text=(
            "All relays in one run, on the same MariaDB and the same Kafka, one at a time. The orders are the same; each "
            "relay has its own table: Debezium `id`, `aggregatetype`, `aggregateid`, `type` and `payload` as text, watermill "
            "its messages with the forwarder's envelope, both filled with 1,000 rows a transaction. A relay is held while its "
            "backlog is written, then let go. Debezium (MariaDB connector with the outbox EventRouter, on Kafka Connect "
            "standalone with the Java options of `connect-standalone.sh`) has published rows by then (below it says how many), "
            "was stopped through Connect's REST interface, which stores its position, and is resumed: its process is warm, "
            "and neither its start nor the connector's counts in rows/s. Its CPU counts from the resume to the last record on the topic. "
            "watermill's forwarder starts as a process. Ours drains before, between and after Debezium's turns.\n\n"
            "*p50* and *p99* go from the return of a commit to the consumer, with 200 commits a second at uneven times and "
            "one row each, 5 s a run, after 2 s that do not count; *CPU, % of a core* is the relay with nothing to do, for "
            "8 s after that. *default* has what the product needs to work and nothing else; *tuned* what makes it faster. "
            "With few rows, rows/s leaves out much of what comes before the first record: *start to last mark* does not."
        ),
        chart=("rows_per_second", "relay_us", "p99_ms"),
    ),
)


def table(outcome: Outcome) -> str:
    """The cases as a Markdown table."""
    measures = outcome.measures
    titles = ["", *(MEASURES[name].title for name in measures)]
    if any(case.settings for case in outcome.cases):
        titles.append("settings that differ")
    lines = [
        _row(titles),
        _row(["---"] + ["---:"] * len(measures) + ["---"] * (len(titles) - len(measures) - 1)),
    ]
    for case in outcome.cases:
        label = _label(case)
        if case.rows:
            label += f", {case.rows:,} rows"
        cells = [label, *(case.text(name) for name in measures)]
        if len(titles) > len(cells):
            cells.append(", ".join(f"`{key} = {value}`" for key, value in case.settings.items()))
        lines.append(_row(cells))
    return "\n".join(lines)


def page(results: Path, sections: Sequence[Section] = SECTIONS) -> str:
    """`docs/benchmarks.md` as the JSON files of *results* make it."""
    quiet = " and ".join(f"`{key} = {value}`" for key, value in QUIET.items())
    parts = [
        INTRODUCTION.format(
            payload=PAYLOAD_BYTES, keys=CUSTOMERS, partitions=PARTITIONS, quiet=quiet
        )
    ]
    for section in sections:
        parts.append(f"## {section.title}\n\n{section.text}\n")
        for database in DATABASES:
            if database in section.databases or _file(section, database, results).is_file():
                parts.append(_part(section, database, results))
    return "\n".join(parts)


def chart_name(scenario: str, database: str) -> str:
    """The file of a chart."""
    return f"{scenario}-{database}.svg"


def _file(section: Section, database: str, results: Path) -> Path:
    return results / f"{section.scenario}-{database}.json"


def _part(section: Section, database: str, results: Path) -> str:
    path = _file(section, database, results)
    title = f"### On {DATABASES[database]}\n"
    if not path.is_file():
        command = f"python -m benchmarks {section.scenario} --database {database}"
        return f"{title}\nNot run: `{command}`.\n"
    outcome = load(path)
    chart = chart_name(section.scenario, database)
    notes = [f"- {_label(case)}: {case.note}" for case in outcome.cases if case.note]
    return "\n".join(
        [
            title,
            f"![{section.title} on {DATABASES[database]}](benchmarks/{chart})\n",
            table(outcome) + "\n",
            *([*notes, ""] if notes else []),
            _where(outcome) + "\n",
        ]
    )


def _where(outcome: Outcome) -> str:
    machine = outcome.machine
    runs = max((len(case.runs) for case in outcome.cases), default=0)
    versions = ", ".join(f"{name} {version}" for name, version in outcome.versions.items())
    return (
        f"`{outcome.command}`, {outcome.date}, {outcome.seconds:.0f} s, up to {runs} runs each. "
        f"{machine['cores']} cores of {machine['processor']}, {machine['memory_gb']} GB, {machine['system']}. {versions}."
    )


def _label(case: Case) -> str:
    return f"{case.system}: {case.name}" if case.name else case.system


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
