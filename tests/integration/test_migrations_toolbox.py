"""
Migrations by other hands: as SQL text, checked, inside an application's own Alembic tree.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config as AlembicConfig
from typer.testing import CliRunner

from outbox_relay.cli.app import app
from outbox_relay.errors import OutboxRelayError
from outbox_relay.migrate import check, include_name, include_object, migrate, sql_script
from outbox_relay.schema import SCHEMA_VERSION, Status, tables
from outbox_relay.store.options import DatabaseOptions
from tests.integration.test_migrations import STEPS as ALL_STEPS
from tests.integration.test_migrations import definitions
from tests.pages import texts

RELEASED = Path(__file__).parent / "released"
STEPS = [f"missing: {step}" for step in ALL_STEPS]

ENV = """
import sqlalchemy as sa
from alembic import context
from outbox_relay.migrate import include_name, include_object

metadata = sa.MetaData()
sa.Table("orders", metadata, sa.Column("id", sa.Integer, primary_key=True))
url = context.config.get_main_option("sqlalchemy.url")
options = dict(target_metadata=metadata, include_name=include_name, include_object=include_object)
if context.config.attributes.get("plain"):
    options = dict(target_metadata=metadata)
if context.is_offline_mode():
    context.configure(url=url, literal_binds=True, **options)
    with context.begin_transaction():
        context.run_migrations()
else:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        context.configure(connection=connection, **options)
        with context.begin_transaction():
            context.run_migrations()
        connection.commit()
    engine.dispose()
"""
MAKO = """
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
from alembic import op
import sqlalchemy as sa
def upgrade():
    ${upgrades if upgrades else "pass"}
