"""
docs/guide/brokers.md speaks of what is there.
"""

from __future__ import annotations

import json
import tomllib
import typing
from pathlib import Path

import pytest

from outbox_relay.brokers.jsonl import line_of
from outbox_relay.brokers.options import BrokerOptions
from outbox_relay.config import load_config
from outbox_relay.errors import ConfigError
from outbox_relay.testing import record
from tests.pages import texts

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "brokers.md"
TEXT = GUIDE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "block", texts(GUIDE, "toml"), ids=lambda text: tomllib.loads(text)["broker"]["kind"]
)
def test_each_configuration_is_one(block: str, tmp_path: Path) -> None:
    """
    But for files and folders that are not on this machine.
    """
    path = tmp_path / "config.toml"
    path.write_text('[database]\nurl = "mysql+asyncmy://ob@db/shop"\n' + block)
    try:
        load_config(path, {})
        found = []
    except ConfigError as error:
        found = error.problems
    absent = ("there is no such file", "its folder is not there")

    assert [line for line in found if not any(text in line for text in absent)] == []


def test_every_kind_has_its_row_and_its_example() -> None:
    """
    Kafka's is in the README.
    """
    kinds = typing.get_args(typing.get_type_hints(BrokerOptions)["kind"])
    shown = {tomllib.loads(block)["broker"]["kind"] for block in texts(GUIDE, "toml")}

    assert all(f"| `{kind}`" in TEXT for kind in kinds)
    assert shown == set(kinds) - {"kafka"}


def test_the_line_has_the_members_that_are_shown() -> None:
    """
    In their order.
    """
    [shown] = [json.loads(block) for block in texts(GUIDE, "json")]

    assert list(json.loads(line_of("t", record(b"k", b"{}")))) == list(shown)


def test_the_code_runs() -> None:
    """
    Nothing is connected yet.
    """
    [code] = texts(GUIDE, "python")

    exec(compile(code, "brokers.md", "exec"), {})
