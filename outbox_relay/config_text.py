"""The settings as text: the example file, and each setting's own words."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from outbox_relay.config import SECTIONS, environment_name, setting_types
from outbox_relay.config_checks import requirement, shown

_HEAD = """\
# outbox-relay: every setting with its default.
#
# Needed are database.url and the address of the broker, such as kafka.bootstrap_servers. A file
# of your own holds these and whatever shall differ from here, and nothing else.
#
# A setting may also come from the environment, which wins over this file:
# [kafka] bootstrap_servers is OUTBOX_RELAY_KAFKA__BOOTSTRAP_SERVERS.
# `outbox-relay check-config` shows the result and where each value came from.
"""

EXAMPLES = {
    "database.url": "mysql+asyncmy://outbox:secret@localhost:3306/shop",
    "kafka.bootstrap_servers": "localhost:9092",
    "amqp.url": "amqp://outbox:secret@localhost:5672/",
    "redis.url": "redis://localhost:6379/0",
}
"""Values of the settings that have no default."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, as the documentation shows it."""

    key: str
    default: str
    kind: str
    text: str

    @property
    def environment(self) -> str:
        """The name of its environment variable."""
        return environment_name(self.key)


def settings() -> Iterator[Setting]:
    """Every setting, in the order of the sections."""
    for section, options in SECTIONS.items():
        texts = field_texts(options)
        for option in dataclasses.fields(options):
            key = f"{section}.{option.name}"
            kind = requirement(setting_types()[key])
            yield Setting(key, shown(key, option.default), kind, texts[option.name])


def field_texts(options: type[Any]) -> dict[str, str]:
    """The text below each field of the dataclass *options*."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(options))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for member, below in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
            match below:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    found[member.target.id] = inspect.cleandoc(text)
    return found


def example_toml() -> str:
    """The content of config.example.toml."""
    lines = [_HEAD]
    section = ""
    for setting in settings():
        name, _, option = setting.key.partition(".")
        if name != section:
            section = name
            lines += [f"[{section}]"]
        lines += textwrap.wrap(setting.text, 96, initial_indent="# ", subsequent_indent="# ")
        example = EXAMPLES.get(setting.key)
        lines += [f"{option} = {shown('', example) if example else setting.default}", ""]
    return "\n".join(lines)


def reference_table() -> str:
    """The tables of docs/reference/configuration.md, one for each section."""
    lines: list[str] = []
    section = ""
    for setting in settings():
        name = setting.key.partition(".")[0]
        if name != section:
            section = name
            lines += ["", f"## [{section}]", "", inspect.getdoc(SECTIONS[section]) or "", ""]
            lines += ["| setting | default | value | meaning |", "|---|---|---|---|"]
        lines.append(f"| `{setting.key}` | `{setting.default}` | {setting.kind} | {setting.text} |")
    return "\n".join(lines[1:]) + "\n"
