"""
How fast a backlog drains when broker or database are further away.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from sqlalchemy.engine import make_url

from benchmarks import python_cqrs
from benchmarks.relays import drain, settings_for, start_relay
from benchmarks.results import Case
from benchmarks.rows import fill
from benchmarks.servers import KAFKA_HEAP, Kind, Servers, database_server
from benchmarks.topic import check, fresh_topic
from tests.services.far_kafka import FarKafka
from tests.services.toxiproxy import Toxiproxy

ROUND_TRIPS: Final = (0, 2, 10)
THEIR_ROUND_TRIPS: Final = (0, 2)
BROKER, DATABASE = "broker", "database"
THEIR_ROWS: Final = 2000
WARM_UP_ROWS: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FarServers(Servers):
    """Servers with proxies before them; the benchmark itself goes to the servers."""

    proxy: Toxiproxy
    bootstrap: str
    database_port: int

    def url(self, near: str) -> str:
        """The same database, through its proxy."""
        far = make_url(near).set(port=self.database_port)
        return far.render_as_string(hide_password=False)


@contextmanager
def far_servers(kind: Kind) -> Iterator[FarServers]:
    """Database and broker behind proxies, until the end of the block."""
    with ExitStack() as stack:
        database = stack.enter_context(database_server(kind))
        kafka = stack.enter_context(FarKafka(heap=KAFKA_HEAP))
        proxy = stack.enter_context(Toxiproxy())
        [door] = kafka.doors
        proxy.add(BROKER, upstream=door.port, listen=door.proxy_port)
        yield FarServers(
            database=database,
            kafka=kafka,
            proxy=proxy,
            bootstrap=door.bootstrap_servers,
            database_port=proxy.add(DATABASE, upstream=database.service.port),
        )


def measure_once(servers: FarServers, rows: int) -> dict[str, float]:
    """Fill, drain through the proxies, count."""
    database = servers.database.create_outbox()
    topic = fresh_topic(servers.kafka)
    fill(servers.database, database.name, topic, rows)
    settings = settings_for(servers, database) | {
        "database.url": servers.url(database.async_url),
        "kafka.bootstrap_servers": servers.bootstrap,
    }
    with start_relay(settings, until_empty=True) as relay:
        found = drain(servers, relay, rows)
    account = check(servers.kafka, topic, rows)
    servers.database.drop(database.name)
    return {"rows_per_second": account.rate(), **found, **account.fields()}


def measure(servers: FarServers, *, rows: int, runs: int, beside: bool) -> list[Case]:
    """Each round trip to the broker, then to the database; python-cqrs at some of them."""
    # The broker's first records are slow: its code is not compiled yet.
    measure_once(servers, min(rows, WARM_UP_ROWS))
    their_part = beside and servers.database.kind is Kind.MARIADB
    cases: list[Case] = []
    for part in (BROKER, DATABASE):
        ours = _each_round_trip(servers, part, rows, runs)
        theirs: list[Case] = []
        for milliseconds in THEIR_ROUND_TRIPS if their_part else ():
            servers.proxy.set_round_trip(part, milliseconds)
            name = _name(part, milliseconds)
            theirs.append(_theirs(servers, name, min(rows, THEIR_ROWS), runs))
        servers.proxy.set_round_trip(part, 0)
        _compare(ours, theirs)
        cases += [*ours, *theirs]
    return cases


def _each_round_trip(servers: FarServers, part: str, rows: int, runs: int) -> list[Case]:
    """Ours, in turn, so that what else changes on the machine meets all of them."""
    title = servers.database.title
    cases = {ms: Case(name=_name(part, ms), database=title, rows=rows) for ms in ROUND_TRIPS}
    for _ in range(runs):
        for milliseconds, case in cases.items():
            servers.proxy.set_round_trip(part, milliseconds)
            case.runs.append(measure_once(servers, rows))
    return list(cases.values())


def _name(part: str, milliseconds: int) -> str:
    return f"{part} {milliseconds} ms away"


def _theirs(servers: FarServers, name: str, rows: int, runs: int) -> Case:
    found = [
        python_cqrs.measure_once(servers, rows, bootstrap=servers.bootstrap, address=servers.url)
        for _ in range(runs)
    ]
    return Case(
        name=name,
        system=python_cqrs.NAME,
        database=servers.database.title,
        rows=rows,
        runs=found,
    )


def _compare(ours: list[Case], theirs: list[Case]) -> None:
    """Rates as multiples of the first, and ours of theirs at the same round trip."""
    for case in (*ours, *theirs):
        first = (ours if case in ours else theirs)[0].median("rows_per_second") or 1.0
        for run in case.runs:
            run["rate_to_first"] = run["rows_per_second"] / first
    for case, other in ((c, o) for c in ours for o in theirs if c.name == o.name):
        their_rate = other.median("rows_per_second") or 1.0
        for run in case.runs:
            run["times_theirs"] = run["rows_per_second"] / their_rate
