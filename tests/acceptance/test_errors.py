"""
Each trouble gives one clear line; the relay lives on and goes on where it should, and says no secret.

docs/reference/errors.md holds what is seen here. After a change write it anew with
``WRITE_ERRORS_PAGE=1 python -m pytest tests/acceptance/test_errors.py`` and read the difference.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.errors_page import PAGE, page, row, watch
from tests.acceptance.troubles import CANARY, TROUBLES, Stage, Trouble
from tests.services.secure import SecureKafka, SecureMariaDB
from tests.services.wheel import InstalledWheel

WRITE = "WRITE_ERRORS_PAGE"
KAFKA_USER = "relay-of-errors"


@pytest.fixture(scope="module")
def rows() -> Iterator[dict[str, str]]:
    """The rows seen, by failure; the page, if it is to be written."""
    seen: dict[str, str] = {}
    yield seen
    if os.environ.get(WRITE):
        PAGE.write_text(page(seen))


@pytest.fixture(scope="module")
def kafka_user(secure_kafka: SecureKafka) -> str:
    secure_kafka.set_scram_password(KAFKA_USER, f"{CANARY}-kafka")
    return KAFKA_USER


@pytest.fixture
def stage(
    installed_wheel: InstalledWheel,
    secure_mariadb: SecureMariaDB,
    secure_kafka: SecureKafka,
    kafka_user: str,
    topic_name: str,
    tmp_path: Path,
) -> Iterator[Stage]:
    secure_kafka.create_topic(topic_name)
    made = Stage(
        command=installed_wheel.command,
        mariadb=secure_mariadb,
        kafka=secure_kafka,
        folder=tmp_path,
        kafka_user=kafka_user,
        topic=topic_name,
    )
    yield made
    for socket in made.held:
        socket.close()
    secure_mariadb.start()
    secure_kafka.start()


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.failure)
def test_a_trouble_gives_one_clear_line(
    stage: Stage, trouble: Trouble, rows: dict[str, str]
) -> None:
    """
    I11. One line, the same each time; it ends as documented, or goes on as soon as it is mended.
    """
    seen = watch(stage, trouble)
    rows[trouble.failure] = row(trouble, seen)

    assert CANARY not in seen.printed
    assert len(set(seen.complaints)) == 1
    assert seen.exit_code == trouble.exit_code
    assert seen.went_on or trouble.exit_code is not None
    assert seen.seconds_between is None or seen.seconds_between > 9
    assert os.environ.get(WRITE) or rows[trouble.failure] in PAGE.read_text().splitlines()


def test_the_page_holds_these_failures_and_no_others(rows: dict[str, str]) -> None:
    """
    Whatever of this file was run before.
    """
    if os.environ.get(WRITE):
        return
    text = PAGE.read_text()
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]

    assert page({line.split(" | ")[0].removeprefix("| "): line for line in lines}) == text
