"""
A kill loop with an oracle: relay, database and broker are killed at random while an application writes.

KILLS=2000 says how many kills on each database, MINUTES when to stop at the latest, SEED which ones; `make chaos`
runs it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.faults.kill_loop import IN_FLIGHT_ROWS, Round, play_round, table

KILLS = int(os.environ.get("KILLS", "0"))
MINUTES = float(os.environ.get("MINUTES", "inf"))
SEED = int(os.environ.get("SEED", "1"))
ROUND_KILLS = 50
ACTIVE = (2, 1, 4)
"""How many relays are active: in the first round, in the second, and so on."""


@pytest.mark.timeout(600 if not KILLS else 60 * 60 * 12)
@pytest.mark.parametrize(
    ("database", "kills"), [("mariadb", KILLS or 38), ("postgresql", KILLS or 12)]
)
def test_kills_lose_invent_and_invert_nothing(
    installed_wheel, kafka, tmp_path: Path, request, capsys, database: str, kills: int
):
    """
    I1, I2, I4, I5, I6, I9. Every event that the application knows to be committed is published, and no
    other; per key in order; at most in_flight_rows of them again after each fault. Nobody has to help.
    """
    server = request.getfixturevalue(database)
    rounds: list[Round] = []
    deadline = time.monotonic() + MINUTES * 60
    while kills > 0 and time.monotonic() < deadline:
        number = len(rounds)
        rounds.append(
            play_round(
                installed_wheel.command,
                server,
                kafka,
                tmp_path / str(number),
                kills=min(kills, ROUND_KILLS),
                active=ACTIVE[number % len(ACTIVE)],
                seed=SEED * 1000 + number,
            )
        )
        kills -= rounds[-1].kills
        with capsys.disabled():
            head, _, line, _ = table(rounds[-1:]).splitlines()
            print(f"\n{head}\n{line}" if number == 0 else line)

        assert rounds[-1].is_well, rounds[-1]
    with capsys.disabled():
        print(f"\n{database}, in_flight_rows = {IN_FLIGHT_ROWS}\n\n{table(rounds)}")
