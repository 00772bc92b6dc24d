"""
The blocks of a page: what its reader copies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"# (\S+\.\w+)\n")
_PRINTS = re.compile(r"\b[Ii]t prints `([^`]+)`")
_CODE = re.compile(r"`([^`]+)` ends with exit code (\d+)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Text between two fences, and the *prose* below it. *line* is that of its fence, from 1."""

    language: str
    text: str
    line: int = 1
    prose: str = ""

    @property
    def file(self) -> str | None:
        """The file that it is, where its first line names one."""
        found = _FILE.match(self.text)
        return found[1] if found else None

    @property
    def prints(self) -> list[str]:
        """What the prose says that it prints: "It prints `...`"."""
        return _PRINTS.findall(self.prose)

    def exit_code(self, command: str) -> int:
        """What the prose says of a command: "`...` ends with exit code 1". Else 0."""
        return int(dict(_CODE.findall(self.prose)).get(command, 0))

    def commands(self) -> Iterator[str]:
        """
        Its commands, each as it is printed: a line, or several that end in a backslash.

        >>> list(Block(language="sh", text="# why\\nls a \\\\\\n   b\\n\\nls c\\n").commands())
        ['ls a \\\\\\n   b', 'ls c']
        """
        for command in re.findall(r"(?:.*\\\n)*.*", self.text):
            if command.strip() and not command.startswith("#"):
                yield command


def blocks(page: str | Path, *languages: str) -> list[Block]:
    """The blocks of *page*, a path below the repository's root, in their order; all, or of *languages*."""
    return blocks_of((ROOT / page).read_text(encoding="utf-8"), *languages)


def blocks_of(text: str, *languages: str) -> list[Block]:
    """The same of a page's text, or of a part of it."""
    fences = list(_BLOCK.finditer(text))
    ends = [fence.start() for fence in fences[1:]] + [len(text)]
    found = [
        Block(
            language=fence[1],
            text=fence[2],
            line=text.count("\n", 0, fence.start()) + 1,
            prose=text[fence.end() : end],
        )
        for fence, end in zip(fences, ends, strict=True)
    ]
    return [block for block in found if not languages or block.language in languages]


def texts(page: str | Path, *languages: str) -> list[str]:
    """The blocks of *page* as text alone."""
    return [block.text for block in blocks(page, *languages)]
