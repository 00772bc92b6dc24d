"""
`make ws-handlers` lists the packages; `make new-ws-handler NAME=rate_book ROLES="rate-book"` adds one.

    python -m examples.bookstore.ws.tool list
    python -m examples.bookstore.ws.tool new rate_book --roles rate-book
"""

from __future__ import annotations

import argparse
import keyword
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Final

from examples.bookstore.ws.router import PackageRouter, load_handlers

HERE: Final = Path(__file__).parent
FIRST_BROADCAST: Final = 101
_MEMBER: Final = re.compile(r"^    ([A-Z][A-Z0-9_]*) = (\d+)$")


class Refused(Exception):
    """Nothing was written; the text says why."""


def table(router: PackageRouter) -> str:
    """One line for each package: its number, its name, the roles it asks for, schema and handler."""
    rows = [("pkg_id", "name", "roles", "schema", "handler")]
    for one in router.registrations():
        rows.append(
            (
                str(one.pkg_id.value),
                one.pkg_id.name,
                ", ".join(one.roles) or "(anybody)",
                _name_of(one.json_schema),
                f"{one.handler.__module__.rpartition('.')[2]}.{one.handler.__name__}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in rows]  # noqa: B905 - as many cells as columns
    return "\n".join(line.rstrip() for line in lines)


def new_handler(name: str, roles: Sequence[str], *, folder: Path = HERE) -> Path:
    """
    Write a handler for a new package *name* and give the package a number. The new file.

    Raises Refused, with nothing written, if the name is no name or is taken.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise Refused(f"{name!r} is no name for a handler: say one such as rate_book")
    for role in roles:
        if not re.fullmatch(r"[a-z][a-z0-9-]*", role):
            raise Refused(f"{role!r} is no role: say one such as rate-book")
    file = folder / "handlers" / f"{name}_handler.py"
    constants = folder / "constants.py"
    text = constants.read_text()
    constant = name.upper()
    if file.exists() or re.search(rf"^    {constant} = ", text, re.MULTILINE):
        raise Refused(f"{constant} is there already: choose another name")
    numbered = _with_member(text, constant)
    written = Template((folder / "handler.py.template").read_text()).substitute(
        name=name,
        constant=constant,
        schema="".join(part.title() for part in name.split("_")),
        roles=", ".join(f'"{role}"' for role in roles),
    )
    file.write_text(written)
    constants.write_text(numbered)
    return file


def _with_member(text: str, constant: str) -> str:
    lines = text.splitlines(keepends=True)
    start = lines.index("class PkgID(IntEnum):\n")
    members = [
        (int(found[2]), index)
        for index, line in enumerate(lines)
        if index > start and (found := _MEMBER.match(line.rstrip("\n")))
    ]
    requests = _first_run(members)
    number, last = requests[-1]
    if number + 1 >= FIRST_BROADCAST:
        raise Refused(f"the numbers below {FIRST_BROADCAST} are all given out")
    lines.insert(last + 1, f"    {constant} = {number + 1}\n")
    return "".join(lines)


def _first_run(members: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Up to the first broadcast: those that clients may ask for."""
    run: list[tuple[int, int]] = []
    for number, index in members:
        if number >= FIRST_BROADCAST:
            break
        run.append((number, index))
    return run


def _name_of(schema: type | Mapping[str, object] | None) -> str:
    if schema is None:
        return "-"
    return schema.__name__ if isinstance(schema, type) else str(schema.get("title", "JSON Schema"))


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 1 with the reason on standard error."""
    parser = argparse.ArgumentParser(prog="python -m examples.bookstore.ws.tool")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="every package with its roles, schema and handler")
    new = verbs.add_parser("new", help="a handler from the template")
    new.add_argument("name", nargs="?", default="", help="such as rate_book; asked for if left out")
    new.add_argument("--roles", nargs="*", default=None, help="the caller must have all of them")
    said = parser.parse_args(arguments)
    if said.verb == "list":
        sys.stdout.write(table(load_handlers()) + "\n")
        return 0
    try:
        asked = not said.name
        name = said.name or input("name, such as rate_book: ").strip()
        roles = said.roles
        if roles is None:
            roles = input("roles, such as rate-book; none for anybody: ").split() if asked else []
        file = new_handler(name, roles)
    except (Refused, EOFError) as error:
        text = str(error) if isinstance(error, Refused) else "\nno name was given: NAME=rate_book"
        sys.stderr.write(f"{text}\n")
        return 1
    sys.stdout.write(f"{file.relative_to(Path.cwd())} is written; {name.upper()} has its number\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
