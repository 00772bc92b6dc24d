"""
A reader who has the pages and nothing else: does what each block says, in its order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tests.newcomer.terminal import Terminal
from tests.pages import Block, blocks


class PageError(Exception):
    """A page does not work as it is printed; the text says which block, and what it printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that a page says to do, and what came of it."""

    page: str
    command: str
    seconds: float
    output: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """
    *moved* are addresses of the pages that are others on this machine; *administer* runs SQL as the
    administrator of the database.
    """

    terminal: Terminal
    moved: Mapping[str, str]
    administer: Callable[[str], None]

    def walk(self, page: str, *, apart: Mapping[str, str]) -> Iterator[Step]:
        """
        Each step of *page* once it is done. *apart* are its blocks that are left out, by how they begin.

        Raises PageError at the first one that fails, or when nothing begins like one of *apart*.
        """
        unused = set(apart)
        for block in blocks(page):
            left_out = {start for start in apart if block.text.startswith(start)}
            unused -= left_out
            if not left_out:
                yield from self._do(page, block)
        if unused:
            raise PageError(f"{page}: no block begins with {sorted(unused)}")

    def _do(self, page: str, block: Block) -> Iterator[Step]:
        where = f"{page}:{block.line}"
        if block.language == "sql":
            self.administer(block.text)
            yield Step(page=page, command="(SQL, as the administrator)", seconds=0)
        elif block.file:
            (self.terminal.folder / block.file).write_text(self._here(block.text))
            yield Step(page=page, command=f"(the file {block.file})", seconds=0)
        elif block.language == "sh":
            yield from self._type(page, where, block)
        else:
            raise PageError(f"{where}: what is a reader to do with this {block.language}?")

    def _type(self, page: str, where: str, block: Block) -> Iterator[Step]:
        printed = ""
        for command in block.commands():
            done = self.terminal.run(self._here(command))
            printed += done.output
            if done.code != block.exit_code(command):
                raise PageError(f"{where}: {command}\nexit code {done.code}\n{done.output}")
            yield Step(page=page, command=command, seconds=done.seconds, output=done.output)
        for text in block.prints:
            if text not in printed:
                raise PageError(f"{where}: does not print {text}, but\n{printed}")

    def _here(self, text: str) -> str:
        for address, ours in self.moved.items():
            text = text.replace(address, ours)
        return text
