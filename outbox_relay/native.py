"""
The hot loops in C, `native`; None where the package was built without a C compiler.

What they do not do, and everything where they are not there, Python does, to the same bytes.
``OUTBOX_RELAY_PURE_PYTHON=1`` leaves them out.
"""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType


def _load() -> ModuleType | None:
    if os.environ.get("OUTBOX_RELAY_PURE_PYTHON"):
        return None
    try:
        return import_module("outbox_relay._native")
    except ImportError:
        return None


native = _load()
