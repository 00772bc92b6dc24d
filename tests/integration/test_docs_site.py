"""
The site that `make docs` builds from docs/: whole, without a warning, and readable without internet.
"""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SPHINX = ["-m", "sphinx", "-q", "-W", "--keep-going", "-E"]
SIDEBAR = re.compile(r'<div class="sidebar-tree">(.*?)</div>', flags=re.DOTALL)
ENTRY = re.compile(r'<a class="reference internal" href="([^"#]+)\.html">')
FETCHED = re.compile(
    r"""<(?:script|img|link|iframe|source)\b[^>]*\b(?:src|href)=["'](?:https?:)?//[^"']*"""
    r"""|@import[^;]*//[^;]*|url\(["']?(?:https?:)?//[^)]*""",
)


def build(source: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build *source* with the settings of docs/, as `make docs` does."""
    command = [
        sys.executable,
        *SPHINX,
        "-c",
        str(DOCS),
        "-d",
        f"{site}-read",
        str(source),
        str(site),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site of all pages."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    built = build(DOCS, folder)

    assert (built.returncode, built.stderr) == (0, "")
    return folder


def test_make_docs_builds_as_strictly():
    """
    What passes here passes there.
    """
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert f"$(BIN)/python {' '.join(SPHINX)} -d build/docs-read docs build/docs" in makefile


def test_the_site_holds_every_page_in_the_order_of_the_index(site):
    """
    The pages are all there, the entrance is index.html, and the sidebar follows docs/README.md.
    """
    conf = runpy.run_path(str(DOCS / "conf.py"))
    listed = [
        page
        for _, pages in conf["groups"]((DOCS / "README.md").read_text(encoding="utf-8"))
        for page in pages
    ]
    pages = {str(page.relative_to(DOCS).with_suffix("")) for page in DOCS.rglob("*.md")}
    [sidebar] = SIDEBAR.findall((site / "index.html").read_text(encoding="utf-8"))

    assert ENTRY.findall(sidebar) == listed
    assert sorted(listed) == sorted(pages - {"README"})
    assert [page for page in pages if not (site / f"{page}.html").is_file()] == []


def test_the_site_needs_no_internet(site):
    """
    No page and no style sheet fetches a script, a font, a style or a picture from elsewhere.
    """
    files = [path for path in site.rglob("*") if path.suffix in (".html", ".css")]

    assert len(files) > 50
    assert {
        path.name: FETCHED.findall(text)
        for path in files
        if FETCHED.search(text := path.read_text(encoding="utf-8"))
    } == {}


def test_what_is_broken_is_told(tmp_path):
    """
    A link to a page, an anchor, a file or a picture that is not there, and a page that the index leaves out, each
    end the build; a link to a file outside docs does not.
    """
    docs = tmp_path / "docs"
    docs.mkdir()
    (tmp_path / "outside.md").write_text("# Outside\n")
    (tmp_path / "outside.toml").write_text("")
    (docs / "README.md").write_text("# Index\n\n## Pages\n\n- [Page](page.md): a page.\n")
    (docs / "left_out.md").write_text("# Left out\n")
    (docs / "page.md").write_text(
        "# Page\n\n[a](#page) [b](../outside.md#there) [c](../outside.toml) [d](no_page.md) [e](#no_anchor)\n"
        "[f](README.md#no_section) [g](../no_file.md) [h](../no_file.toml) ![i](no_picture.svg)\n"
    )

    built = build(docs, tmp_path / "site")

    assert built.returncode != 0
    told = (
        "left_out.md",
        "no_page",
        "no_anchor",
        "no_section",
        "no_file.md",
        "no_file.toml",
        "no_picture",
    )
    assert [name for name in told if name not in built.stderr] == []
    assert "outside" not in built.stderr
