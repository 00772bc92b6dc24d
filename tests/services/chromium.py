"""
A real browser: Debian's Chromium, driven by Playwright.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.services.process import MissingPartError

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Nothing of its own goes out, and it runs as root in a container.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find_chromium() -> str:
    """The path of the browser."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        raise MissingPartError(
            "chromium is not installed; run: python -m tests.services.install "
            "(or: apt-get install chromium)"
        )
    return found


@contextmanager
def chromium() -> Iterator[Browser]:
    """One that is running, without a window."""
    from playwright.sync_api import sync_playwright

    program = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()
