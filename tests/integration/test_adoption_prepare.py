"""
`adopt python-cqrs` on a table that others work on: what it makes, what stops it half-way, what it refuses.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import Result
from typer.testing import CliRunner

from outbox_relay import adoption_move, adoption_prepare
from outbox_relay.adoption import planned, prepare
from outbox_relay.cli.app import app
from outbox_relay.errors import SchemaMismatch, StoreUnavailable
from outbox_relay.store import DatabaseOptions, open_store
from tests.contract.adopted import create_adopted

INDEX = "outbox_relay_ix"


class Table:
    """A table as python-cqrs 5.3.0 makes it, with an operator in front of it."""

    def __init__(self, server: Any, folder: Any) -> None:
        self.server = server
        self.database = server.create_database()
        self.engine = sa.create_engine(self.database.sync_url, poolclass=sa.NullPool)
        self.on_postgresql = self.engine.dialect.name == "postgresql"
        self.table = "outbox"
        self._config = folder / "config.toml"
        self.configure()
        create_adopted(self.engine)

    def configure(self, **settings: str) -> None:
        """Its settings, as a person would write them."""
        told = {"url": self.database.async_url, "layout": "python-cqrs"} | settings
        self.options = DatabaseOptions(**told)
        lines = ["[database]", *(f'{name} = "{value}"' for name, value in told.items())]
        lines += ["[kafka]", 'bootstrap_servers = "127.0.0.1:1"']
        self._config.write_text("\n".join(lines), encoding="utf-8")

    def adopt(self, *words: str, code: int = 0, answer: str = "") -> str:
        """What the command says."""
        return self.command("adopt", "python-cqrs", *words, code=code, answer=answer)

    def command(self, *words: str, code: int = 0, answer: str = "") -> str:
        """What any command says."""
        return self._invoked(*words, code=code, answer=answer).output

    def json(self, *words: str) -> Any:
        """The object that `adopt` prints."""
        return json.loads(self._invoked("adopt", "python-cqrs", *words, "--json").stdout)

    def _invoked(self, *words: str, code: int = 0, answer: str = "") -> Result:
        given = [*words, "-c", str(self._config)]
        done = CliRunner().invoke(app, given, env={"COLUMNS": "200"}, input=answer)
        assert done.exit_code == code, done.output
        return done

    def execute(self, *statements: str) -> list[Any]:
        """As somebody beside it; what the last one answers."""
        with self.engine.begin() as connection:
            for statement in statements:
                done = connection.execute(sa.text(statement))
            return list(done.all()) if done.returns_rows else []

    def insert(self, state: str = "NEW", flushes: int = 0, topic: str = "t") -> None:
        """A row in some state."""
        self.execute(self.new_row(state, flushes, topic))

    def new_row(self, state: str = "NEW", flushes: int = 0, topic: str = "t") -> str:
        """The statement of `insert`."""
        new = "gen_random_uuid()" if self.on_postgresql else "UNHEX(REPLACE(UUID(), '-', ''))"
        raw = "uuid_send(gen_random_uuid())" if self.on_postgresql else new
        return (
            f"INSERT INTO {self.table} (event_id, event_id_bin, event_status, flush_counter, event_name, "
            f"topic, payload) VALUES ({new}, {raw}, '{state}', {flushes}, 'e', '{topic}', '{{}}')"
        )

    def states(self) -> list[tuple[str, int]]:
        """Of all rows, in order."""
        rows = self.execute(f"SELECT event_status, flush_counter FROM {self.table} ORDER BY id")
        return [(state, flushes) for state, flushes in rows]


@pytest.fixture(params=["mariadb", "postgresql"])
def table(request: pytest.FixtureRequest, tmp_path: Any) -> Table:
    return Table(request.getfixturevalue(request.param), tmp_path)


@pytest.fixture
def on_mariadb(mariadb: Any, tmp_path: Any) -> Table:
    return Table(mariadb, tmp_path)


@pytest.fixture
def on_postgresql(postgresql: Any, tmp_path: Any) -> Table:
    return Table(postgresql, tmp_path)


def check_schema(options: DatabaseOptions) -> None:
    """As a relay that begins."""

    async def check() -> None:
        store = open_store(options)
        try:
            await store.check_schema()
        finally:
            await store.close()

    asyncio.run(check())


def in_a_thread(work: Callable[..., Any], *arguments: Any) -> Any:
    """Where no event loop runs."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work, *arguments).result()


def broken_off_at(part: str) -> Callable[[str], None]:
    def begins(statement: str) -> None:
        if part in statement:
            raise KeyboardInterrupt

    return begins


