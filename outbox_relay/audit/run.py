"""An audit from its beginning, or from where it was, to its report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from outbox_relay.audit.judging import AFTER_RECHECK, BEFORE_RECHECK, Step
from outbox_relay.audit.plan import Plan
from outbox_relay.audit.ports import AuditedTable, AuditedTopics
from outbox_relay.audit.reading import Progress, fix_ends, read_table, read_topics
from outbox_relay.audit.rechecking import recheck
from outbox_relay.audit.report import Report, make_report
from outbox_relay.audit.workfile import WorkFile


async def audit(
    plan: Plan,
    *,
    path: Path,
    table: AuditedTable,
    topics: AuditedTopics,
    progress: Progress,
    most: int = 20,
    is_stopped: Callable[[], bool] = lambda: False,
    keep: bool = True,
) -> Report:
    """
    Compare *table* with *topics*, through the work file at *path*.

    Goes on where an audit with the same plan was. Both sides are asked at once, so that nobody waits for
    the one only to learn that the other is away. Raises AuditError, StoreUnavailable, SchemaMismatch;
    the work file then holds what was read.
    """
    file = WorkFile.begin_or_go_on(path, plan, is_stopped=is_stopped)
    # What "2h ago" meant when it began.
    plan = replace(plan, since=file.get_number("since"), until=file.get_number("until"))
    try:
        await _read(file, plan, table, topics, progress)
        await _judge(file, plan, table, progress)
        report = make_report(file, plan, most=most, work_file=str(path) if keep else None)
        file.put(phase="done")
        return report
    finally:
        file.close()
        await table.close()
        await topics.close()


async def _read(
    file: WorkFile, plan: Plan, table: AuditedTable, topics: AuditedTopics, progress: Progress
) -> None:
    await table.check()
    if file.get("phase") == "table":
        # Only to learn whether it answers: the table may take hours.
        await topics.start()
        await topics.existing(plan.topics)
        await topics.close()
        await read_table(file, table, plan, progress)
    if file.get("phase") in ("ends", "topics"):
        await topics.start()
    if file.get("phase") == "ends":
        await fix_ends(file, topics, plan)
    if file.get("phase") == "topics":
        await read_topics(file, topics, plan, progress)
    await topics.close()


async def _judge(file: WorkFile, plan: Plan, table: AuditedTable, progress: Progress) -> None:
    progress.phase("judging", done=0, total=len(BEFORE_RECHECK) + len(AFTER_RECHECK) + 1)

    def take(steps: tuple[tuple[str, Step], ...]) -> None:
        for _, step in steps:
            progress.check()
            step(file, plan)
            progress.advance(1)

    take(BEFORE_RECHECK)
    await recheck(file, table, plan, progress)
    progress.advance(1)
    take(AFTER_RECHECK)
