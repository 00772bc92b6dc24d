"""
Which releases of the libraries that carry the promises may be installed.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"

LEAST = {
    # CVE-2025-65896 (SQL injection) and rows of another query after a cancelled read, both mended in
    # 0.2.12; TLS that silently was none, in 0.2.14; connections that stay, up to 0.2.18.
    "asyncmy": (0, 2, 18),
    # Leader changes, and what Kafka 4 speaks.
    "aiokafka": (0, 14),
}


@pytest.mark.parametrize("name", LEAST)
def test_releases_that_lose_or_mix_up_rows_are_kept_away(name):
    """
    No feed of advisories names these holes, so no audit warns: the lower bound must.
    """
    needed = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    [bounds] = [line.removeprefix(name) for line in needed if line.startswith(f"{name}>")]
    least = bounds.partition(",")[0].removeprefix(">=")

    assert tuple(int(part) for part in least.split(".")) >= LEAST[name]
