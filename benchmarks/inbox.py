"""
What the inbox costs a consumer: a handler's transaction with it and without.
"""

from __future__ import annotations

from benchmarks.inbox_program import ALONE, DUPLICATE, INBOX, LATEST
from benchmarks.programs import Program
from benchmarks.results import Case
from benchmarks.servers import DatabaseServer


def measure(server: DatabaseServer, *, rows: int, runs: int) -> list[Case]:
    """The ways in turn, *runs* times, so that what else the machine does meets all of them."""
    cases = {
        way: Case(name=way, database=server.title, rows=rows)
        for way in (ALONE, INBOX, LATEST, DUPLICATE)
    }
    cases[ALONE].system = "SQLAlchemy"
    argument = {"url": server.create_database().async_url, "count": rows}
    with Program("benchmarks.inbox_program", argument) as handler:
        handler.answer()
        for run in range(runs + 1):
            for way, case in cases.items():
                handler.tell(way)
                answer = handler.answer(600)
                if run:  # the first one compiles the statements
                    case.runs.append(answer)
    for case in cases.values():
        for found, alone in zip(case.runs, cases[ALONE].runs, strict=True):
            if case is not cases[ALONE]:
                found["cpu_over_alone"] = found["client_cpu_us"] / alone["client_cpu_us"]
                found["time_over_alone"] = found["client_us"] / alone["client_us"]
    return list(cases.values())
