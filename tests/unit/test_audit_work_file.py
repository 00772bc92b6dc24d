"""
An audit that was cut off goes on with its work file; the file belongs to that audit alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from outbox_relay.audit.plan import Plan
from outbox_relay.audit.ports import Batch, State
from outbox_relay.audit.reading import Pace
from outbox_relay.audit.run import audit
from outbox_relay.audit.workfile import WorkFile
from outbox_relay.errors import AuditError, StoreUnavailable
from outbox_relay.schema import Status
from tests.unit.auditing import (
    MemoryTable,
    MemoryTopics,
    Quiet,
    ids,
    in_partitions,
    no_waiting_for_the_disk,  # noqa: F401 - no test waits
    row_of,
    run,
)


def test_a_killed_audit_goes_on_where_it_was(tmp_path: Path) -> None:
    """
    Whatever ended it: what was read is not read again, and the findings are the same.
    """
    rows = [row_of(number, b"key") for number in range(1, 21)]
    logs = in_partitions([(number, b"key", ()) for number in range(1, 21) if number != 7])
    path, plan = tmp_path / "audit.db", Plan(asked={"since": "2h"}, settle_seconds=0.0)
    broken = MemoryTopics(logs)

    async def fail() -> Sequence[Batch]:
        raise AuditError("kafka is away")

    broken.fetch = fail  # type: ignore[method-assign]
    with pytest.raises(AuditError):
        asyncio.run(
            audit(plan, path=path, table=MemoryTable(rows), topics=broken, progress=Quiet())
        )
    unreadable = MemoryTable([])

    report = asyncio.run(
        audit(plan, path=path, table=unreadable, topics=MemoryTopics(logs), progress=Quiet())
    )

    assert ids(report, "loss") == [7]


def test_an_audit_that_ended_is_begun_anew(tmp_path: Path) -> None:
    """
    Its file is of no other use: the next audit empties it, whatever that asks for.
    """
    path, logs = tmp_path / "audit.db", in_partitions([(1, b"key", ())])
    found = []
    for topics, rows in (
        ((), [row_of(1, b"key")]),
        (("orders",), [row_of(1, b"key"), row_of(2, b"key")]),
    ):
        plan = Plan(asked={"topics": list(topics)}, topics=topics, settle_seconds=0.0)
        work = audit(
            plan, path=path, table=MemoryTable(rows), topics=MemoryTopics(logs), progress=Quiet()
        )
        found.append(ids(asyncio.run(work), "loss"))

    assert found == [[], [2]]
    assert path.stat().st_mode & 0o077 == 0


def test_a_connection_that_ended_while_it_was_idle(tmp_path: Path) -> None:
    """
    MariaDB ends one after two minutes: the next attempt finds the table again.
    """
    rows = [row_of(1, b"key"), row_of(2, b"key", Status.PENDING)]
    table = MemoryTable(rows, [row_of(1, b"key"), row_of(2, b"key")])
    answers, ended = table.states, [StoreUnavailable("gone away")]

    async def states(ids: Sequence[int]) -> Sequence[State]:
        if ended:
            raise ended.pop()
        return await answers(ids)

    table.states = states  # type: ignore[method-assign]
    logs = in_partitions([(1, b"key", ()), (2, b"key", ())])

    assert run(tmp_path / "audit.db", table, MemoryTopics(logs)).is_clean()
    assert not ended


def test_a_work_file_belongs_to_one_audit(tmp_path: Path) -> None:
    """
    Another audit, another program's database, and a text are refused with what to do.
    """
    path = tmp_path / "audit.db"
    WorkFile.begin_or_go_on(path, Plan(asked={"since": "2h"})).close()
    (tmp_path / "text").write_text("a letter to somebody, longer than a header\n" * 50)

    with pytest.raises(AuditError, match="another audit that did not end"):
        WorkFile.begin_or_go_on(path, Plan(asked={"since": "3h"}))
    with pytest.raises(AuditError, match="no work file"):
        WorkFile.begin_or_go_on(tmp_path / "text", Plan(asked={}))
    with pytest.raises(AuditError, match="cannot be opened"):
        WorkFile.begin_or_go_on(tmp_path / "absent" / "file", Plan(asked={}))
    first = WorkFile.begin_or_go_on(path, Plan(asked={"since": "2h"}))
    with pytest.raises(AuditError, match="another audit works with it"):
        WorkFile.begin_or_go_on(path, Plan(asked={"since": "2h"}))
    first.close()


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """
    With what to do; what was committed stays.
    """
    file = WorkFile.begin_or_go_on(tmp_path / "audit.db", Plan(asked={}))
    file.run("PRAGMA max_page_count = 12")

    with pytest.raises(AuditError, match="make room"), file.transaction():
        file.add("audited_rows", [(n, b"e" * 500, 0, None, 1, 1, 1, 0) for n in range(5000)])

    assert file.number("SELECT count(*) FROM audited_rows") == 0
    file.close()


def test_a_slow_statement_makes_the_next_one_smaller() -> None:
    """
    And fast ones make it larger again, up to a bound.
    """
    pace = Pace(None)
    pace.took(1.0)
    small = pace.rows
    for _ in range(10):
        pace.took(0.001)

    assert (small, pace.rows) == (500, 5000)
    assert Pace(100).rows == 100
