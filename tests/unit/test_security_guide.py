"""
docs/guide/security.md: its examples are settings that fit together, and code that runs.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from outbox_relay.config import load_config
from outbox_relay.errors import ConfigError
from tests.pages import texts

GUIDE = "docs/guide/security.md"
SETTINGS = texts(GUIDE, "toml")


@pytest.mark.parametrize("block", SETTINGS)
def test_the_guides_settings_fit_together(tmp_path: Path, block: str) -> None:
    """
    Nothing is wrong but that the example's secrets are not on this machine.
    """
    path = tmp_path / "config.toml"
    path.write_text(block)
    try:
        load_config(path, {})
        problems = []
    except ConfigError as error:
        problems = error.problems

    assert [line for line in problems if ": there is no such file" not in line] == []


def test_the_guides_token_function_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It returns the token as text.
    """
    (tmp_path / "token").write_text("a-token\n")
    monkeypatch.setenv("TOKEN_FILE", str(tmp_path / "token"))
    names: dict[str, object] = {}
    (block,) = texts(GUIDE, "python")
    exec(block, names)

    assert names["fetch"]() == "a-token"  # type: ignore[operator]
