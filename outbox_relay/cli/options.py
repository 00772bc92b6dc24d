"""The options that several verbs share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from outbox_relay.config import CONFIG_VARIABLE, Config, find_config, load_config
from outbox_relay.errors import ConfigError

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help=(
            f"Settings as TOML. Else ${CONFIG_VARIABLE}, ./config.toml, "
            "/etc/outbox-relay/config.toml, or the environment alone."
        ),
    ),
]

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="One setting, such as relay.stop_seconds=5. Wins over file and environment.",
    ),
]


def load(path: Path | None, flags: list[str] | None) -> Config:
    """The settings of file, environment and `--set`. Raises ConfigError."""
    chosen = {}
    for flag in flags or []:
        key, separator, value = flag.partition("=")
        if not separator:
            raise ConfigError(["--set: use KEY=VALUE, such as --set relay.stop_seconds=5"])
        chosen[key.strip()] = value
    return load_config(find_config(path, os.environ), os.environ, chosen)
