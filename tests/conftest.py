"""
What every test may use: the real services, and the rule that `make test` skips nothing.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

pytest_plugins = ["tests.services.fixtures", "tests.services.wheel"]

NO_SKIPS = "OUTBOX_RELAY_NO_SKIPS"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """
    Turn a skip into a failure when OUTBOX_RELAY_NO_SKIPS=1: a run that skips proves nothing.
    """
    report = yield
    if report.skipped and os.environ.get(NO_SKIPS) == "1" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{NO_SKIPS}=1 and this test was skipped: {reason}"
    return report
