"""
The Helm chart: what its schema says of the relay's settings, and Helm itself.

`python -m tests.deploy.chart` writes the settings into values.schema.json anew.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from outbox_relay.config import SECTIONS, setting_types
from tests.services.process import MissingPartError

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "outbox-relay"
SCHEMA = CHART / "values.schema.json"
HELM = ROOT / ".cache" / "helm" / "helm"
KUBERNETES = "1.33.0"

SCALARS = {bool: "boolean", int: "integer", float: "number", str: "string"}
REFERENCE = {"$ref": "#/$defs/secret"}


def json_type(kind: Any) -> dict[str, Any]:
    """A setting's type as JSON schema has it."""
    if typing.get_origin(kind) is tuple:
        return {"type": "array", "items": {"type": "string"}}
    if typing.get_origin(kind) is typing.Literal:
        return {"enum": list(typing.get_args(kind))}
    return {"type": SCALARS[kind]}


def settings_schema() -> dict[str, Any]:
    """Sections and settings of config.toml."""
    sections: dict[str, Any] = {
        section: {"type": "object", "additionalProperties": False, "properties": {}}
        for section in SECTIONS
    }
    for key, kind in setting_types().items():
        section, name = key.split(".")
        sections[section]["properties"][name] = json_type(kind)
    return {"type": "object", "additionalProperties": False, "properties": sections}


def secrets_schema() -> dict[str, Any]:
    """Every setting that names a file of a secret."""
    files = {key: REFERENCE for key in setting_types() if key.endswith("_file")}
    return {"type": "object", "additionalProperties": False, "properties": files}


def schema_text() -> str:
    """values.schema.json with the settings of this release."""
    schema = json.loads(SCHEMA.read_text())
    schema["properties"]["config"] = settings_schema()
    schema["properties"]["secrets"] = secrets_schema()
    return json.dumps(schema, indent=2) + "\n"


def helm(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Helm, to its end."""
    program = str(HELM) if HELM.exists() else shutil.which("helm")
    if program is None:
        raise MissingPartError("helm is not installed; run: python -m tests.deploy.install")
    command = [program, *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def rendered(
    chart: Path, *values: Mapping[str, Any] | Path, folder: Path, more: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The objects that *chart* makes of *values*, as release `shop`."""
    done = template(chart, *values, folder=folder, more=more)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def template(
    chart: Path, *values: Mapping[str, Any] | Path, folder: Path, more: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """`helm template`, with *values* from files, the last one wins."""
    files = []
    for number, part in enumerate(values):
        path = part if isinstance(part, Path) else folder / f"values-{number}.yaml"
        if not isinstance(part, Path):
            path.write_text(yaml.safe_dump(part))
        files += ["--values", str(path)]
    version = [] if "--kube-version" in more else ["--kube-version", KUBERNETES]
    return helm("template", "shop", chart, "--namespace", "shops", *files, *version, *more)


if __name__ == "__main__":
    SCHEMA.write_text(schema_text())
