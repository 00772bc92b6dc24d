"""
Every error that outbox-relay raises, and what it means for an event.

* OutboxRelayError
  + WriteError                 the call is refused before anything is written
    - EventTooLarge            more bytes than max_event_bytes, or than one statement may hold
    - NotSerializable          the payload cannot be turned into bytes
    - InvalidTopic             Kafka would refuse the topic's name
    - InvalidName              the event has no name, or one that does not fit
    - InvalidKey               the key is of a type that has no agreed encoding
    - MissingKey               a key was named and is None, or nobody said whether there is one
    - InvalidHeader            a header is not text, or belongs to the relay
    - AutocommitHandle         the handle commits each statement, so nothing would be atomic
    - AddNotAwaited            outbox.add(...) was called on an async handle and never awaited
  + ConfigError                a setting is wrong; the relay does not start
  + CredentialsError           a secret or a certificate cannot be read; it is read again and again
  + SchemaMismatch             the table is missing, older or newer than this version serves; it waits
  + StoreUnavailable           the database does not answer; everything waits, nothing is given up
    - ServerChanged            another server answers: ids mean something else now; a new term begins
    - ServerReadOnly           the server only reads: after a failover it is the old primary
  + LeaseLost                  another relay holds the lanes now; drop our result
  + PublishError               what kept a record from being published
    - TopicUnavailable         missing, unauthorised or misconfigured: the topic pauses
    - BrokerUnavailable        no broker answers: everything waits; no event loses an attempt
  + ConsumeError               a record that was consumed cannot be handled, now and every time
    - UnreadableRecord         its bytes are not what its headers or its envelope say
    - UnidentifiedRecord       nothing in it says which event it is
    - WrongEvent               it carries another event than the class that was asked
  + AuditError                 the audit cannot go on; what was read is kept in its work file
"""

from __future__ import annotations


class OutboxRelayError(Exception):
    """Base of every error raised by this package."""


class WriteError(OutboxRelayError, ValueError):
    """The call is refused; nothing was written, and the transaction is as it was."""


class EventTooLarge(WriteError):
    """The event, or the statement that would hold it, has more bytes than allowed."""


class NotSerializable(WriteError):
    """The payload cannot be turned into bytes."""


class InvalidTopic(WriteError):
    """Kafka would refuse the topic: 1 to 249 of ``a-z A-Z 0-9 . _ -``, but not ``.`` or ``..``."""


class InvalidName(WriteError):
    """The event has no name, or one longer than the table holds."""


class InvalidKey(WriteError):
    """The key is not bytes, str, int or UUID, or it is longer than the table holds."""


class MissingKey(WriteError):
    """A named key is None, or nobody said whether the event has a key."""


class InvalidHeader(WriteError):
    """A header's name or value is not text, or the name belongs to the relay."""


class AutocommitHandle(WriteError):
    """The handle commits every statement by itself, so state and event could part."""


class AddNotAwaited(WriteError):
    """``outbox.add(...)`` on an async handle was not awaited before the commit."""


class ConfigError(OutboxRelayError):
    """One or more settings are wrong; `problems` has one line for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class CredentialsError(OutboxRelayError):
    """A secret or a certificate cannot be read. Names the setting and the file, never the content."""


class SchemaMismatch(OutboxRelayError):
    """The table does not fit this version. The relay stays alive and looks again."""


class StoreUnavailable(OutboxRelayError):
    """The database does not answer, or not as it should. Everything waits."""

    ends_term = False
    """Whether what the relay remembers of the database may be void: a new term must begin."""


class ServerChanged(StoreUnavailable):
    """Another server answers under the same address: cursors and queued marks are void."""

    ends_term = True


class ServerReadOnly(StoreUnavailable):
    """The server only reads. Every connection to it is given up: the primary may be another one."""

    ends_term = True


class LeaseLost(OutboxRelayError):
    """The term is no longer the current one; nothing was changed. `lanes` are those that are lost."""

    def __init__(self, message: str, lanes: frozenset[int] = frozenset()) -> None:
        super().__init__(message)
        self.lanes = lanes


class PublishError(OutboxRelayError):
    """A record was not published."""


class TopicUnavailable(PublishError):
    """The topic is missing, unauthorised or misconfigured. It pauses; no event is given up."""

    unauthorised = False
    """Whether the topic is there, and the relay may not write to it."""


class BrokerUnavailable(PublishError):
    """No broker answers. Everything waits; no event loses an attempt."""


class ConsumeError(OutboxRelayError, ValueError):
    """A consumed record cannot be handled, however often it is tried. The text says where it is."""


class UnreadableRecord(ConsumeError):
    """Its bytes are not what its headers or its envelope say: not JSON, damaged, too large."""


class UnidentifiedRecord(ConsumeError):
    """It has no id, so nobody can say whether it came before."""


class WrongEvent(ConsumeError):
    """It carries an event of another name, or none."""


class AuditError(OutboxRelayError):
    """The audit cannot begin or go on. The text says what to do; what was read is kept."""
