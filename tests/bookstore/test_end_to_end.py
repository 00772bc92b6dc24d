"""
From a command at one of the store's doors to the invoice of the second service, in real processes.

Long form, 1,000 sales and 20 kills: BOOKSTORE_SALES=1000 BOOKSTORE_KILLS=20, `make bookstore-chaos`.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
import websockets
from confluent_kafka import Consumer, TopicPartition
from sqlalchemy.ext.asyncio import create_async_engine

from examples.bookstore.auth import issue
from examples.bookstore.events import TOPIC
from examples.bookstore.invoices.service import CONSUMER
from examples.bookstore.local import PARTITIONS, Local, Place
from examples.bookstore.ws.constants import PkgID, RSPCode
from tests.bookstore.site import ALL_ROLES, ask
from tests.services.kafka import Kafka
from tests.services.mariadb import MariaDB
from tests.services.process import free_port

ROOT = Path(__file__).resolve().parents[2]
SALES = int(os.environ.get("BOOKSTORE_SALES", "150"))
KILLS = int(os.environ.get("BOOKSTORE_KILLS", "4"))
BOOKS = 8
WAIT_SECONDS = 120.0


async def test_one_command_shows_a_sale_and_its_invoice(tmp_path: Path) -> None:
    """
    `python -m examples.bookstore` needs no service, and the commands that it prints work as they are.
    """
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "examples.bookstore", "--port", str(port)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            commands = []
            while not (line := (await process.stdout.readline()).decode()).startswith("Ctrl-C"):
                assert line, (await process.communicate())[1].decode()
                if line.startswith(("export", "curl")):
                    commands.append(line)
            script = "set -e\n" + "".join(f"{command}echo\n" for command in commands)
            shell = await asyncio.create_subprocess_exec(
                *("bash", "-c", script), stdout=asyncio.subprocess.PIPE
            )
            said = (await shell.communicate())[0].decode().split("\n")
            invoice = (await process.stdout.readline()).decode()
    finally:
        process.send_signal(signal.SIGINT)
        code = await asyncio.wait_for(process.wait(), WAIT_SECONDS)

    assert [
        re.match(r'{"id":("[0-9a-f-]+"|1)', answer) is not None for answer in said if answer
    ] == [True] * 3
    assert invoice == "invoice 1: 2 x Kindred, 19.80\n"
    assert code == 0


@pytest.fixture
async def local(mariadb: MariaDB, kafka: Kafka, tmp_path: Path) -> AsyncIterator[Local]:
    """The store, its relay and the invoices, on MariaDB and Kafka."""
    place = Place(
        folder=tmp_path,
        port=free_port(),
        database_url=mariadb.create_database().async_url,
        invoices_url=mariadb.create_database().async_url,
        bootstrap_servers=kafka.bootstrap_servers,
        session_seconds=2,
    )
    running = Local(place)
    try:
        await running.start()
        yield running
    finally:
        await running.stop()


class Heard:
    """What the invoices' processes say, over all their lives."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self.invoices = 0
        self.repeated = 0
        self._changed = asyncio.Event()

    async def listen(self) -> None:
        """Until cancelled."""
        while True:
            line = await self._local.invoices.read_line()
            if not line:
                await asyncio.sleep(0.01)  # killed; the next one is about to be started
                continue
            if line.startswith("invoice "):
                self.invoices += 1
            elif "came again" in line:
                self.repeated += 1
            self._changed.set()

    async def more_than(self, invoices: int) -> None:
        """Wait until more invoices are written."""
        while self.invoices <= invoices:
            self._changed.clear()
            await self._changed.wait()


