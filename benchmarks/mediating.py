"""
What the mediators under measurement are asked to do. Standard library only, as `child`.
"""

from __future__ import annotations

from typing import Final

EMPTY: Final = "a handler that does nothing"
WITH_EVENT: Final = "a handler that commits an event"
EMPTY_TIMES: Final = 10
"""How many more of the first kind a run has: they are short."""
