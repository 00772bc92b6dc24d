"""
What an event costs its writer: a transaction with one event, beside a bare Core INSERT of the same row.
"""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks.insert_program import ADD, BARE, INSERT
from benchmarks.programs import Program
from benchmarks.python_cqrs import NAME, fill, start_program
from benchmarks.results import Case
from benchmarks.servers import DatabaseServer, Kind

TOPIC = "bench-insert"


def measure(server: DatabaseServer, *, rows: int, runs: int, beside: bool) -> list[Case]:
    """The ways in turn, *runs* times, so that what else the machine does meets all of them."""
    ours = {way: Case(name=way, database=server.title, rows=rows) for way in (BARE, ADD, INSERT)}
    theirs = Case(name="", system=NAME, database=server.title, rows=rows)
    ours[BARE].system = "SQLAlchemy"
    with ExitStack() as stack:
        database = server.create_outbox()
        argument = {"url": database.async_url, "topic": TOPIC, "count": rows}
        writer = stack.enter_context(Program("benchmarks.insert_program", argument))
        writer.answer()
        beside = beside and server.kind is Kind.MARIADB
        if beside:
            other = server.create_database()
            fill(other, TOPIC, 1)
            asked = {**argument, "url": other.async_url, "do": "insert"}
            their_writer = stack.enter_context(start_program(asked))
        for run in range(runs + 1):
            for way, case in ours.items():
                writer.tell(way)
                _keep(case, writer, run)
            if beside:
                their_writer.tell("go")
                _keep(theirs, their_writer, run)
    for case in ours.values():
        for found, bare in zip(case.runs, ours[BARE].runs, strict=True):
            if case is not ours[BARE]:
                found["over_bare_us"] = found["client_cpu_us"] - bare["client_cpu_us"]
    return [*ours.values(), *([theirs] if beside else [])]


def _keep(case: Case, writer: Program, run: int) -> None:
    answer = writer.answer(600)
    if run:  # the first one compiles the statements
        case.runs.append(answer)
