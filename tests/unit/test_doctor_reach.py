"""
Why nobody answers: `doctor` says for each address of Kafka what becomes of a connection.
"""

from __future__ import annotations

import doctest
import socket

from outbox_relay.doctor.look import reach as module
from outbox_relay.doctor.look.reach import TAKES, reach


def test_the_examples_run() -> None:
    """
    What a docstring shows is so.
    """
    found = doctest.testmod(module)

    assert found.attempted > 0
    assert found.failed == 0


async def test_each_address_is_told_by_what_became_of_it() -> None:
    """
    Those with the same answer stand together.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        said = await reach(f"127.0.0.1:1, 127.0.0.1:{port},127.0.0.1:2", port=9092)

    assert said == f"127.0.0.1:1, 127.0.0.1:2: nobody listens there; 127.0.0.1:{port}: {TAKES}"


async def test_a_name_that_nobody_knows() -> None:
    """
    The usual slip in a setting.
    """
    said = await reach("no-such-host.invalid:9092", port=9092)

    assert said == "no-such-host.invalid:9092: there is no such name"
