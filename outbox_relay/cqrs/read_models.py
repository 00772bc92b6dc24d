"""
Read models: documents that event handlers keep current, and that queries filter and sort.

`SqlReadModels` keeps them in one table, in the transaction of the unit of work: a query never sees a
document whose command was rolled back, nor misses one whose command was committed. A read model that
is asked for millions of times has a table of its own, with columns and indexes for its queries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from outbox_relay.cqrs.buses import current_session

Document = dict[str, Any]
"""JSON: text, numbers, true and false, None, lists and objects of these."""

MAX_COLLECTION_CHARS = 64
MAX_ID_CHARS = 190


class ReadModelStorage(Protocol):
    """Documents, by collection and id."""

    async def save_document(self, collection: str, document_id: str, document: Document) -> None:
        """Put *document* in the place of the one with this id, if there is one."""

    async def delete_document(self, collection: str, document_id: str) -> None:
        """Take it away, if it is there."""

    async def get_document(self, collection: str, document_id: str) -> Document | None:
        """The document; None if there is none."""

    async def query_documents(
        self,
        collection: str,
        *,
        filters: Mapping[str, Any] | None = None,
        limit: int = 50,
        offset: int = 0,
        sort_by: str | None = None,
        sort_order: Literal["asc", "desc"] = "asc",
    ) -> list[Document]:
        """
        Those whose fields equal *filters*, sorted by the text of a field, then by id.

        Raises ValueError for a page or an order that cannot be.
        """


def read_model_table(metadata: sa.MetaData, name: str = "read_models") -> sa.Table:
    """The table, as a part of your *metadata*: your own migrations make it."""
    return sa.Table(
        name,
        metadata,
        sa.Column("collection", sa.String(MAX_COLLECTION_CHARS), primary_key=True),
        sa.Column("document_id", sa.String(MAX_ID_CHARS), primary_key=True),
        sa.Column("document", sa.JSON, nullable=False),
    )


class SqlReadModels:
    """
    `ReadModelStorage` in *table*.

    * session: gives the session; default: that of the unit of work that the task is in
    """

    def __init__(
        self, table: sa.Table, *, session: Callable[[], AsyncSession] = current_session
    ) -> None:
        self._table = table
        self._session = session

    async def save_document(self, collection: str, document_id: str, document: Document) -> None:
        """See ReadModelStorage."""
        session = self._session()
        values = {"collection": collection, "document_id": document_id, "document": document}
        dialect = session.get_bind().dialect.name
        await session.execute(_put(self._table, dialect, values))

    async def delete_document(self, collection: str, document_id: str) -> None:
        """See ReadModelStorage."""
        where = self._where(collection, document_id)
        await self._session().execute(sa.delete(self._table).where(where))

    async def get_document(self, collection: str, document_id: str) -> Document | None:
        """See ReadModelStorage."""
        query = sa.select(self._table.c.document).where(self._where(collection, document_id))
        document: Document | None = await self._session().scalar(query)
        return document

    async def query_documents(
        self,
        collection: str,
        *,
        filters: Mapping[str, Any] | None = None,
        limit: int = 50,
        offset: int = 0,
        sort_by: str | None = None,
        sort_order: Literal["asc", "desc"] = "asc",
    ) -> list[Document]:
        """See ReadModelStorage."""
        if limit <= 0 or offset < 0:
            raise ValueError(f"limit = {limit} and offset = {offset} are no page")
        if sort_order not in ("asc", "desc"):
            raise ValueError(f"sort_order = {sort_order!r} must be asc or desc")
        table = self._table
        query = sa.select(table.c.document).where(table.c.collection == collection)
        for field, value in (filters or {}).items():
            query = query.where(self._equals(field, value))
        turn = sa.desc if sort_order == "desc" else sa.asc
        if sort_by is not None:
            query = query.order_by(turn(table.c.document[sort_by].as_string()))
        query = query.order_by(turn(table.c.document_id)).limit(limit).offset(offset)
        return list(await self._session().scalars(query))

    def _where(self, collection: str, document_id: str) -> sa.ColumnElement[bool]:
        table = self._table
        return sa.and_(table.c.collection == collection, table.c.document_id == document_id)

    def _equals(self, field: str, value: Any) -> sa.ColumnElement[bool]:
        element = self._table.c.document[field]
        kinds: dict[type, Callable[[], sa.ColumnElement[Any]]] = {
            bool: element.as_boolean,
            int: element.as_integer,
            float: element.as_float,
            str: element.as_string,
        }
        kind = kinds.get(type(value))
        if kind is None:
            raise TypeError(
                f"filter {field!r}: a {type(value).__name__} cannot be compared in JSON"
            )
        equals: sa.ColumnElement[bool] = kind() == value
        return equals


def _put(table: sa.Table, dialect: str, values: dict[str, Any]) -> sa.Executable:
    # One statement. To look first would lock the gap where the row is not, and two writers of new
    # documents would each wait for the other's gap.
    document = {"document": values["document"]}
    if dialect in ("mysql", "mariadb"):
        return mysql.insert(table).values(values).on_duplicate_key_update(document)
    key = ("collection", "document_id")
    if dialect == "postgresql":
        return (
            postgresql.insert(table)
            .values(values)
            .on_conflict_do_update(index_elements=key, set_=document)
        )
    return (
        sqlite.insert(table).values(values).on_conflict_do_update(index_elements=key, set_=document)
    )
