"""
Runs the revisions. `outbox-relay migrate` brings a connection and the table's name.

With Alembic's own command line, `-x table=NAME` names the table and `-x url=URL` (a synchronous
driver) the database; `-x schema=NAME` is another database of its server, for the tables.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import context


def _run(connection: sa.Connection, **names: Any) -> None:
    context.configure(
        connection=connection,
        version_table=f"{names['table']}_alembic_version",
        version_table_schema=names["schema"],
    )
    with context.begin_transaction():
        context.run_migrations(**names)


def _main() -> None:
    arguments = context.get_x_argument(as_dictionary=True)
    attributes = context.config.attributes
    table = attributes.get("table") or arguments.get("table", "outbox")
    schema = attributes.get("schema") or arguments.get("schema")
    connection = attributes.get("connection")
    if connection is not None:
        _run(connection, table=table, schema=schema)
        return
    if context.is_offline_mode() or "url" not in arguments:
        raise SystemExit("no database: run `outbox-relay migrate`, or give -x url=URL")
    with sa.create_engine(arguments["url"], hide_parameters=True).begin() as own:
        _run(own, table=table, schema=schema)


_main()
