"""
The benchmarks' arithmetic and their page: no figure that no run gave.
"""

from __future__ import annotations

import re

import pytest

from benchmarks.charts import draw
from benchmarks.orders import customer, number_and_customer, order_json
from benchmarks.report import CHARTS, PAGE, SECTIONS, page, table
from benchmarks.results import RESULTS, Case, Outcome, load
from benchmarks.topic import account


def record(number: int, *, partition: int = 0, stamp: int = 0) -> tuple[str, int, bytes, int]:
    """An order on a topic."""
    return "orders", partition, order_json(number), stamp


def same_customer(count: int) -> list[int]:
    """The first orders of one customer."""
    wanted = customer(0)
    return [n for n in range(50_000) if customer(n) == wanted][:count]


@pytest.fixture
def outcome() -> Outcome:
    """What a run found."""
    return Outcome(
        scenario="drain",
        command="python -m benchmarks drain",
        date="2026-01-02",
        seconds=3.0,
        machine={"cores": 2, "processor": "P", "memory_gb": 4, "system": "Linux"},
        versions={"outbox-relay": "1"},
        cases=[
            Case(
                name="mark",
                rows=1000,
                settings={"relay.retention_seconds": "0"},
                runs=[
                    {"rows_per_second": 30.0, "lost": 0},
                    {"rows_per_second": 1000.0, "lost": 2},
                    {"rows_per_second": 20.0, "lost": 0},
                ],
            ),
            Case(name="", system="other", runs=[{"lost": 0}]),
        ],
    )


def test_the_page_is_what_the_json_of_the_runs_gives():
    """
    docs/benchmarks.md holds no figure that benchmarks/results does not: `python -m benchmarks page`.
    """
    assert PAGE.read_text(encoding="utf-8") == page(RESULTS)


def test_the_page_names_charts_that_are_there():
    """
    Each result has its chart beside the page.
    """
    named = re.findall(r"\]\(benchmarks/([\w-]+\.svg)\)", PAGE.read_text(encoding="utf-8"))

    assert sorted(named) == sorted(path.name for path in CHARTS.glob("*.svg"))


def test_what_did_not_run_is_shown_as_not_run(tmp_path):
    """
    Without a result the page says so, with the command that would give it.
    """
    text = page(tmp_path)

    assert text.count("Not run: `python -m benchmarks ") == sum(len(s.databases) for s in SECTIONS)
    assert "python -m benchmarks drain --database postgresql" in text


def test_a_cell_is_the_median_with_the_spread_of_its_runs(outcome):
    """
    The smallest and the largest run stand beside the median; what a case did not measure is a dash.
    """
    lines = table(outcome).splitlines()

    assert lines[2:] == [
        "| outbox-relay: mark, 1,000 rows | 30 (20 to 1,000) | 0 (0 to 2) | `relay.retention_seconds = 0` |",
        "| other | – | 0 |  |",
    ]


def test_a_result_is_read_as_it_was_saved(outcome, tmp_path):
    """
    JSON holds all that the page needs.
    """
    assert load(outcome.save(tmp_path, "drain-mariadb")) == outcome


def test_a_result_shows_on_the_page_with_its_chart(outcome, tmp_path):
    """
    Table, chart, command, machine and versions come from the file.
    """
    outcome.save(tmp_path, "drain-mariadb")
    text = page(tmp_path)

    assert table(outcome) in text
    assert "![Drain on MariaDB](benchmarks/drain-mariadb.svg)" in text
    assert "`python -m benchmarks drain`, 2026-01-02" in text
    assert [path.name for path in draw(tmp_path, tmp_path / "charts")] == ["drain-mariadb.svg"]


def test_the_same_figures_draw_the_same_chart(outcome, tmp_path):
    """
    A chart changes only with its figures, so that a difference in the repository means something.
    """
    outcome.save(tmp_path, "drain-mariadb")
    (first,) = draw(tmp_path, tmp_path / "first")
    (second,) = draw(tmp_path, tmp_path / "second")

    assert first.read_bytes() == second.read_bytes()


def test_an_order_is_found_in_any_envelope():
    """
    The number and the key are in the text, whatever a system writes around it.
    """
    spaced = b'{"eventName": "x", "payload": ' + order_json(12) + b"}"
    tight = spaced.replace(b": ", b":").replace(b", ", b",")

    assert number_and_customer(spaced) == (12, customer(12).encode())
    assert number_and_customer(tight) == (12, customer(12).encode())


def test_the_account_of_a_topic_where_all_is_well():
    """
    Nothing is lost, doubled or inverted; the time goes from the first record to the last.
    """
    found = account([record(0, stamp=1000), record(1, stamp=3000)], 2)

    assert not any(found.fields().values())
    assert (found.seconds, found.rate()) == (2.0, 1.0)


def test_the_account_counts_what_is_lost_and_what_came_twice():
    """
    A second copy is no inversion, wherever it stands.
    """
    found = account([record(0), record(2), record(0)], 4)

    assert (found.lost, found.duplicated, found.inverted) == (2, 1, 0)


def test_the_account_counts_inversions_within_a_key():
    """
    Each order that comes after a later one of its customer counts; other customers do not.
    """
    first, second, third = same_customer(3)
    other = next(n for n in range(third) if customer(n) != customer(first))

    found = account([record(third), record(first), record(second), record(other)], third + 1)

    assert found.inverted == 2


def test_the_account_counts_keys_whose_order_no_consumer_sees():
    """
    A customer on two partitions has no order that a consumer could see.
    """
    first, second = same_customer(2)

    found = account([record(first, partition=0), record(second, partition=1)], second + 1)

    assert (found.inverted, found.split_customers) == (0, 1)
