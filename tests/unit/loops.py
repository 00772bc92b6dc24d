"""Which hot loops a test runs over: those in C, where they were built, and those in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from outbox_relay.brokers import record_batch
from outbox_relay.native import native
from outbox_relay.relay import wire

IN_C = native is not None


@pytest.fixture(scope="module", params=["c", "python"] if IN_C else ["python"], autouse=True)
def loops(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both, for every test of a module that imports this."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "python":
            _leave_out_c(patch)
        yield


def in_python(work: Callable[[], Any]) -> Any:
    """*work*'s result, without C."""
    with pytest.MonkeyPatch.context() as patch:
        _leave_out_c(patch)
        return work()


def _leave_out_c(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(wire, "native", None)
    patch.setattr(record_batch, "native", None)
