"""
What each Kafka error means for a batch. Codes: kafka.apache.org/protocol, "Error Codes".

Only a short list may reject records or pause a topic; whatever is not on it leaves the outcome
unknown, and the records are published again.
"""

from __future__ import annotations

from aiokafka import errors as kafka
from aiokafka.errors import BrokerResponseError, KafkaError

from outbox_relay.relay.outcomes import Fault, Outcome, Rejected, RejectReason, Unknown


class InvalidRecordError(BrokerResponseError):  # type: ignore[misc]
    """Code 87, which aiokafka does not know: such as a record without a key on a compacted topic."""

    errno = 87
    message = "INVALID_RECORD"
    description = "The broker refuses the record."


# aiokafka turns codes it does not know into UnknownError, which would be published for ever.
kafka.kafka_errors.setdefault(InvalidRecordError.errno, InvalidRecordError)

_REJECTED: dict[type[KafkaError], RejectReason] = {
    kafka.MessageSizeTooLargeError: RejectReason.TOO_LARGE,  # 10
    kafka.RecordListTooLargeError: RejectReason.TOO_LARGE,  # 18
    InvalidRecordError: RejectReason.INVALID_RECORD,  # 87
}

_TOPIC: tuple[type[BaseException], ...] = (
    kafka.UnknownTopicOrPartitionError,  # 3
    kafka.InvalidTopicError,  # 17
    kafka.TopicAuthorizationFailedError,  # 29
    kafka.InvalidTimestampError,  # 32
    kafka.UnsupportedForMessageFormatError,  # 43
    kafka.PolicyViolationError,  # 44
    # aiokafka asserts that it knows the partition: the topic was made anew with fewer.
    AssertionError,
)


def outcome_of(error: BaseException) -> Outcome:
    """What *error*, which ended a batch, says of its records."""
    detail = f"{type(error).__name__}: {error}"
    for kind, reason in _REJECTED.items():
        if isinstance(error, kind):
            return Rejected(reason=reason, detail=detail)
    if isinstance(error, _TOPIC):
        return Unknown(fault=Fault.TOPIC, detail=detail)
    return Unknown(fault=Fault.PARTITION, detail=detail)
