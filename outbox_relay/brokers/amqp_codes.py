"""
What each error of aio-pika means for a batch, as data.

A line is: class, the name that AMQP has for it, what follows, and why. ``docs/reference/error-codes.md``
shows it. The classes are those of aiormq, which aio-pika is built on and whose names it exports; the
names in capitals are reply codes of AMQP 0-9-1. What is not here is published again, counted and logged.
"""

from __future__ import annotations

from outbox_relay.relay.known import Known, Meaning

_SOURCE = "aiormq/exceptions.py, rabbitmq.com/amqp-0-9-1-reference"

_WORDS = {
    "rejected": Meaning.REJECTED,
    "again": Meaning.PUBLISH_AGAIN,
    "topic": Meaning.PAUSE_TOPIC,
    "all": Meaning.PAUSE_ALL,
    "unexpected": Meaning.UNEXPECTED,
}

_CLASSES = """
AMQPError AMQPError again whatever has no class of its own
AMQPConnectionError AMQPConnectionError all nobody answers there, or the connection broke: what was under way is unknown
IncompatibleProtocolError IncompatibleProtocolError all it speaks another protocol: check the port of amqp.url
AuthenticationError ACCESS_REFUSED(403) all the log-in is refused: secrets are replaced while we run, so it is tried again
ProbableAuthenticationError ACCESS_REFUSED(403) all the same, by a server that closes without a word
ConnectionClosed CONNECTION_FORCED(320) all the server or an operator closed the connection
ConnectionSyntaxError SYNTAX_ERROR(502) all the server takes what we say for malformed
ConnectionFrameError FRAME_ERROR(501) all the same
ConnectionCommandInvalid COMMAND_INVALID(503) all the same
ConnectionChannelError CHANNEL_ERROR(504) all the server knows the channel no more
ConnectionUnexpectedFrame UNEXPECTED_FRAME(505) all the server takes what we say for malformed
ConnectionResourceError RESOURCE_ERROR(506) all a limit of the server, such as of channels
ConnectionNotAllowed NOT_ALLOWED(530) all no right to the vhost, or it is not there
ConnectionNotImplemented NOT_IMPLEMENTED(540) all the server cannot do what we ask
ConnectionInternalError INTERNAL_ERROR(541) all the server has an error of its own
AMQPChannelError AMQPChannelError again the channel closed; what was under way is unknown
ChannelClosed ChannelClosed again the same
ChannelAccessRefused ACCESS_REFUSED(403) topic no right to write to the exchange: a setting, not the event's fault
ChannelNotFoundEntity NOT_FOUND(404) topic there is no such exchange
ChannelLockedResource RESOURCE_LOCKED(405) topic somebody has the queue for himself
ChannelPreconditionFailed PRECONDITION_FAILED(406) topic a rule of the server, see the next line for the one about sizes
MessageTooLarge PRECONDITION_FAILED(406) rejected larger than the server's max_message_size: too_large, after bisection
ProtocolSyntaxError ProtocolSyntaxError all the answers make no sense: the connection is given up
InvalidFrameError InvalidFrameError all the same
MethodNotImplemented NOT_IMPLEMENTED(540) all the server cannot confirm what it takes
DeliveryError basic.nack again the server could not take the message, such as a queue that is full and refuses
PublishError NO_ROUTE(312) rejected no queue takes it: unroutable; with amqp.unroutable = pause the topic waits instead
ChannelInvalidStateError ChannelInvalidStateError again the channel is closed: a new one is opened
DuplicateConsumerTag DuplicateConsumerTag unexpected not raised to a publisher
BrokerUnavailable BrokerUnavailable all no server lets us in
"""


def _classes() -> list[Known]:
    found = []
    for line in _CLASSES.strip().splitlines():
        kind, name, word, why = line.split(" ", 3)
        found.append(Known(kind, name.replace("(", " ("), _WORDS[word], why, _SOURCE))
    return found


CLASSES: tuple[Known, ...] = tuple(_classes())
