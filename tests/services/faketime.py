"""
libfaketime: another clock for one process, which can jump while it runs.
"""

from __future__ import annotations

from pathlib import Path

from tests.services.process import MissingPartError

LIBRARY = "faketime/libfaketimeMT.so.1"


def find_faketime() -> str:
    """The path of the library."""
    for folder in (*Path("/usr/lib").glob("*-linux-*"), Path("/usr/lib"), Path("/usr/local/lib")):
        if (folder / LIBRARY).exists():
            return str(folder / LIBRARY)
    raise MissingPartError(
        "libfaketime is not installed; run: python -m tests.services.install "
        "(or: apt-get install libfaketime)"
    )


class FakeClock:
    """How far the clock of a process is from the machine's; a file that it reads again and again."""

    def __init__(self, folder: Path, *, monotonic: bool) -> None:
        self._file = folder / "faketime"
        self._monotonic = monotonic
        self.jump(0)

    def jump(self, seconds: int) -> None:
        """From now on it is *seconds* ahead of the machine's clock."""
        draft = self._file.with_suffix(".new")
        draft.write_text(f"{seconds:+d}\n")
        draft.rename(self._file)

    @property
    def environment(self) -> dict[str, str]:
        """What the process is started with. The monotonic clocks jump too if *monotonic*."""
        return {
            "LD_PRELOAD": find_faketime(),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "NO_FAKE_STAT": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "0" if self._monotonic else "1",
        }