@pytest.mark.parametrize(
    "part", ["CREATE TABLE outbox_dead", "INTO outbox_lease", "INTO outbox_version", INDEX]
)
def test_broken_off_anywhere_it_goes_on_with_the_rest(table, part):
    """
    Until all of it is there no relay begins, and the answer names the command.
    """
    with pytest.raises(KeyboardInterrupt):
        prepare(table.options, begins=broken_off_at(part))

    assert "--prepare" in table.command("status", code=3)
    rest = planned(table.options)
    assert part in rest[0]
    assert table.adopt("--prepare").splitlines() == [
        *(f"{statement};" for statement in rest),
        "done: outbox is ready for a relay",
    ]
    assert "no relay is active" in table.command("status")
    assert "nothing to do" in table.adopt("--prepare")


def test_an_open_transaction_holds_up_the_index_for_seconds_only(on_mariadb, monkeypatch):
    """
    While ALTER TABLE waits, writers wait behind it: so it gives up, and says who is in the way.
    """
    monkeypatch.setattr(adoption_prepare, "LOCK_SECONDS", 1)
    with on_mariadb.engine.connect() as old_relay:
        old_relay.execute(sa.text("SELECT COUNT(*) FROM outbox")).all()
        said = on_mariadb.adopt("--prepare", code=1)
        on_mariadb.insert()

    assert "innodb_trx" in said
    assert INDEX in on_mariadb.adopt("--prepare")
    assert on_mariadb.states() == [("NEW", 0)]


def test_a_broken_index_serves_no_relay_and_is_built_anew(on_postgresql):
    """
    A build that is broken off leaves one that no query uses: each look would pass the whole history.
    """
    on_postgresql.adopt("--prepare")
    with on_postgresql.server.root_connection(on_postgresql.database.name) as root:
        root.execute(
            f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{INDEX}'::regclass"
        )
    with pytest.raises(SchemaMismatch, match="no index by which"):
        check_schema(on_postgresql.options)
    assert "no index by which" in on_postgresql.adopt("--move-to", "events", "--yes", code=3)

    done = on_postgresql.adopt("--prepare").splitlines()

    assert [line.partition(" CONCURRENTLY")[0] for line in done[:-1]] == [
        "DROP INDEX",
        "CREATE INDEX",
    ]
    check_schema(on_postgresql.options)


def test_two_operators_do_not_prepare_at_once(table):
    """
    Nor one, while the server still builds what was broken off.
    """

    def meanwhile(_: str) -> None:
        with pytest.raises(StoreUnavailable, match="another --prepare is at work"):
            in_a_thread(prepare, table.options)

    prepare(table.options, begins=meanwhile)

    assert planned(table.options) == []


def test_it_works_in_a_schema_that_is_not_the_connections(table):
    """
    With database.schema: the tables, the index, what is shown, what is requeued.
    """
    other = table.server.create_database().name if not table.on_postgresql else "shop"
    if table.on_postgresql:
        table.execute("CREATE SCHEMA shop", "ALTER TABLE outbox SET SCHEMA shop")
    else:
        table.execute(f"ALTER TABLE outbox RENAME {other}.outbox")
    table.configure(schema=other)
    table.table = f"{other}.outbox"
    table.insert("NOT_PRODUCED", 5)

    assert f'schema = "{other}"' in table.adopt()
    assert f"{other}." in table.adopt("--prepare")
    assert "nothing to do" in table.adopt("--prepare")
    check_schema(table.options)
    assert "requeued 1" in table.adopt("--revive", "--yes")
    assert table.states() == [("NEW", 0)]


def test_what_was_made_new_by_hand_but_not_its_counter_is_given_up_too(table):
    """
    Its own relay passes it over for ever, and so says nobody that it waits.
    """
    table.insert("NEW", 7)
    table.insert("NEW")
    table.adopt("--prepare")

    seen = table.json()
    [count] = seen["counts"]
    assert (count["state"], count["rows"], count["given_up"]) == ("NEW", 2, 1)
    assert [row["id"] for row in seen["abandoned"]] == [1]
    assert "requeued 1" in table.adopt("--revive", "--yes")
    assert table.states() == [("NEW", 0)] * 2


def test_revive_takes_what_is_chosen_only(table):
    """
    By topic and id, at a rate; what others gave up for a reason of ours is not touched.
    """
    for topic in ("a", "a", "a", "b"):
        table.insert("NOT_PRODUCED", 5, topic)
    table.adopt("--prepare")

    assert "would requeue 3" in table.adopt("--revive", "--topic", "a", "--dry-run")
    chosen = ("--topic", "a", "--from-id", "2", "--to-id", "3")
    assert "would requeue 2" in table.adopt("--revive", *chosen, "--dry-run")
    assert table.adopt("--revive", *chosen, code=1, answer="n\n").count("requeued") == 0
    assert table.states() == [("NOT_PRODUCED", 5)] * 4
    assert table.json("--revive", *chosen, "--rate", "1000", "--yes") == {"requeued": 2}
    assert [state for state, _ in table.states()] == ["NOT_PRODUCED", "NEW", "NEW", "NOT_PRODUCED"]


