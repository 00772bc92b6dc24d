"""
Builds `outbox_relay._native` where there is a C compiler. Without one the package is Python alone: the
same records, for more CPU.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


class NativeBuildHook(BuildHookInterface[Any]):
    """Compiles beside the source, as an editable install needs it, and adds it to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Before a wheel is put together."""
        made = f"outbox_relay/_native{sysconfig.get_config_var('EXT_SUFFIX')}"
        (ROOT / made).unlink(missing_ok=True)
        extension = Extension(
            "outbox_relay._native",
            ["outbox_relay/_native.c"],
            libraries=["z"],
            extra_compile_args=["-O2"],
            optional=True,
        )
        distribution = Distribution({"name": "outbox-relay", "ext_modules": [extension]})
        command = build_ext(distribution)
        command.inplace = True
        command.force = True
        command.ensure_finalized()
        command.run()
        if (ROOT / made).exists():
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
            build_data["artifacts"].append(made)
        else:
            self.app.display_warning(
                "no C compiler, Python.h or zlib.h: built without outbox_relay._native"
            )
