"""
What every test may use: the real services, the rule that `make test` skips nothing, and the order.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

pytest_plugins = [
    "pytester",
    "tests.services.fixtures",
    "tests.services.kafka_cluster",
    "tests.services.secure",
    "tests.services.wheel",
]

# Without the prefix of the relay's settings: each relay that a test starts inherits the
# environment, and refuses to start over a variable with that prefix which is no setting.
NO_SKIPS = "NO_SKIPS"
SETTINGS_PREFIX = "OUTBOX_RELAY_"

# The folders whose tests last longest.
LONGEST_IN = ("acceptance", "bookstore", "faults", "model")


def pytest_configure() -> None:
    """Keep the settings of whoever runs the tests out of the relays that the tests start."""
    for name in [name for name in os.environ if name.startswith(SETTINGS_PREFIX)]:
        del os.environ[name]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Long tests come first: with two workers, one that began last would keep the other idle for its minute.
    """
    items.sort(key=lambda item: item.path.parent.name not in LONGEST_IN)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """
    Turn a skip into a failure when NO_SKIPS=1: a run that skips proves nothing.
    """
    report = yield
    if report.skipped and os.environ.get(NO_SKIPS) == "1" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{NO_SKIPS}=1 and this test was skipped: {reason}"
    return report
