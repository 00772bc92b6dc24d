"""
The charts of `docs/benchmarks.md`, drawn from the JSON of the runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.report import DATABASES, SECTIONS, Section, chart_name
from benchmarks.results import MEASURES, OURS, Case, Outcome, load

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",  # text stays text: small files, and a reader's own letters
    "svg.hashsalt": "outbox-relay",  # the same figures draw the same bytes
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
}
OUR_COLOR, OTHER_COLOR = "#1f6f8b", "#b0b7bd"
BACKGROUND: Final = "white"
WIDTH: Final = 9.0
BAR_HEIGHT: Final = 0.36
AROUND_HEIGHT: Final = 0.9
ROOM_FOR_NUMBERS: Final = 1.32


def draw(results: Path, folder: Path) -> list[Path]:
    """A chart for each result there is; the files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for section in SECTIONS:
        for database in DATABASES:
            path = results / f"{section.scenario}-{database}.json"
            if path.is_file():
                drawn.append(folder / chart_name(section.scenario, database))
                draw_one(section, load(path), drawn[-1])
    return drawn


def draw_one(section: Section, outcome: Outcome, path: Path) -> None:
    """Bars of the section's measures, one line a case, with the spread of the runs."""
    with mpl.rc_context(STYLE):
        height = AROUND_HEIGHT + BAR_HEIGHT * len(outcome.cases)
        figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor=BACKGROUND)
        axes = figure.subplots(1, len(section.chart), sharey=True, squeeze=False)[0]
        for place, measure in zip(axes, section.chart, strict=True):
            _bars(place, outcome.cases, measure)
        axes[0].set_yticks(range(len(outcome.cases)), [_label(case) for case in outcome.cases])
        axes[0].invert_yaxis()
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def _bars(axes: Axes, cases: list[Case], measure: str) -> None:
    medians = [case.median(measure) or 0.0 for case in cases]
    colors = [OUR_COLOR if case.system == OURS else OTHER_COLOR for case in cases]
    axes.barh(range(len(cases)), medians, color=colors, height=0.62)
    for line, case in enumerate(cases):
        values = case.values(measure)
        if not values:
            continue
        low, high = values[0], values[-1]
        axes.plot([low, high], [line, line], color="#333333", linewidth=1.0)
        text = MEASURES[measure].text(case.median(measure))
        axes.annotate(text, (high, line), xytext=(4, 0), textcoords="offset points", va="center")
    most = max((value for case in cases for value in case.values(measure)), default=1.0)
    axes.set_xlim(0, (most or 1.0) * ROOM_FOR_NUMBERS)
    axes.set_title(MEASURES[measure].title, loc="left", fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", colors="#666666")
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(4))
    axes.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,g}"))


def _label(case: Case) -> str:
    name = case.name if case.system == OURS else f"{case.system} {case.name}".strip()
    return f"{name}\n{case.rows:,} rows" if case.rows else name
