"""
`SqlAlchemyOutboxedEventRepository`: a unit of work over `Outbox`, for code written for this name.

Events are queued with their session and written when the repository commits it, in the same
transaction. `Outbox.add` needs no queue; take it where nothing asks for a repository.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakKeyDictionary

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from outbox_relay.compression import Compressor, ZlibCompressor
from outbox_relay.events import UNSET, OutboxedEvent, Unset
from outbox_relay.outbox import guard
from outbox_relay.outbox.encode import EventLabel, Key, Payload, Said
from outbox_relay.outbox.handles import execute, refuse_declared_autocommit
from outbox_relay.outbox.outbox import Outbox

if TYPE_CHECKING:
    SessionFactory: TypeAlias = async_sessionmaker[AsyncSession] | Callable[[], AsyncSession]


@dataclass(frozen=True, slots=True)
class _Queued:
    event: OutboxedEvent
    note: guard.Note


# The open sessions of each task, with their repositories: a repository may serve many at once.
_open: ContextVar[tuple[tuple[SqlAlchemyOutboxedEventRepository, AsyncSession], ...]] = ContextVar(
    "open", default=()
)


class SqlAlchemyOutboxedEventRepository:
    """
    A unit of work: state changes of a session, and the events that belong to them.

    ``async with repository as session`` opens a session of *session_factory* and closes it; what
    was not committed is gone. One repository serves any number of tasks at once.

    * compressor: of large payloads; None switches it off
    * outbox: your own, for everything else that can be set; it then brings its own compressor
    """

    def __init__(
        self,
        session_factory: SessionFactory,
        compressor: Compressor | None | Unset = UNSET,
        *,
        outbox: Outbox | None = None,
    ) -> None:
        if outbox is not None and not isinstance(compressor, Unset):
            raise TypeError("say compressor or outbox: an outbox has its own, Outbox(compressor=)")
        if isinstance(compressor, Unset):
            compressor = ZlibCompressor()
        self._outbox = Outbox(compressor=compressor) if outbox is None else outbox
        self._session_factory = session_factory
        # By session, and gone with it.
        self._queues: WeakKeyDictionary[Session, list[_Queued]] = WeakKeyDictionary()

    @property
    def outbox(self) -> Outbox:
        """What writes the events."""
        return self._outbox

    @property
    def session_factory(self) -> SessionFactory:
        """What makes the sessions."""
        return self._session_factory

    async def __aenter__(self) -> AsyncSession:
        session = self._session_factory()
        if not isinstance(session, AsyncSession):
            raise TypeError(
                f"session_factory made a {type(session).__name__}: "
                "it must make AsyncSessions, such as async_sessionmaker(engine)"
            )
        _open.set((*_open.get(), (self, session)))
        return session

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        opened = _open.get()
        for place in reversed(range(len(opened))):
            repository, session = opened[place]
            if repository is self:
                _open.set(opened[:place] + opened[place + 1 :])
                await session.close()
                return
        raise RuntimeError("the repository was not entered in this task: use one `async with`")

    def add(
        self,
        session: AsyncSession,
        event: Payload,
        *,
        name: str | Unset = UNSET,
        topic: str | None = None,
        key: Key | Unset = UNSET,
        headers: Mapping[str, str] | None = None,
        content_type: str | None = None,
    ) -> None:
        """
        Queue *event* to be written by `commit`. Any other commit of *session* raises a WriteError.

        Raises a WriteError that names the event if it is refused, as `Outbox.add` does. A rollback,
        also of the SAVEPOINT that it was queued in, drops it.
        """
        outbox, sync = self._outbox, _sync(session)
        said = Said(name=name, topic=topic, key=key, headers=headers, content_type=content_type)
        [encoded] = outbox._encode((event,), said)
        label = EventLabel(encoded.event_name, encoded.event_id)
        refuse_declared_autocommit(sync, outbox._statement, label)
        if not sync.in_transaction():
            # As session.add() does. Else a rollback would have nothing to end, and drop nothing.
            sync.begin()
        note = guard.expect_own_commit(sync, outbox._statement, label)
        queue = self._queues.setdefault(sync, [])
        if queue and queue[0].note.is_settled:
            queue[:] = self._queued(sync)
        queue.append(_Queued(encoded, note))

    async def commit(self, session: AsyncSession) -> None:
        """
        Write the state changes, then the queued events, and commit both.

        If anything fails nothing is committed, and *session* can only be rolled back.
        """
        sync = _sync(session)
        # State first: its rows are what keeps two transactions on one key in order.
        await session.flush()
        queued = self._queued(sync)
        if queued:
            await session.run_sync(self._write, [item.event for item in queued])
            guard.fulfil({item.note for item in queued})
            del self._queues[sync]
        try:
            await session.commit()
        except BaseException:
            # SQLite keeps a transaction open whose COMMIT it refused, and its connection would go
            # back to the pool as it is: the next user's COMMIT would make it true.
            await session.rollback()
            raise

    async def rollback(self, session: AsyncSession) -> None:
        """Undo the state changes and drop the queued events."""
        await session.rollback()

    def _queued(self, sync: Session) -> list[_Queued]:
        """What is queued and was not dropped by a rollback since."""
        return [item for item in self._queues.get(sync, ()) if not item.note.is_settled]

    def _write(self, sync: Session, events: list[OutboxedEvent]) -> None:
        outbox = self._outbox
        label = EventLabel(events[0].event_name, events[0].event_id)
        execute(sync, outbox._statement, outbox._rows(events), label, outbox._wake)


def _sync(session: AsyncSession) -> Session:
    if not isinstance(session, AsyncSession):
        raise TypeError(f"the repository takes an AsyncSession, not {type(session).__name__}")
    return session.sync_session