@pytest.mark.timeout(max(300, SALES))
async def test_each_sale_has_one_invoice_though_relay_and_consumer_are_killed(
    local: Local, kafka: Kafka, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    I1, I2. Exactly once in effect: as many invoices as sales were committed, each for its own sale,
    while the relay and the consumer die by `kill -9` in the middle of their work.
    """
    chance = random.Random(1)
    heard = Heard(local)
    listening = asyncio.create_task(heard.listen())
    async with asyncio.timeout(max(WAIT_SECONDS, SALES / 2)):
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{local.place.port}", headers=_header(local), timeout=60
        ) as client:
            await _make_books(client)
            refused = 0
            for part in range(KILLS + 1):
                before = heard.invoices
                selling = asyncio.create_task(_sell(local, client, _share(part)))
                if part < KILLS:
                    await heard.more_than(before + chance.randrange(_share(part) // 2))
                    victim = local.relay if part % 2 else local.invoices
                    await victim.kill()
                    await victim.start()
                refused += await selling
        await _until(local.place.database_url, "SELECT COUNT(*) FROM outbox WHERE status = 0", 0)
        await asyncio.to_thread(_until_consumed, kafka)
    listening.cancel()
    sales = await _rows(local.place.database_url, "SELECT id, total_cents FROM sales")
    invoices = await _rows(local.place.invoices_url, "SELECT sale_id, total_cents FROM invoices")
    dead = await _rows(local.place.database_url, "SELECT COUNT(*) FROM outbox WHERE status = 2")
    records = [record for record in kafka.consume_all(TOPIC) if record.headers["ce_type"] == SOLD]
    with capsys.disabled():
        sys.stdout.write(
            f"\n{len(sales)} sales, {refused} refused, {KILLS} kills: {len(invoices)} invoices, "
            f"{len(records)} records, {heard.repeated} of them came again\n"
        )

    assert len(sales) == SALES
    assert refused > 0
    assert Counter(invoices) == Counter(sales)
    assert len({record.headers["ce_id"] for record in records}) == SALES
    assert dead == [(0,)]


SOLD = b"book.sold"


def _header(local: Local) -> dict[str, str]:
    return {"authorization": f"Bearer {issue(local.jwt_secret, *ALL_ROLES)}"}


def _share(part: int) -> int:
    """How many sales there are in this part."""
    return SALES // (KILLS + 1) + (part < SALES % (KILLS + 1))


async def _make_books(client: httpx.AsyncClient) -> None:
    await client.post("/authors", json={"name": "Octavia Butler"})
    for number in range(BOOKS):
        book = {"title": f"Book {number}", "author_id": 1, "price_cents": 100 + number}
        answer = await client.post("/books", json={**book, "copies": SALES})
        assert answer.status_code == 201, answer.text


async def _sell(local: Local, client: httpx.AsyncClient, sales: int) -> int:
    """Sell at both doors, two clients at each; how many commands were refused."""
    left = iter(range(sales))
    refused = 0

    async def over_http() -> None:
        nonlocal refused
        for number in left:
            book = number % BOOKS + 1
            answer = await client.put(f"/sales/{uuid.uuid4()}", json={"book_id": book})
            assert answer.status_code == 200, answer.text
            if number % 10 == 0:
                path = f"/sales/{uuid.uuid4()}"
                answer = await client.put(path, json={"book_id": book + BOOKS})
                assert answer.status_code == 404, answer.text
                refused += 1

    async def over_websocket() -> None:
        uri = f"ws://127.0.0.1:{local.place.port}/ws"
        async with websockets.connect(uri, additional_headers=_header(local)) as socket:
            for number in left:
                sale = {"sale_id": str(uuid.uuid4()), "book_id": number % BOOKS + 1}
                answer = await ask(socket, PkgID.SELL_BOOK, sale)
                assert answer["status_code"] == RSPCode.OK, answer

    await asyncio.gather(over_http(), over_http(), over_websocket(), over_websocket())
    return refused


async def _rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        rows = [tuple(row) for row in await connection.execute(sa.text(statement))]
    await engine.dispose()
    return rows


async def _until(url: str, statement: str, wanted: int) -> None:
    while await _rows(url, statement) != [(wanted,)]:
        await asyncio.sleep(0.2)


def _until_consumed(kafka: Kafka) -> None:
    """Until the invoices' group has settled everything that is in the topic."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": CONSUMER})
    places = [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
    try:
        while any(
            place.offset < consumer.get_watermark_offsets(place, timeout=10)[1]
            and consumer.get_watermark_offsets(place, timeout=10)[1] > 0
            for place in consumer.committed(places, timeout=10)
        ):
            pass
    finally:
        consumer.close()
