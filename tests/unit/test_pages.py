"""
How the tests read the pages: `tests/pages.py`, and the reader of `tests/newcomer`.
"""

from __future__ import annotations

import doctest
import os

import pytest

from tests import pages
from tests.newcomer.__main__ import PAGES
from tests.newcomer.terminal import Terminal
from tests.newcomer.walk import PageError, Reader
from tests.pages import Block, blocks


@pytest.fixture
def walk(tmp_path, monkeypatch):
    """Walks a page of this text."""
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with Terminal(tmp_path, scratch=scratch, environment=os.environ) as terminal:
        told: list[str] = []
        reader = Reader(terminal=terminal, moved={"there": "here"}, administer=told.append)

        def walked(text, **apart):
            (tmp_path / "page.md").write_text(text)
            return [(step.command, step.output) for step in reader.walk("page.md", apart=apart)]

        walked.told = told
        yield walked


def test_a_terminal_keeps_folder_variables_and_jobs(walk):
    """
    What a block sets, the next one has; a job goes on behind the commands.
    """
    steps = walk(
        "```sh\nmkdir a; cd a\nexport X=over\nsleep 100 &\n```\n"
        "```python\n# b.txt\n```\n```sh\nls; echo $X\nkill %sleep; wait\n```\n"
    )

    assert [output for command, output in steps if command.startswith("ls")] == ["b.txt\nover\n"]


def test_a_command_ends_as_the_page_says(walk):
    """
    With 0, or with the exit code that the prose names; anything else ends the walk and is told.
    """
    assert walk("```sh\nfalse\n```\n\n`false` ends with exit code 1.\n")
    with pytest.raises(PageError, match=r"page.md:3: ls no_such\nexit code 2"):
        walk("A\n\n```sh\nls no_such\n```\n")
    with pytest.raises(PageError, match="exit code 0"):
        walk("```sh\ntrue\n```\n`true` ends with exit code 1.\n")
    with pytest.raises(EOFError, match="ended the shell"):
        walk("```sh\nexit 0\n```\n")


def test_a_command_that_hangs_is_told(tmp_path):
    """
    The walk does not wait for it for ever.
    """
    with (
        Terminal(
            tmp_path, scratch=tmp_path, environment=os.environ, longest_seconds=0.5
        ) as terminal,
        pytest.raises(TimeoutError, match=r"sleep 1001: still runs after 0.5 s"),
    ):
        terminal.run("sleep 1001")


def test_a_block_prints_what_the_page_says(walk):
    """
    "It prints `...`" below a block is held against it.
    """
    assert walk("```sh\necho one\n```\n\nIt prints `one`.\n")
    with pytest.raises(PageError, match="does not print two, but\none"):
        walk("```sh\necho one\n```\n\nIt prints `two`.\n")


def test_addresses_are_moved_and_sql_is_the_administrators(walk):
    """
    The servers of a test are not where the page has them.
    """
    steps = walk("```sh\necho there\n```\n```sql\nSELECT 1;\n```\n")

    assert steps[0] == ("echo there", "here\n")
    assert walk.told == ["SELECT 1;\n"]


def test_nothing_is_left_out_in_silence(walk):
    """
    A block that nobody knows what to do with, and an exception for a block that is not there, are errors.
    """
    with pytest.raises(PageError, match="what is a reader to do with this python"):
        walk("```python\nimport this\n```\n")
    with pytest.raises(PageError, match="no block begins with"):
        walk("```sh\ntrue\n```\n", false="why")


def test_what_the_walk_leaves_out_is_there():
    """
    Each exception of `make newcomer` is a block of its page.
    """
    for page, apart in PAGES.items():
        for start in apart:
            assert [block for block in blocks(page) if block.text.startswith(start)], (page, start)


@pytest.mark.parametrize("page", PAGES)
def test_no_comment_stands_behind_a_command(page):
    """
    zsh, which many terminals have, would take it for arguments.
    """
    walked = [
        block for block in blocks(page, "sh") if not block.text.startswith(tuple(PAGES[page]))
    ]

    assert [command for block in walked for command in block.commands() if " #" in command] == []


def test_commands_are_lines_or_several_that_go_on():
    """
    A comment alone is none.
    """
    block = Block(language="sh", text="# why\nls a \\\n   b\n\nls c  # d\n")

    assert list(block.commands()) == ["ls a \\\n   b", "ls c  # d"]


def test_the_examples_run():
    """
    What a docstring shows is so.
    """
    found = doctest.testmod(pages)

    assert found.attempted > 0
    assert found.failed == 0
