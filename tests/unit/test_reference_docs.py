"""
The reference pages say what the code says: settings, metrics, commands, exit codes, columns.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from outbox_relay.cli.app import app
from outbox_relay.cli.exits import Exit
from outbox_relay.config_text import reference_table
from outbox_relay.consumer import ConsumerMetrics, Inbox
from outbox_relay.metrics import REBUILD_REASONS, Metrics, MetricsObserver
from outbox_relay.relay.outcomes import FailureKind, Fault, RejectReason, Unknown
from outbox_relay.relay.ports import Backlog
from outbox_relay.relay.waiting import Cause
from outbox_relay.schema import Codec, Status, tables
from tests.services.certificates import Authority

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
OF_DEAD_LETTERS = ("list", "show", "requeue", "discard")
VERBS = (
    "run",
    "demo",
    "migrate",
    "check-config",
    "status",
    "doctor",
    "audit",
    "pause",
    "resume",
    "replay",
    "purge",
)
GROUPS: list[list[str]] = [[], ["events"], ["dead-letters"], ["adopt"]]
ALL_VERBS = [
    *GROUPS,
    *([verb] for verb in VERBS),
    *(["events", verb] for verb in ("search", "show")),
    *(["dead-letters", verb] for verb in OF_DEAD_LETTERS),
    ["adopt", "python-cqrs"],
]


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def table_rows(text: str) -> list[list[str]]:
    """The cells of each row of the Markdown tables in *text* that begins with a `name`."""
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_configuration_lists_every_setting() -> None:
    """
    docs/reference/configuration.md holds what `reference_table()` writes, word for word.
    """
    assert reference_table() in page("configuration.md")


def exported(certificate: str) -> dict[str, tuple[str, str, str]]:
    """Name → (type, labels, meaning) of all that is exported once everything has been observed."""
    metrics = Metrics()
    observer = MetricsObserver(metrics)
    observer.published("t", 1, 1, 0.1)
    observer.publish_failed("t", Unknown(fault=Fault.TOPIC, detail=""))
    observer.dead_letter("t", RejectReason.TOO_LARGE)
    observer.purged("produced", 1)
    observer.hints("received", 1)
    observer.log("producer_rebuilt", reason="unknown")
    observer.log("unexpected_error", source="kafka", error="999")
    observer.read(1, 0.1)
    observer.latency(0.1, 1)
    observer.sampled(Backlog(rows=0, capped=False, oldest_us=None, dead_rows=0))
    observer.waiting({})
    observer.late_rows("open", 1)
    observer.connection_lost("timeout")
    observer.canary("acked", 0.1)
    metrics.certificates.files = {"database.ssl_cert_file": certificate}
    consumers = ConsumerMetrics(inboxes=[Inbox("billing")])
    consumers.records.labels("t", "handled").inc()
    consumers.failures.labels("t", "error").inc()
    found = {}
    for family in (*metrics.registry.collect(), *consumers.registry.collect()):
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {
            label: None for sample in family.samples for label in sample.labels if label != "le"
        }
        found[name] = (family.type, ", ".join(labels), family.documentation)
    return found


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of some certificate."""
    return str(Authority(tmp_path_factory.mktemp("ca")).certificate.cert)


def test_every_metric_is_documented(certificate: str) -> None:
    """
    docs/reference/metrics.md names exactly the metrics that relay and consumers export, with type,
    labels and meaning.
    """
    documented = {
        row[0].strip("`"): (row[1], row[2].replace("`", ""), row[3])
        for row in table_rows(page("metrics.md"))
        if row[0].startswith("`outbox_relay_")
    }

    assert documented == exported(certificate)


def test_names_of_metrics_follow_the_rules(certificate: str) -> None:
    """
    One prefix, base units, `_total` on counters and on nothing else.
    """
    names = exported(certificate)

    assert all(name.startswith("outbox_relay_") for name in names)
    assert all(name.endswith("_total") == (kind == "counter") for name, (kind, *_) in names.items())


def test_every_kind_and_reason_is_documented() -> None:
    """
    The closed sets behind the labels are listed.
    """
    text = page("metrics.md")

    assert all(f"`{reason}`" in text for reason in RejectReason)
    assert all(f"`{reason}`" in text for reason in REBUILD_REASONS)
    assert all(f"`{kind}`" in text for kind in FailureKind)
    assert all(f"`{cause}`" in text for cause in Cause)


@pytest.mark.parametrize("words", ALL_VERBS, ids=" ".join)
def test_the_command_line_page_shows_the_help(words: list[str]) -> None:
    """
    docs/reference/command-line.md holds the --help text of each verb, word for word.
    """
    result = CliRunner().invoke(
        app, [*words, "--help"], prog_name="outbox-relay", env={"COLUMNS": "80"}
    )

    assert result.exit_code == 0
    assert f"```text\n{result.output.rstrip()}\n```" in page("command-line.md")


@pytest.mark.parametrize("group", GROUPS, ids=" ".join)
def test_the_list_of_verbs_is_read_to_the_end(group: list[str]) -> None:
    """
    What a verb does fits into its line on a terminal of 80 columns, of which two stay free: nothing is cut off.
    """
    result = CliRunner().invoke(app, [*group, "--help"], env={"COLUMNS": "78"})

    assert "..." not in result.output.partition("\nCommands:\n")[2]


@pytest.mark.parametrize("words", ALL_VERBS, ids=" ".join)
def test_values_have_a_name(words: list[str]) -> None:
    """
    An option says what its value is, such as SECONDS, and not of which Python type it is.
    """
    result = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80"})

    assert not re.search(r"^ +-.* <[a-z]", result.output, flags=re.MULTILINE)


def test_every_verb_is_on_the_page() -> None:
    """
    No verb is left out.
    """
    names = [
        command.name or getattr(command.callback, "__name__", "")
        for command in app.registered_commands
    ]

    assert sorted(names) == sorted(VERBS)


def test_every_exit_code_is_documented() -> None:
    """
    The table of exit codes holds each member of `Exit`.
    """
    documented = {row[0].strip("`") for row in table_rows(page("command-line.md"))}

    assert {str(code.value) for code in Exit} <= documented
    assert {"130", "143"} <= documented


def documented_tables() -> dict[str, list[str]]:
    """Heading → the names in the first column below it."""
    sections = re.split(r"^## ", page("table.md"), flags=re.MULTILINE)[1:]
    return {
        section.splitlines()[0].strip("`"): [row[0].strip("`") for row in table_rows(section)]
        for section in sections
    }


@pytest.mark.parametrize("table", tables().metadata.sorted_tables, ids=lambda table: table.name)
def test_every_column_is_documented(table: sa.Table) -> None:
    """
    docs/reference/table.md lists the columns of each table, in their order.
    """
    assert documented_tables()[table.name] == [column.name for column in table.columns]


def test_every_status_and_codec_is_documented() -> None:
    """
    Numbers that a writer or a reader of the table meets are explained.
    """
    listed = documented_tables()

    assert listed["Status"] == [str(status.value) for status in Status]
    assert listed["Codec"] == [str(codec.value) for codec in Codec]


def test_the_sql_examples_fit_the_tables() -> None:
    """
    Each INSERT of the page names only columns that exist, and the three that are required.
    """
    columns = {column.name for column in tables().outbox.columns}
    inserts = re.findall(r"INSERT INTO outbox \(([^)]*)\)", page("table.md"))
    named = [{name.strip(" `\n") for name in insert.split(",")} for insert in inserts]

    assert len(named) >= 3
    assert all({"event_name", "topic", "payload"} <= names <= columns for names in named)
