"""The pictures of docs/guide/dashboard.md: `python -m tests.dashboard.screenshots`."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.dashboard.relay import TOKEN, RelayWithDashboard, relay_with_dashboard
from tests.services.chromium import chromium

IMAGES = Path(__file__).parents[2] / "docs" / "images"
PICTURES = (
    ("dashboard-overview", "/", 1280, "light"),
    ("dashboard-dead-letters-dark", "/dead-letters", 1280, "dark"),
    ("dashboard-phone", "/", 390, "light"),
)
LOAD_SECONDS = 75


def load(relay: RelayWithDashboard) -> None:
    """What the pictures show: some minutes of a shop."""
    for _ in range(4):
        relay.write_unreadable()
    relay.execute(
        "INSERT INTO outbox_control (topic, reason) VALUES ('parcels', 'carrier is down')"
    )
    relay.write(3, topic="parcels")
    until = time.monotonic() + LOAD_SECONDS
    seed = 0
    while time.monotonic() < until:
        seed += 1
        relay.write(20 + 15 * (seed % 7), seed=seed)
        time.sleep(0.5)


def main() -> int:
    """Take them."""
    IMAGES.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        relay_with_dashboard(Path(folder)) as relay,
        chromium() as browser,
    ):
        load(relay)
        for name, path, width, scheme in PICTURES:
            context = browser.new_context(
                viewport={"width": width, "height": 800}, color_scheme=scheme
            )
            page = context.new_page()
            page.goto(f"{relay.address}/login?next={path}")
            page.get_by_label("Token").fill(TOKEN)
            page.get_by_role("button", name="Log in").click()
            page.get_by_role("navigation").wait_for()
            page.screenshot(path=IMAGES / f"{name}.png", full_page=True)
            context.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
