"""
What is wrong, why it matters, and the command that mends it.

Three steps, each in its own folder: `look` gathers facts and changes nothing, `rules` decide from the
facts and are pure, `catalogue` says what each finding means. `examine` joins them; the command line and
the dashboard print what it returns.
"""

from __future__ import annotations

from outbox_relay.doctor.examine import examine, invalid
from outbox_relay.doctor.findings import Area, Command, Finding, Findings, Severity, Skipped

__all__ = [
    "Area",
    "Command",
    "Finding",
    "Findings",
    "Severity",
    "Skipped",
    "examine",
    "invalid",
]
