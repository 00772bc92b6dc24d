"""
A dashboard over a SQLite outbox, without a relay: what tests of its pages begin with.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa

from outbox_relay.admin.app import build_admin
from outbox_relay.admin.desk import Desk
from outbox_relay.admin.options import AdminOptions
from outbox_relay.doctor.findings import Area, Finding, Findings, Severity, sql
from outbox_relay.metrics import Metrics, MetricsObserver
from outbox_relay.operations import Access
from outbox_relay.schema import tables
from outbox_relay.store.options import DatabaseOptions
from outbox_relay.wiring import build_dead_letters

TOKEN = "a token of 24 characters"
HOST = "http://localhost:9465"

FINDINGS = Findings(
    findings=(
        Finding(
            code="planted",
            area=Area.DATABASE,
            severity=Severity.ERROR,
            what="sync_binlog is <0>",
            why="a power cut loses commits",
            mend="set it to 1",
            commands=sql("SET GLOBAL sync_binlog = 1"),
        ),
    )
)


class Office:
    """An outbox and its dashboard; `browser` talks to it as a browser does."""

    def __init__(self, database: Any, folder: Path, **options: Any) -> None:
        self.engine = sa.create_engine(database.sync_url)
        self.outbox = tables().outbox
        self.observer = MetricsObserver(Metrics())
        if options.pop("token", True):
            path = folder / "token"
            path.write_text(f"{TOKEN}\n")
            options["token_file"] = str(path)
        settings = DatabaseOptions(url=database.async_url)
        self.desk = Desk(
            AdminOptions(enabled=True, **options),
            access=Access(settings),
            letters=build_dead_letters(settings),
            observer=self.observer,
            owner="pod-1:7",
            examine=self._examine,
            retention_seconds=60.0,
        )
        self.app = build_admin(self.desk)
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        self.browser = httpx.AsyncClient(transport=transport, base_url=HOST)
        self.findings: Findings | Exception = FINDINGS
        self.examined = 0

    async def _examine(self) -> Findings:
        self.examined += 1
        if isinstance(self.findings, Exception):
            raise self.findings
        return self.findings

    def write(self, **values: Any) -> int:
        """A row; its id."""
        given = {"event_name": "order.placed", "topic": "orders", "key": b"k", "payload": b"{}"}
        with self.engine.begin() as connection:
            done = connection.execute(sa.insert(self.outbox).values(given | values))
            return int(done.inserted_primary_key[0])

    def kill(self, row_id: int, error: str = "too_large: more than 1048576 bytes") -> int:
        """Make a dead letter of a row."""
        with self.engine.begin() as connection:
            connection.execute(
                sa.update(self.outbox)
                .where(self.outbox.c.id == row_id)
                .values(status=2, attempts=1, last_error=error, dead_at=sa.func.current_timestamp())
            )
        return row_id

    def die_in_an_hour(self, row_id: int) -> None:
        """Let a dead letter be one that died an hour from now."""
        later = sa.func.datetime("now", "+1 hour")
        with self.engine.begin() as connection:
            connection.execute(
                sa.update(self.outbox).where(self.outbox.c.id == row_id).values(dead_at=later)
            )

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """What a SELECT finds."""
        with self.engine.begin() as connection:
            return [tuple(row) for row in connection.execute(sa.text(statement))]

    async def log_in(self) -> httpx.Response:
        """As a person does."""
        return await self.browser.post("/login", data={"token": TOKEN}, headers={"origin": HOST})

    async def form_token(self) -> str:
        """What the forms of this session carry."""
        found = re.search(r'name="form_token" value="([^"]+)"', (await self.get("/topics")).text)
        assert found is not None
        return found[1]

    async def get(self, path: str) -> httpx.Response:
        """A page."""
        return await self.browser.get(path)

    async def post(self, path: str, **fields: Any) -> httpx.Response:
        """A form of this session, sent from a page of its own."""
        data = {"form_token": await self.form_token()} | fields
        return await self.browser.post(path, data=data, headers={"origin": HOST})
