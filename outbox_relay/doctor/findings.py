"""What `doctor` says: findings, what could not be looked at, and how bad it is in all."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Literal

PAGE = "guide/doctor.md"
"""Where each finding has its section, in the documentation."""


class Severity(IntEnum):
    """How bad it is. The worst one decides how the command ends."""

    OK = 0
    """Nothing was found."""

    NOTE = 1
    """Worth knowing; nothing is at risk now."""

    WARNING = 2
    """Something is at risk, or will be when the next thing fails."""

    ERROR = 3
    """Events do not flow, or can be lost, now."""

    @property
    def word(self) -> str:
        """As it is written."""
        return self.name.lower()


class Area(StrEnum):
    """What a check is about, in the order in which it is shown."""

    CONFIGURATION = "configuration"
    DATABASE = "database"
    BROKER = "broker"
    RELAY = "relay"
    WAKE = "wake"


@dataclass(frozen=True, slots=True)
class Command:
    """Something to run or to write, word for word: SQL, a shell's line, or settings as TOML."""

    kind: Literal["sql", "shell", "toml"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """
    One thing that is not as it should be.

    `what` is what was seen, `why` what it may cost, `mend` what to do; `commands` are the exact
    statements or settings for that, where they can be named.
    """

    code: str
    area: Area
    severity: Severity
    what: str
    why: str
    mend: str
    commands: tuple[Command, ...] = ()

    @property
    def docs(self) -> str:
        """Its section in the documentation."""
        return f"{PAGE}#{self.code}"

    def as_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "code": self.code,
            "area": str(self.area),
            "severity": self.severity.word,
            "what": self.what,
            "why": self.why,
            "mend": self.mend,
            "commands": [dataclasses.asdict(command) for command in self.commands],
            "docs": self.docs,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """What could not be looked at, and what that needs. It is no finding: nobody knows."""

    area: Area
    what: str
    needs: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All that was found, worst first within each area."""

    findings: tuple[Finding, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    areas: tuple[Area, ...] = tuple(Area)
    facts: dict[Area, str] = field(default_factory=dict)
    """One line for each area about what was looked at, such as the version of a server."""

    unseen: frozenset[Area] = frozenset()
    """Areas of which nothing could be looked at, since another one is away."""

    @property
    def severity(self) -> Severity:
        """The worst there is. Where an area could not be seen, nobody may call it well."""
        least = Severity.WARNING if self.unseen else Severity.OK
        return max((least, *(finding.severity for finding in self.findings)))

    def of(self, area: Area) -> tuple[Finding, ...]:
        """The findings of one area."""
        return tuple(finding for finding in self.findings if finding.area == area)

    def severity_of(self, area: Area) -> Severity:
        """The worst of one area."""
        return max((finding.severity for finding in self.of(area)), default=Severity.OK)

    def word_of(self, area: Area) -> str:
        """How one area is, in a word; `unknown` where nobody could look."""
        return "unknown" if area in self.unseen else self.severity_of(area).word

    @property
    def codes(self) -> frozenset[str]:
        """Which kinds of things were found."""
        return frozenset(finding.code for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "severity": self.severity.word,
            "areas": {
                str(area): {
                    "severity": self.word_of(area),
                    "looked_at": self.facts.get(area, ""),
                }
                for area in self.areas
            },
            "findings": [finding.as_json() for finding in self.findings],
            "skipped": [
                {"area": str(item.area), "what": item.what, "needs": item.needs}
                for item in self.skipped
            ],
        }


def in_order(findings: list[Finding]) -> tuple[Finding, ...]:
    """By area, the worst first."""
    places = list(Area)
    return tuple(
        sorted(findings, key=lambda item: (places.index(item.area), -item.severity, item.code))
    )


def sql(*statements: str) -> tuple[Command, ...]:
    """Commands for the database."""
    return tuple(Command("sql", statement) for statement in statements)


def shell(*lines: str) -> tuple[Command, ...]:
    """Commands for a shell."""
    return tuple(Command("shell", line) for line in lines)


def toml(*lines: str) -> tuple[Command, ...]:
    """Settings of the relay."""
    return tuple(Command("toml", line) for line in lines)
