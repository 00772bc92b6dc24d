"""
Every search of the model, as a table: `python -m tests.model`. Exits 1 if one of them ends wrongly.
"""

from __future__ import annotations

import sys

from tests.model.search import LONG, QUICK, WRONG, Found, Search, search


def line(what: Search, found: Found) -> str:
    """A line of the table."""
    result = found.promise or found.broken or "nothing is broken"
    return f"| {what.name} | {found.states:,} | {found.depth:,} | {found.seconds:.1f} | {result} |"


def main() -> int:
    """Print the table; the exit code."""
    print("| search | states | longest path | seconds | result |\n|---|---|---|---|---|")
    wrong = 0
    for what in (*QUICK, *LONG, *WRONG):
        found = search(what)
        print(line(what, found), flush=True)
        wrong += not found.broken if what.wrong else not found.complete
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
