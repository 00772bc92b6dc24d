"""What follows a commit within this process: totals are counted anew, and clients hear of it."""

from __future__ import annotations

from examples.bookstore.models import Author, Book
from examples.bookstore.paging import CountCache
from examples.bookstore.ws.connections import ConnectionManager
from examples.bookstore.ws.constants import PkgID
from examples.bookstore.ws.frames import ResponseModel

MAY_HEAR = ("view-books",)
"""The roles of who hears of books: those who may also ask for them."""


class News:
    """Called after the commit, and never without one."""

    def __init__(self, counts: CountCache, connections: ConnectionManager) -> None:
        self._counts = counts
        self._connections = connections

    def author_created(self) -> None:
        """There is one more author."""
        self._counts.invalidate(Author.__tablename__)

    def book_created(self, book_id: int, title: str) -> None:
        """There is one more book."""
        self._counts.invalidate(Book.__tablename__)
        self._tell(PkgID.BOOK_CREATED, id=book_id, title=title, action="created")

    def book_updated(self, book_id: int, title: str) -> None:
        """A book is another one now; so may be the number of books with its old and new values."""
        self._counts.invalidate(Book.__tablename__)
        self._tell(PkgID.BOOK_UPDATED, id=book_id, title=title, action="updated")

    def book_deleted(self, book_id: int) -> None:
        """There is one book less."""
        self._counts.invalidate(Book.__tablename__)
        self._tell(PkgID.BOOK_DELETED, id=book_id, action="deleted")

    def _tell(self, pkg_id: PkgID, **data: str | int) -> None:
        self._connections.broadcast(ResponseModel.broadcast(pkg_id, dict(data)), roles=MAY_HEAR)
