"""
How a consuming service gets the inbox' tables: by the library, by Alembic, by a script for a DBA.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations

from outbox_relay.autogenerate import include_name
from outbox_relay.consumer import Inbox
from outbox_relay.inbox_schema import downgrade, inbox_tables, sql_script, upgrade
from tests.services.database import Database


@pytest.fixture(params=("mariadb", "mysql", "postgresql", "sqlite"))
def engine(request: pytest.FixtureRequest) -> Iterator[sa.Engine]:
    """An empty database of each kind."""
    database: Database = request.getfixturevalue(f"{request.param}_database")
    made = sa.create_engine(database.sync_url)
    yield made
    made.dispose()


def shape(engine: sa.Engine) -> dict[str, object]:
    """What there is, without names that the server gives."""
    inspector = sa.inspect(engine)
    return {
        name: (
            [
                (column["name"], str(column["type"]), column["nullable"])
                for column in inspector.get_columns(name)
            ],
            inspector.get_pk_constraint(name)["constrained_columns"],
            sorted(str(index["column_names"]) for index in inspector.get_indexes(name)),
        )
        for name in inspector.get_table_names()
    }


def test_each_way_makes_the_same_tables(engine: sa.Engine) -> None:
    """
    `create`, `upgrade` in a revision (twice: what is there stays) and the script.
    """
    inbox = Inbox("billing")
    inbox.create(engine)
    by_create = shape(engine)
    inbox.metadata.drop_all(engine)
    with engine.begin() as connection:
        op = Operations(MigrationContext.configure(connection))
        upgrade(op)
        upgrade(op)
    by_upgrade = shape(engine)
    with engine.begin() as connection:
        downgrade(Operations(MigrationContext.configure(connection)))
    assert shape(engine) == {}
    with engine.begin() as connection:
        for statement in sql_script(engine.dialect.name).split(";"):
            if statement.strip():
                connection.exec_driver_sql(statement)

    assert by_create.keys() == {"inbox", "inbox_latest"}
    assert by_create == by_upgrade == shape(engine)


def test_autogenerate_leaves_the_inbox_alone_or_takes_it_in(engine: sa.Engine) -> None:
    """
    Left out by name; or part of the application's own metadata, and then without a difference.
    """
    Inbox("billing").create(engine)

    def differences(metadata: sa.MetaData, *, leave_out: bool) -> list[object]:
        def include(name: str | None, kind: str, parents: dict[str, str | None]) -> bool:
            return not leave_out or include_name(name, kind, parents, inbox="inbox")

        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"include_name": include})
            found: list[object] = compare_metadata(context, metadata)
            return found

    assert differences(sa.MetaData(), leave_out=True) == []
    assert differences(sa.MetaData(), leave_out=False) != []
    assert differences(inbox_tables().metadata, leave_out=False) == []


def test_a_name_that_is_no_identifier_is_refused() -> None:
    """
    Names become part of SQL text.
    """
    with pytest.raises(ValueError, match="cannot name a table"):
        Inbox("billing", table="inbox; DROP TABLE orders")
    with pytest.raises(ValueError, match="name who handles"):
        Inbox("")
