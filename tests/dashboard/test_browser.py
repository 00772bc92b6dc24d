"""
The dashboard in a real browser, beside a relay at work.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.dashboard.relay import TOKEN, RelayWithDashboard, relay_with_dashboard
from tests.services.chromium import chromium

PAGES = (
    "/",
    "/topics",
    "/events",
    "/events/1",
    "/events/1?payload=show",
    "/dead-letters",
    "/doctor",
)
WIDTHS = (360, 768, 1280, 1920)
WAIT_MS = 20_000
TWO_NEW_PARTS = """() => new Promise((done) => {
    const stream = new EventSource("/live?page=overview");
    let parts = 0;
    stream.addEventListener("overview", () => {
        if (++parts === 2) {
            stream.close();
            done();
        }
    });
})"""
"""Resolves when the overview has changed once more since it was asked."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def relay(tmp_path_factory) -> Iterator[RelayWithDashboard]:
    with relay_with_dashboard(tmp_path_factory.mktemp("dashboard")) as relay:
        relay.write(40)
        for _ in range(3):
            relay.write_unreadable()
        relay.execute("INSERT INTO outbox_control (topic, reason) VALUES ('held', 'an upgrade')")
        relay.write(topic="held")
        yield relay


@pytest.fixture
def visit(browser, relay) -> Iterator[Any]:
    """Opens pages, logged in; each must be whole: nothing from elsewhere, no error in its console."""
    contexts = []
    wrong: list[str] = []

    def open_(path: str = "/", **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on(
            "request",
            lambda asked: None if asked.url.startswith(relay.address) else wrong.append(asked.url),
        )
        page.goto(relay.address + "/login?next=" + path)
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("navigation").wait_for()
        return page

    yield open_
    for context in contexts:
        context.close()
    assert wrong == []


def test_it_is_live(visit, relay):
    """
    What is published appears on the page by itself.
    """
    page = visit()
    expect(page.get_by_role("status")).to_contain_text("Events flow")
    relay.write(30, topic="invoices")

    expect(page.get_by_role("region", name="Busiest topics")).to_contain_text(
        "invoices", timeout=WAIT_MS
    )


def test_it_says_when_it_is_not_live(browser, tmp_path):
    """
    A relay that is gone leaves no page that looks well.
    """
    with relay_with_dashboard(tmp_path, token=False) as relay:
        page = browser.new_page()
        page.goto(relay.address)
        quiet = page.get_by_text("This page is not live any more")
        expect(quiet).to_be_hidden()
        relay.kill()
        expect(quiet).to_be_visible(timeout=WAIT_MS)
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible(visit, relay, scheme):
    """
    axe-core finds nothing: names, contrast, headings, tables, forms, regions.
    """
    page = visit(color_scheme=scheme)
    for path in PAGES:
        page.goto(relay.address + path)
        found = Axe().run(page)
        assert found.violations_count == 0, f"{path}: {found.generate_report()}"


@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_from_phone_to_wide_screen(visit, relay, width):
    """
    No page is wider than its window; wide tables scroll inside.
    """
    page = visit(viewport={"width": width, "height": 800})
    for path in PAGES:
        page.goto(relay.address + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_it_works_without_a_script(visit, relay):
    """
    Each page is whole as it comes; a form needs none.
    """
    page = visit(java_script_enabled=False)
    page.get_by_role("link", name="Topics").click()
    page.get_by_label("Topic", exact=True).fill("letters")
    page.get_by_label("Why").fill("a test")
    page.get_by_role("button", name="Pause the topic").click()
    expect(page.get_by_role("alert")).to_have_text("Topic letters is paused.")
    page.get_by_role("button", name="Resume letters").click()
    expect(page.get_by_role("alert")).to_have_text("Topic letters is resumed.")


def test_a_paused_topic_waits_and_goes_on(visit, relay):
    """
    I4. The relay follows the page.
    """
    page = visit("/topics")
    page.get_by_label("Topic", exact=True).fill("parcels")
    page.get_by_role("button", name="Pause the topic").click()
    expect(page.get_by_role("alert")).to_be_visible()
    relay.wait_for("operator_paused", topics=["held", "parcels"])
    relay.write(topic="parcels")
    relay.write(topic="witness")
    page.goto(relay.address + "/events?topic=witness&status=produced")
    wait_for_row(page)
    page.goto(relay.address + "/events?topic=parcels&status=pending")
    expect(page.get_by_role("row")).to_have_count(2)

    page.goto(relay.address + "/topics")
    page.get_by_role("button", name="Resume parcels").click()
    page.goto(relay.address + "/events?topic=parcels&status=produced")
    wait_for_row(page)


def wait_for_row(page: Page) -> None:
    """Load the page again until its table has a row."""
    page.wait_for_function(
        "() => document.querySelector('tbody tr') || (setTimeout(() => location.reload(), 300), false)",
        polling=1000,
        timeout=WAIT_MS,
    )


def test_a_dead_letter_by_keyboard_alone(visit, relay):
    """
    Found, looked at, requeued after it was mended, and published: no mouse.
    """
    row = relay.write_unreadable("by-keyboard")
    page = visit("/dead-letters?topic=by-keyboard")
    wait_for_row(page)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    focus(page, f"Choose row {row}")
    page.keyboard.press("Space")
    relay.execute(f"UPDATE outbox SET payload = '{{}}', codec = 0 WHERE id = {row}")
    focus(page, "Requeue …")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Requeue 1 dead letter?")
    focus(page, "Requeue 1")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("1 dead letter requeued.")

    page.goto(relay.address + "/events?topic=by-keyboard&status=produced")
    wait_for_row(page)


def focus(page: Page, name: str) -> None:
    """Press Tab until the control called *name* has the focus."""
    named = """() => {
        const at = document.activeElement;
        return at.getAttribute("aria-label") || at.innerText || "";
    }"""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(named).strip() == name:
            return
    raise AssertionError(f"{name!r} is not reached by the keyboard")


def test_a_discard_asks_twice(visit, relay):
    """
    The button on the question does nothing until the box is ticked.
    """
    row = relay.write_unreadable("to-discard")
    page = visit("/dead-letters?topic=to-discard")
    wait_for_row(page)
    page.get_by_role("link", name=str(row), exact=True).click()
    page.get_by_role("button", name="Discard …").click()
    page.get_by_role("button", name="Discard 1").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Discard 1 dead letter?")
    assert relay.execute(f"SELECT status FROM outbox WHERE id = {row}") == [(2,)]

    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Discard 1").click()
    expect(page.get_by_role("alert")).to_have_text("1 dead letter discarded.")
    assert relay.execute(f"SELECT status FROM outbox WHERE id = {row}") == []


def test_what_is_read_is_not_thrown_out(visit, relay):
    """
    A part of the page with the focus in it is not replaced under the reader.
    """
    page = visit()
    link = page.get_by_role("link", name="Dead letters", exact=True).last
    link.focus()
    relay.write(20, topic="others")
    page.evaluate(TWO_NEW_PARTS)

    expect(link).to_be_focused()
