"""
Each trouble gives one clear line; the relay lives on and goes on where it should, and says no secret.

docs/reference/errors.md holds what is seen here. After a change write it anew with
``WRITE_ERRORS_PAGE=1 python -m pytest tests/acceptance/test_errors.py`` and read the difference.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.acceptance.errors_page import PAGE, Seen, page, row, watch
from tests.acceptance.troubles import CANARY, TROUBLES, Stage, Trouble
from tests.services.secure import SecureKafka, SecureMariaDB
from tests.services.wheel import InstalledWheel

WRITE = "WRITE_ERRORS_PAGE"
KAFKA_USER = "relay-of-errors"
AT_ONCE = 8


@pytest.fixture(scope="module")
def make_stage(
    installed_wheel: InstalledWheel,
    secure_mariadb: SecureMariaDB,
    secure_kafka: SecureKafka,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[], Stage]]:
    """Makes the surroundings of one relay."""
    secure_kafka.set_scram_password(KAFKA_USER, f"{CANARY}-kafka")
    made: list[Stage] = []

    def make() -> Stage:
        # What stopped one and then failed left it so.
        secure_mariadb.start()
        secure_kafka.start()
        folder = tmp_path_factory.mktemp("trouble")
        secure_kafka.create_topic(folder.name)
        stage = Stage(
            command=installed_wheel.command,
            mariadb=secure_mariadb,
            kafka=secure_kafka,
            folder=folder,
            kafka_user=KAFKA_USER,
            topic=folder.name,
        )
        made.append(stage)
        return stage

    yield make
    for stage in made:
        for socket in stage.held:
            socket.close()


@pytest.fixture(scope="module")
def watched(
    request: pytest.FixtureRequest, make_stage: Callable[[], Stage]
) -> dict[str, Future[Seen]]:
    """
    What was seen in each trouble that was chosen, by failure.

    Side by side, since a relay says a thing again only after 10 s; then those who stop a server.
    """
    tests = [item for item in request.session.items if item.path == Path(__file__)]
    chosen = [t for t in TROUBLES if any(f"[{t.failure}]" in item.name for item in tests)]
    found: dict[str, Future[Seen]] = {}
    for alone, workers in ((False, AT_ONCE), (True, 1)):
        with ThreadPoolExecutor(workers) as pool:
            for trouble in chosen:
                if trouble.alone is alone:
                    found[trouble.failure] = pool.submit(
                        lambda trouble=trouble: watch(make_stage(), trouble)
                    )
    return found


@pytest.fixture(scope="module")
def rows() -> Iterator[dict[str, str]]:
    """The rows seen, by failure; the page, if it is to be written."""
    seen: dict[str, str] = {}
    yield seen
    if os.environ.get(WRITE):
        PAGE.write_text(page(seen))


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.failure)
def test_a_trouble_gives_one_clear_line(
    watched: dict[str, Future[Seen]], trouble: Trouble, rows: dict[str, str]
) -> None:
    """
    I11. One line, the same each time; it ends as documented, or goes on as soon as it is mended.
    """
    seen = watched[trouble.failure].result()
    rows[trouble.failure] = row(trouble, seen)

    assert CANARY not in seen.printed
    assert len(set(seen.complaints)) == 1
    assert seen.exit_code == trouble.exit_code
    assert seen.went_on or trouble.exit_code is not None
    assert seen.seconds_between is None or seen.seconds_between > 9
    assert os.environ.get(WRITE) or rows[trouble.failure] in PAGE.read_text().splitlines()


def test_the_page_holds_these_failures_and_no_others() -> None:
    """
    With the text around them; whatever of this file is run.
    """
    if os.environ.get(WRITE):
        return
    text = PAGE.read_text()
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]

    assert page({line.split(" | ")[0].removeprefix("| "): line for line in lines}) == text