"""
GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "migrations.md"
MADE = '    op.execute("CREATE TABLE of_the_application (id INTEGER)")\n'
DROPPED = '    op.execute("DROP TABLE of_the_application")\n'
REVISION = (
    texts(GUIDE, "python")[0]
    .replace("def upgrade():\n", f"def upgrade():\n{MADE}")
    .replace("def downgrade():\n", f"def downgrade():\n{DROPPED}")
)


@pytest.fixture(params=["mariadb", "mysql", "postgresql", "sqlite"])
def database(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_database")


@pytest.fixture
def tree(tmp_path: Path, database: Any) -> AlembicConfig:
    """An application's own Alembic tree, whose first revision is the guide's and makes the outbox."""
    folder = tmp_path / "alembic"
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text(ENV)
    (folder / "script.py.mako").write_text(MAKO)
    (folder / "versions" / "a1_outbox.py").write_text(REVISION)
    config = AlembicConfig()
    config.set_main_option("script_location", str(folder))
    config.set_main_option("path_separator", "os")
    config.set_main_option("sqlalchemy.url", database.sync_url)
    return config


def options(database: Any, **more: Any) -> DatabaseOptions:
    return DatabaseOptions(url=database.async_url, **more)


def execute(engine: sa.Engine, script: str) -> None:
    """Each statement of *script*."""
    with engine.begin() as connection:
        for statement in re.sub(r"^--.*$", "", script, flags=re.MULTILINE).split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)


def of_the_outbox(engine: sa.Engine) -> dict[str, str]:
    return {name: text for name, text in definitions(engine).items() if name.startswith("outbox")}


def test_the_printed_statements_build_the_same_tables(database: Any, engine: sa.Engine) -> None:
    """
    An operator who runs them has what `migrate` makes; `migrate` and `--check` then find nothing to do.
    """
    execute(engine, sql_script(engine.dialect.name))
    by_hand = of_the_outbox(engine)
    nothing = migrate(options(database)), check(options(database))
    with engine.begin() as connection:
        lanes = connection.scalar(sa.select(sa.func.count()).select_from(tables().lease))
        for table in tables().metadata.sorted_tables:
            table.drop(connection)
    migrate(options(database))

    assert nothing == ([], [])
    assert lanes == (1 if engine.dialect.name == "sqlite" else 128)
    assert of_the_outbox(engine) == by_hand


def test_the_commands_sql_is_for_the_database_of_the_url(tmp_path: Path) -> None:
    """
    Nothing is connected, no file is created; another table's name and what is there are heeded.
    """

    def printed(*words: str, url: str) -> Any:
        settings = ["--set", f"database.url={url}", "--set", "kafka.bootstrap_servers=x:1"]
        return CliRunner().invoke(app, ["migrate", *words, *settings])

    url = f"sqlite+aiosqlite:///{tmp_path}/none.db"
    mysql = printed("--sql", url="mysql+asyncmy://ob:geheim@127.0.0.1:1/shop")
    postgresql = printed("--sql", url="postgresql+asyncpg://ob:geheim@127.0.0.1:1/shop")
    sqlite = printed("--sql", "--set", "database.table=shop_events", url=url)
    nothing = printed("--sql", "--since", str(SCHEMA_VERSION), url=url)
    both = printed("--sql", "--check", url=url)

    assert mysql.output == sql_script("mysql")
    assert "ENGINE=InnoDB" in mysql.output
    assert postgresql.output == sql_script("postgresql")
    assert "WHERE status <> 1" in postgresql.output
    assert sqlite.output == sql_script("sqlite", table="shop_events")
    assert "CREATE TABLE IF NOT EXISTS shop_events (" in sqlite.output
    assert nothing.output == ""
    assert both.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_check_tells_what_is_missing(database: Any, engine: sa.Engine) -> None:
    """
    Each step, and what somebody took away since; nothing is changed.
    """
    before = check(options(database))
    untouched = definitions(engine)
    migrate(options(database))
    after = check(options(database))
    with engine.begin() as connection:
        on = " ON outbox" if engine.dialect.name in ("mysql", "mariadb") else ""
        if on:
            connection.exec_driver_sql("SET SESSION sql_mode = ''")  # see docs/reference/table.md
        connection.exec_driver_sql(f"DROP INDEX outbox_pending_ix{on}")
        connection.exec_driver_sql("DROP TABLE outbox_control")
        connection.exec_driver_sql("ALTER TABLE outbox DROP COLUMN headers")
    damaged = check(options(database))

    assert before == STEPS
    assert untouched == {}
    assert after == []
    assert sorted(line.partition(";")[0] for line in damaged) == [
        "missing: the column outbox.headers",
        "missing: the index outbox_pending_ix",
        "missing: the table outbox_control",
    ]


def test_check_by_the_command(sqlite_database: Any, tmp_path: Path) -> None:
    """
    1 if anything is missing, 0 if not; it creates no file.
    """

    def run() -> Any:
        settings = [
            *("--set", f"database.url={sqlite_database.async_url}"),
            *("--set", "kafka.bootstrap_servers=x:1"),
        ]
        return CliRunner().invoke(app, ["migrate", "--check", *settings])

    missing = run()
    files = list(tmp_path.iterdir())
    migrate(options(sqlite_database))
    there = run()

    assert (missing.exit_code, missing.output) == (1, "\n".join([*STEPS, ""]))
    assert files == []
    assert (there.exit_code, there.output) == (0, "nothing is missing: the tables are up to date\n")


def test_a_revision_of_the_application_makes_the_tables(
    database: Any, engine: sa.Engine, tree: AlembicConfig
) -> None:
    """
    The same tables as `migrate` makes, which then has nothing to do. Offline it prints them.
    """
    command.upgrade(tree, "head")
    by_revision = of_the_outbox(engine)
    nothing = migrate(options(database))
    command.downgrade(tree, "base")
    gone = of_the_outbox(engine)
    migrate(options(database))

    assert nothing == []
    assert gone == {}
    assert of_the_outbox(engine) == by_revision


def test_a_revision_finds_tables_that_are_there(
    database: Any, engine: sa.Engine, tree: AlembicConfig
) -> None:
    """
    `outbox-relay migrate` came first: the revision leaves them as they are.
    """
    migrate(options(database))
    before = of_the_outbox(engine)
    command.upgrade(tree, "head")

    assert of_the_outbox(engine) == before
    assert sa.inspect(engine).has_table("of_the_application")


def test_a_revision_prints_its_sql(
    engine: sa.Engine, tree: AlembicConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    `alembic upgrade --sql` of the application, without a connection.
    """
    command.upgrade(tree, "head", sql=True)
    up = capsys.readouterr().out
    command.downgrade(tree, "a1:base", sql=True)
    down = capsys.readouterr().out

    assert "CREATE TABLE IF NOT EXISTS outbox (" in up
    assert "INSERT INTO outbox_version (version, min_reader) VALUES (1, 1)" in up
    assert "DROP TABLE IF EXISTS outbox;" in down
    assert definitions(engine) == {}


