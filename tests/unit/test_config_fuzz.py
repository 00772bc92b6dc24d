"""
Whatever stands in the file, the environment and the flags: a configuration, or all that is wrong with it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from outbox_relay.config import (
    ENVIRONMENT_PREFIX,
    SECTIONS,
    Config,
    environment_name,
    load_config,
    setting_types,
)
from outbox_relay.config_checks import SECRETS
from outbox_relay.errors import ConfigError

CANARY = "c4n4ry"
GOOD = {
    "OUTBOX_RELAY_DATABASE__URL": "mysql+asyncmy://ob:ob@db/shop",
    "OUTBOX_RELAY_KAFKA__BOOTSTRAP_SERVERS": "kafka:9092",
}

KEYS = sorted(setting_types())
keys = (
    st.sampled_from(KEYS) | st.sampled_from(KEYS).map(lambda key: f"{key}x") | st.text(max_size=8)
)
texts = st.text(max_size=20) | st.sampled_from(
    [
        "",
        "\0",
        "\ud800",
        "true",
        "nan",
        "1e999",
        "-1",
        "9" * 5000,
        "[" * 50_000,
        '["a", 1]',
        "[1, null]",
        "{}",
        "mysql+asyncmy://h:p@[::1/x",
        "mysql+asyncmy://u:p@h:port/x",
        "postgresql+asyncpg://h/%zz?a=b&a=c",
        "sqlite+aiosqlite:////",
        "://",
    ]
)
# What TOML can say: each of these stands for itself.
literals = st.one_of(
    texts.map(json.dumps),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        [
            "true",
            "nan",
            "-inf",
            "1e999",
            "9" * 5000,
            "0x" + "f" * 300,
            "1979-05-27T07:32:00Z",
            "07:32:00",
            "[]",
            '["a", "b"]',
            "[[1], {}]",
            "{ a = 1 }",
            "[" * 5000 + "]" * 5000,
        ]
    ),
    st.text(max_size=8),
)
lines = st.one_of(
    st.builds("{} = {}".format, st.sampled_from(KEYS), literals),
    st.builds("{} = {}".format, keys.map(json.dumps), literals),
    st.builds("[{}]".format, st.sampled_from([*SECTIONS, "http.port", "what"])),
    st.text(max_size=12),
)
variables = st.dictionaries(
    keys.map(environment_name) | st.text(max_size=8).map(lambda name: ENVIRONMENT_PREFIX + name),
    texts,
    max_size=6,
)
flags = st.dictionaries(keys, texts, max_size=4)


def load(
    content: bytes | None, environ: Mapping[str, str], chosen: Mapping[str, str]
) -> Config | list[str]:
    """The settings, or what is wrong with them; anything else that is raised fails the test."""
    with tempfile.TemporaryDirectory() as folder:
        path = None if content is None else Path(folder) / "config.toml"
        if path is not None and content is not None:
            path.write_bytes(content)
        try:
            return load_config(path, environ, chosen)
        except ConfigError as error:
            return error.problems


def check(loaded: Config | list[str]) -> None:
    if not isinstance(loaded, Config):
        assert loaded
        assert [line for line in loaded if not isinstance(line, str) or not line] == []


@given(
    content=st.binary(max_size=60)
    | st.text(max_size=60).map(lambda t: t.encode("utf-8", "replace"))
)
@example(content=b"x = " + b"[" * 20_000)
@example(content=b"x = " + b"9" * 5000)
@example(content=b"[relay]\nchunk_rows = " + b"9" * 5000)
@example(content=b"\xff\xfe")
@example(content=b"\xef\xbb\xbf[relay]\n")
def test_any_bytes_are_a_configuration_or_say_why_not(content: bytes) -> None:
    """
    A file may hold anything: what is wrong is a line of text and no traceback.
    """
    check(load(content, GOOD, {}))


@given(rows=st.lists(lines, max_size=8))
def test_any_toml_is_a_configuration_or_says_why_not(rows: list[str]) -> None:
    """
    Also where it is TOML, with sections and keys that exist and values of any type.
    """
    check(load("\n".join(rows).encode("utf-8", "replace"), GOOD, {}))


@given(environ=variables, chosen=flags)
@example(environ={environment_name("database.password_command"): "[" * 100_000}, chosen={})
@example(environ={environment_name("relay.lease_seconds"): "9" * 5000}, chosen={})
@example(environ={environment_name("database.ssl_ca_file"): "\0"}, chosen={})
@example(environ={environment_name("database.ssl_ca_file"): "x" * 5000}, chosen={})
def test_any_environment_and_flags_are_a_configuration_or_say_why_not(
    environ: dict[str, str], chosen: dict[str, str]
) -> None:
    """
    The same for variables and flags, whose values are text.
    """
    check(load(None, GOOD | environ, chosen))


@given(
    key=st.sampled_from(sorted(SECRETS - {"database.url"})),
    before=st.text(max_size=5),
    after=st.text(max_size=5),
    origin=st.sampled_from(["file", "environment", "flag"]),
)
def test_whatever_is_wrong_with_a_secret_it_is_not_shown(
    key: str, before: str, after: str, origin: str
) -> None:
    """
    I11. Neither in what is wrong, nor in the configuration's text.
    """
    value = before + CANARY + after
    section, _, name = key.partition(".")
    content = f"[{section}]\n{name} = {json.dumps(value)}\n" if origin == "file" else ""
    environ = {environment_name(key): value} if origin == "environment" else {}
    loaded = load(
        content.encode("utf-8", "replace"), GOOD | environ, {key: value} if origin == "flag" else {}
    )

    assert CANARY not in (repr(loaded) if isinstance(loaded, Config) else "".join(loaded))


WRONG = {key: [1] for key in KEYS if setting_types()[key] in (int, float, bool, str)}


@given(
    chosen=st.sets(st.sampled_from(sorted(WRONG)), min_size=1), unknown=st.sets(st.integers(0, 99))
)
def test_everything_that_is_wrong_is_told_at_once(chosen: set[str], unknown: set[int]) -> None:
    """
    However many settings have a wrong type or an unknown name, each is named.
    """
    content: dict[str, list[str]] = {}
    for key in sorted(chosen):
        section, _, name = key.partition(".")
        content.setdefault(section, []).append(f"{name} = [1]")
    for number in sorted(unknown):
        content.setdefault("relay", []).append(f"unknown_{number} = 1")
    text = "\n".join(
        "\n".join([f"[{section}]", *settings]) for section, settings in content.items()
    )
    loaded = load(text.encode(), {}, {})

    assert isinstance(loaded, list)
    for key in chosen:
        assert any(f"{key} = " in line for line in loaded), key
    for number in unknown:
        assert any(f"relay.unknown_{number} is not a setting" in line for line in loaded)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """
    What cannot be read is named.
    """
    with pytest.raises(ConfigError) as raised:
        load_config(tmp_path, GOOD)

    assert "cannot be read" in raised.value.problems[0]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"database.url": "mysql+asyncmy://u:c4n4ry@x@h/shop"}, "more than one @"),
        ({"database.url": "mysql+asyncmy://u:c4n4ry@h:port/shop"}, "is not a URL"),
        (
            {"database.url": "mysql+asyncmy://u:c4n4ry@h/shop?ssl_ca=x", "database.ssl": "true"},
            "has ssl parameters besides database.ssl",
        ),
        ({"relay.max_active_relays": "65"}, "must be at most 64: there are as many lanes"),
    ],
)
def test_what_is_wrong_is_said_without_the_password(variables: dict[str, str], said: str) -> None:
    """
    I11. Each with the setting that is wrong, and what to do.
    """
    environ = {environment_name(key): value for key, value in variables.items()}
    loaded = load(None, GOOD | environ, {})

    assert isinstance(loaded, list)
    assert [line for line in loaded if said in line]
    assert CANARY not in "".join(loaded)
