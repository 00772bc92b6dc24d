"""
The site of this folder: `make docs`. The pages are plain Markdown, as GitHub shows them; nothing here is
needed to read them there.

The navigation is made from README.md: a heading is a group, and the pages it lists come in that order.
"""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\]\(([^)\s:#]+)(#[^)\s]*)?\)")
LISTED = re.compile(r"^- \[[^]]+\]\(([^)\s:#]+)\.md\)", flags=re.MULTILINE)
HEADING = re.compile(r"^## (.+)$", flags=re.MULTILINE)

project = "outbox-relay"
release = version = runpy.run_path(str(ROOT / "outbox_relay" / "_version.py"))["__version__"]
root_doc = "README"
extensions = ["myst_parser"]
# Anchors as GitHub makes them, for headings of any depth: a link to one that is not there is a warning.
myst_heading_anchors = 6
nitpicky = True
# PostgreSQL's $$ is none of the words that the lexer for SQL knows. The block is shown all the same.
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_use_index = False


def groups(index: str) -> list[tuple[str, list[str]]]:
    """The headings of the index, each with the pages that its list names, without `.md`."""
    _, *parts = HEADING.split(index)
    return [
        (caption, LISTED.findall(body))
        for caption, body in zip(parts[::2], parts[1::2], strict=True)
    ]


def toctrees(index: str) -> str:
    """The navigation, in the words of MyST."""
    return "\n".join(
        "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```"])
        for caption, pages in groups(index)
        if pages
    )


def link_to_file(text: str, *, page: Path, docs: Path) -> str:
    """
    *text* with links to Markdown outside *docs* marked as links to a file, which the site takes along.

    Links to any other file outside are that already; a file that is not there is a warning either way.
    """

    def marked(link: re.Match[str]) -> str:
        target = (page.parent / link[1]).resolve()
        inside = target.is_relative_to(docs) or target.suffix != ".md"
        return link[0] if inside else f"](path:{link[1]})"

    return LINK.sub(marked, text)


def read(app: Sphinx, name: str, source: list[str]) -> None:
    """What Sphinx sees of a page."""
    docs = Path(app.srcdir).resolve()
    text = link_to_file(source[0], page=docs / f"{name}.md", docs=docs)
    source[0] = text + toctrees(text) + "\n" if name == root_doc else text


def name_the_entrance(app: Sphinx, error: Exception | None) -> None:
    """A browser that is given the folder opens index.html."""
    if error is None and app.builder.name == "html":
        shutil.copyfile(Path(app.outdir) / f"{root_doc}.html", Path(app.outdir) / "index.html")


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", read)
    app.connect("build-finished", name_the_entrance)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
