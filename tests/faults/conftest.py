"""Servers behind proxies, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.site import Sites
from tests.services.far_kafka import FarKafka
from tests.services.process import MissingPartError
from tests.services.toxiproxy import Toxiproxy

DOORS = 12


@pytest.fixture(scope="session")
def toxiproxy() -> Iterator[Toxiproxy]:
    """The proxy of this session."""
    try:
        proxy = Toxiproxy()
    except MissingPartError as missing:
        pytest.skip(str(missing))
    with proxy:
        yield proxy


@pytest.fixture(scope="session")
def far_kafka(toxiproxy: Toxiproxy) -> Iterator[FarKafka]:
    """A broker that is reached through proxies only."""
    try:
        kafka = FarKafka(doors=DOORS)
    except MissingPartError as missing:
        pytest.skip(str(missing))
    with kafka:
        kafka.open_doors(toxiproxy)
        yield kafka


@pytest.fixture
def sites(installed_wheel, toxiproxy, far_kafka, tmp_path: Path) -> Iterator[Sites]:
    """Makes relays with all that they need; ends those that still run."""
    far_kafka.heal()
    made = Sites(installed_wheel.command, toxiproxy, far_kafka, tmp_path)
    yield made
    made.end()
