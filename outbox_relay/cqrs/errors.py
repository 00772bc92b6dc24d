"""
What the command side raises besides the errors of `outbox_relay.errors`.

* CqrsError
  + HandlerNotFoundError       nobody handles this command, query or event
  + HandlerAlreadyBound        a second handler for one command or query
  + InvalidHandler             what was bound is no handler
  + HandlerNotResolved         the container cannot make the handler
  + StaleEvents                the handler still has the events of an earlier request
  + NoWayOut                   an event should leave the process, and nothing is there to take it
  + CommitRefused              a handler tried to commit the transaction of its unit of work
  + RolledBack                 a part of the unit of work failed, so the whole was rolled back
  + UnitEnded                  the unit of work is over: nobody would commit what comes now
  + ValidationError            a command or query says of itself that it is wrong
* DirectPublishWarning         events go straight to the broker: a crash loses them
"""

from __future__ import annotations

from outbox_relay.errors import OutboxRelayError


class CqrsError(OutboxRelayError):
    """Base of every error of the command side."""


class HandlerNotFoundError(CqrsError, LookupError):
    """Nobody handles this command, query or event. Nothing was done."""


class HandlerAlreadyBound(CqrsError, ValueError):
    """A command or query has one handler, and has it already."""


class InvalidHandler(CqrsError, TypeError):
    """What was bound cannot handle anything."""


class HandlerNotResolved(CqrsError):
    """The container cannot make the handler, or something that it asks for."""


class StaleEvents(CqrsError):
    """The handler came with events of an earlier request, which would go out twice."""


class NoWayOut(CqrsError):
    """An event should leave the process, but there is neither an outbox nor a broker."""


class CommitRefused(CqrsError):
    """The session belongs to a unit of work, which commits it together with its events."""


class RolledBack(CqrsError):
    """A part of the unit of work had failed, so all of it was rolled back at its end."""


class UnitEnded(CqrsError):
    """The unit of work is over: nobody would commit what comes now."""


class ValidationError(CqrsError, ValueError):
    """A command or query says of itself that it is wrong. Nothing was touched."""


class DirectPublishWarning(UserWarning):
    """Events are handed to the broker after the handler: a crash in between loses them."""