def test_an_option_that_would_be_ignored_is_refused(on_mariadb):
    """
    Else whoever names one topic moves all of them.
    """
    for words, told in (
        (["--move-to", "events", "--topic", "a"], "go with --revive"),
        (["--from-id", "1"], "go with --revive"),
        (["--prepare", "--rate", "1"], "go with --revive"),
        (["--payload-only"], "goes with --move-to"),
        (["--prepare", "--watch", "1"], "leave out"),
        (["--revive", "--watch", "1"], "leave out"),
        (["--move-to", "events", "--json"], "leave out"),
        (["--prepare", "--move-to", "events"], "one at a time"),
    ):
        assert told in on_mariadb.adopt(*words, code=2)


def test_watch_tells_whether_the_old_relay_works(table, monkeypatch):
    """
    By what changes meanwhile. Ours marks rows too: while it works nobody can tell.
    """
    table.insert()
    table.adopt("--prepare")

    def meanwhile(*statements: str) -> None:
        monkeypatch.setattr("time.sleep", lambda _: table.execute(*statements))

    meanwhile("SELECT 1")
    assert "not seen at work" in table.adopt("--watch", "1")
    meanwhile("UPDATE outbox SET event_status = 'NOT_PRODUCED', flush_counter = 1")
    assert "at work: stop it" in table.adopt("--watch", "1")
    table.execute("UPDATE outbox_lease SET expires_at = '2999-01-01'")
    meanwhile("UPDATE outbox SET event_status = 'PRODUCED'")
    assert "cannot be seen" in table.adopt("--watch", "1")
    meanwhile("UPDATE outbox SET flush_counter = flush_counter + 1")
    assert table.json("--watch", "1")["relay_at_work"] is None


def test_what_moves_is_counted_and_what_stays_is_told(table):
    """
    Before anything is done: the new table must be there, and the answer says how it is made.
    """
    for state, flushes in (("NEW", 0), ("NOT_PRODUCED", 4), ("NOT_PRODUCED", 5), ("PRODUCED", 0)):
        table.insert(state, flushes)
    table.configure(layout_key_path="payload.id")
    assert "--prepare" in table.adopt("--move-to", "events", "--dry-run", code=3)
    table.adopt("--prepare")
    said = table.adopt("--move-to", "events", "--dry-run", code=3)
    command = said.partition("here `outbox-relay ")[2].partition("`")[0].split()
    assert "-s database.layout_key_path=" in said
    table.command(*command)

    assert "would move 2; 1 given up stay" in table.adopt("--move-to", "events", "--dry-run")
    assert table.adopt("--move-to", "events", code=1, answer="n\n").count("moved") == 0
    assert "moved 2; 1 given up stay" in table.adopt("--move-to", "events", answer="y\n")
    assert table.states() == [("NOT_PRODUCED", 5), ("PRODUCED", 0)]
    assert table.execute("SELECT COUNT(*) FROM events") == [(2,)]


def test_a_row_without_a_topic_stops_the_move_before_it(table):
    """
    Its row is named, and it stays; what was moved before is moved.
    """
    table.insert()
    table.insert(topic="")
    table.adopt("--prepare")
    table.command("migrate", "-s", "database.layout=outbox", "-s", "database.table=events")

    assert "row 2 names no topic" in table.adopt("--move-to", "events", "--yes", code=3)
    assert len(table.states()) == 2
    moved = table.adopt("--move-to", "events", "--yes", "-s", "database.layout_topic=x")
    assert "moved 2" in moved
    assert table.execute("SELECT topic FROM events ORDER BY id") == [("t",), ("x",)]


def test_a_move_waits_for_no_open_transaction(table, monkeypatch):
    """
    I4. The row of a transaction that is open may be older than those that would be moved.
    """
    monkeypatch.setattr(adoption_move, "LOCK_SECONDS", 1)
    table.insert()
    table.insert()
    table.adopt("--prepare")
    table.command("migrate", "-s", "database.layout=outbox", "-s", "database.table=events")
    with table.engine.connect() as writer:
        writer.execute(sa.text(table.new_row()))
        said = table.adopt("--move-to", "events", "--yes", code=1)
        writer.rollback()

    assert "has not ended within 1 s" in said
    assert "moved 2" in table.adopt("--move-to", "events", "--yes")


@pytest.mark.parametrize("prepared", [False, True])
def test_who_forgets_the_layout_is_told(table, prepared):
    """
    Our own commands leave the table as it is.
    """
    if prepared:
        table.adopt("--prepare")
    table.insert()

    for words in (["migrate"], ["migrate", "--check"], ["status"]):
        said = table.command(*words, "-s", "database.layout=outbox", code=3)
        assert 'set database.layout = "python-cqrs"' in said
    assert table.states() == [("NEW", 0)]
