"""
What a command costs that goes through a mediator, beside python-cqrs: one whose handler does nothing,
and one whose handler commits an event through the outbox.
"""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks.mediating import EMPTY, EMPTY_TIMES, WITH_EVENT
from benchmarks.programs import Program
from benchmarks.python_cqrs import NAME, fill, start_program
from benchmarks.results import Case
from benchmarks.servers import DatabaseServer

TOPIC = "bench-mediator"


def measure(server: DatabaseServer, *, rows: int, runs: int) -> list[Case]:
    """Ours and theirs in turn, *runs* times, so that what else the machine does meets both."""
    counts = {EMPTY: rows * EMPTY_TIMES, WITH_EVENT: rows}
    ours = {
        word: Case(name=word, database=server.title, rows=count) for word, count in counts.items()
    }
    theirs = {
        word: Case(name=word, system=NAME, database=server.title, rows=count)
        for word, count in counts.items()
    }
    with ExitStack() as stack:
        argument = {"topic": TOPIC, "count": rows}
        database = server.create_outbox()
        program = Program("benchmarks.mediator_program", {**argument, "url": database.async_url})
        our_program = stack.enter_context(program)
        our_program.answer()
        other = server.create_database()
        fill(other, TOPIC, 1)
        asked = {**argument, "url": other.async_url, "do": "mediate"}
        their_program = stack.enter_context(start_program(asked))
        for run in range(runs + 1):
            for word in counts:
                for side, sent in ((our_program, ours[word]), (their_program, theirs[word])):
                    side.tell(word)
                    answer = side.answer(600)
                    if run:  # the first one compiles the statements
                        sent.runs.append(answer)
    for word in counts:
        for found, beside in zip(ours[word].runs, theirs[word].runs, strict=True):
            found["cpu_to_theirs"] = found["client_cpu_us"] / beside["client_cpu_us"]
    return [case for word in counts for case in (ours[word], theirs[word])]