@pytest.mark.parametrize("status", [Status.PENDING, Status.DEAD, Status.PRODUCED])
def test_no_way_back_while_an_event_is_not_published(
    engine: sa.Engine, tree: AlembicConfig, status: Status
) -> None:
    """
    I2. Pending events and dead letters are not thrown away.
    """
    command.upgrade(tree, "head")
    error = "too_large: x" if status is Status.DEAD else None
    insert = tables().outbox.insert()
    with engine.begin() as connection:
        row = dict(event_name="e", topic="t", payload=b"{}", status=status, last_error=error)
        connection.execute(insert.values(row))

    if status is Status.PRODUCED:
        command.downgrade(tree, "base")
    else:
        with pytest.raises(OutboxRelayError, match="not published"):
            command.downgrade(tree, "base")
    assert sa.inspect(engine).has_table("outbox") == (status is not Status.PRODUCED)


@pytest.mark.parametrize("plain", [False, True])
def test_autogenerate_drops_none_of_our_tables(
    database: Any, tree: AlembicConfig, plain: bool
) -> None:
    """
    With `include_name` in env.py; without it Alembic does, which is why it is there.
    """
    migrate(options(database))
    command.upgrade(tree, "head")
    tree.attributes["plain"] = plain
    command.revision(tree, "look", autogenerate=True)
    [written] = Path(str(tree.get_main_option("script_location")), "versions").glob("*_look.py")
    text = written.read_text()

    assert "create_table('orders'" in text
    assert "drop_table('of_the_application')" in text
    assert ("outbox" in text) == plain


def test_another_table_and_its_neighbours() -> None:
    """
    The whole name decides, and parts of our tables follow their table.
    """
    outbox = tables().outbox

    assert not include_name("shop_events_lease", "table", {}, table="shop_events")
    assert include_name("outbox", "table", {}, table="shop_events")
    assert include_name("outbox_of_letters", "table", {})
    assert include_name(None, "schema", {})
    assert not include_name("outbox_pending_ix", "index", {"table_name": "outbox"})
    assert not include_object(outbox, "outbox", "table", False, None)
    assert not include_object(outbox.c.id, "id", "column", True, None)
    assert include_object(sa.Table("orders", sa.MetaData()), "orders", "table", False, None)


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION + 1))
def test_up_from_every_released_version(database: Any, engine: sa.Engine, version: int) -> None:
    """
    The tables as that version made them, with rows in them, become those of this release; the rows
    stay as they were.
    """
    kind = "mysql" if engine.dialect.name == "mariadb" else engine.dialect.name
    execute(engine, (RELEASED / f"{version:04d}_{kind}.sql").read_text())
    with engine.begin() as connection:
        for topic in ("a", "b"):
            connection.exec_driver_sql(
                f"INSERT INTO outbox (event_name, topic, payload) VALUES ('e', '{topic}', '{{}}')"
            )
        connection.exec_driver_sql("UPDATE outbox SET status = 1 WHERE topic = 'b'")
    applied = migrate(options(database))
    upgraded = of_the_outbox(engine)
    with engine.begin() as connection:
        rows = connection.exec_driver_sql("SELECT topic, status FROM outbox ORDER BY id").all()
        for table in tables().metadata.sorted_tables:
            table.drop(connection)
    migrate(options(database))

    assert len(applied) == SCHEMA_VERSION - version
    assert [tuple(row) for row in rows] == [("a", 0), ("b", 1)]
    assert upgraded == of_the_outbox(engine)
