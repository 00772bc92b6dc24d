"""
What each answer of Kafka and each error of aiokafka means for a batch, as data.

A line is: code or class, Kafka's name of it, what follows, and why. ``docs/reference/error-codes.md``
shows it. The names and numbers are those of Kafka 4.1, the newest that the tests run; what is not here
is published again, counted and logged.
"""

from __future__ import annotations

from outbox_relay.relay.known import Known, Meaning

_PROTOCOL = "kafka.apache.org/protocol"
_AIOKAFKA = "aiokafka/errors.py"
_OURS = "outbox_relay/brokers"

_WORDS = {
    "acked": Meaning.ACKED,
    "rejected": Meaning.REJECTED,
    "again": Meaning.PUBLISH_AGAIN,
    "topic": Meaning.PAUSE_TOPIC,
    "all": Meaning.PAUSE_ALL,
}

_ANSWERS = """
2 CORRUPT_MESSAGE again damaged on the way; before Kafka 2.4 also a record without key on a compacted topic
3 UNKNOWN_TOPIC_OR_PARTITION topic only when a broker answers with metadata: an outage can look like it
5 LEADER_NOT_AVAILABLE again an election is under way
6 NOT_LEADER_OR_FOLLOWER again the leader moved; the old one may have stored the batch
7 REQUEST_TIMED_OUT again the replicas did not answer in time; the batch is stored on the leader
8 BROKER_NOT_AVAILABLE again a broker is away
9 REPLICA_NOT_AVAILABLE again a replica is away
10 MESSAGE_TOO_LARGE rejected larger than the topic's max.message.bytes: too_large, after bisection
13 NETWORK_EXCEPTION again the connection between brokers broke
14 COORDINATOR_LOAD_IN_PROGRESS again numbers for producers are not yet to be had
15 COORDINATOR_NOT_AVAILABLE again the same
16 NOT_COORDINATOR again the same
17 INVALID_TOPIC_EXCEPTION topic no topic can have this name, or it is internal
18 RECORD_LIST_TOO_LARGE rejected larger than a segment: too_large, after bisection
19 NOT_ENOUGH_REPLICAS again fewer replicas in sync than min.insync.replicas; nothing is stored
20 NOT_ENOUGH_REPLICAS_AFTER_APPEND again the same, found out later: the batch is stored on the leader
29 TOPIC_AUTHORIZATION_FAILED topic no right to Write to the topic: a setting, not the event's fault
31 CLUSTER_AUTHORIZATION_FAILED all no right to IdempotentWrite, or to the cluster
32 INVALID_TIMESTAMP topic the topic refuses our timestamps: a clock or message.timestamp.*.max.ms is wrong
33 UNSUPPORTED_SASL_MECHANISM all kafka.sasl_mechanism is not offered
34 ILLEGAL_SASL_STATE all the log-in went wrong
35 UNSUPPORTED_VERSION all broker and client have no version of the request in common
41 NOT_CONTROLLER again the controller moved
42 INVALID_REQUEST again the broker takes the request for malformed
43 UNSUPPORTED_FOR_MESSAGE_FORMAT topic the topic is kept in a format without headers
44 POLICY_VIOLATION topic a policy of the broker refuses it
45 OUT_OF_ORDER_SEQUENCE_NUMBER again a batch before it was lost: a new producer begins to count anew
46 DUPLICATE_SEQUENCE_NUMBER acked the broker has it already; the offset is then -1
47 INVALID_PRODUCER_EPOCH again a newer producer has our number: a new one gets its own
49 INVALID_PRODUCER_ID_MAPPING again the broker forgot the producer: a new one gets its own number
51 CONCURRENT_TRANSACTIONS again not now
53 TRANSACTIONAL_ID_AUTHORIZATION_FAILED all no right to the number that a producer asks for
54 SECURITY_DISABLED all the cluster has no authorizer, and one is asked for
56 KAFKA_STORAGE_ERROR again the disk of the leader is full or fails; another replica takes over
57 LOG_DIR_NOT_FOUND again the leader's folder is gone; another replica takes over
58 SASL_AUTHENTICATION_FAILED all wrong password: secrets are replaced while we run, so it is tried again
59 UNKNOWN_PRODUCER_ID again the broker forgot the producer: a new one gets its own number
61 DELEGATION_TOKEN_AUTH_DISABLED all delegation tokens are switched off
62 DELEGATION_TOKEN_NOT_FOUND all the delegation token is not known
65 DELEGATION_TOKEN_AUTHORIZATION_FAILED all the delegation token has no right
66 DELEGATION_TOKEN_EXPIRED all the delegation token is too old: the next one is read
72 LISTENER_NOT_FOUND again the leader does not listen where we ask (yet)
74 FENCED_LEADER_EPOCH again our metadata is too old
75 UNKNOWN_LEADER_EPOCH again our metadata is newer than the broker's
76 UNSUPPORTED_COMPRESSION_TYPE topic the topic or an old broker does not know kafka.compression
78 OFFSET_NOT_AVAILABLE again an election has just ended
80 PREFERRED_LEADER_NOT_AVAILABLE again an election is under way
83 ELIGIBLE_LEADERS_NOT_AVAILABLE again no replica can lead
87 INVALID_RECORD rejected the record breaks a rule of the topic, such as none without a key: invalid_record
89 THROTTLING_QUOTA_EXCEEDED again a quota: the broker says how long to wait
90 PRODUCER_FENCED again a newer producer has our number: a new one gets its own
97 PRINCIPAL_DESERIALIZATION_FAILURE all the broker cannot read who we are
100 UNKNOWN_TOPIC_ID topic the topic was made anew; its metadata is asked for again
103 INCONSISTENT_TOPIC_ID topic the same
108 NEW_LEADER_ELECTED again the leader moved
129 REBOOTSTRAP_REQUIRED again the brokers that we know are gone: a new producer starts from the bootstrap servers
"""

_NOT_FOR_PRODUCERS = """
-1:UNKNOWN_SERVER_ERROR 1:OFFSET_OUT_OF_RANGE 4:INVALID_FETCH_SIZE 11:STALE_CONTROLLER_EPOCH
12:OFFSET_METADATA_TOO_LARGE 21:INVALID_REQUIRED_ACKS 22:ILLEGAL_GENERATION
23:INCONSISTENT_GROUP_PROTOCOL 24:INVALID_GROUP_ID 25:UNKNOWN_MEMBER_ID
26:INVALID_SESSION_TIMEOUT 27:REBALANCE_IN_PROGRESS 28:INVALID_COMMIT_OFFSET_SIZE
30:GROUP_AUTHORIZATION_FAILED 36:TOPIC_ALREADY_EXISTS 37:INVALID_PARTITIONS
38:INVALID_REPLICATION_FACTOR 39:INVALID_REPLICA_ASSIGNMENT 40:INVALID_CONFIG
48:INVALID_TXN_STATE 50:INVALID_TRANSACTION_TIMEOUT 52:TRANSACTION_COORDINATOR_FENCED
55:OPERATION_NOT_ATTEMPTED 60:REASSIGNMENT_IN_PROGRESS 63:DELEGATION_TOKEN_OWNER_MISMATCH
64:DELEGATION_TOKEN_REQUEST_NOT_ALLOWED 67:INVALID_PRINCIPAL_TYPE 68:NON_EMPTY_GROUP
69:GROUP_ID_NOT_FOUND 70:FETCH_SESSION_ID_NOT_FOUND 71:INVALID_FETCH_SESSION_EPOCH
73:TOPIC_DELETION_DISABLED 77:STALE_BROKER_EPOCH 79:MEMBER_ID_REQUIRED 81:GROUP_MAX_SIZE_REACHED
82:FENCED_INSTANCE_ID 84:ELECTION_NOT_NEEDED 85:NO_REASSIGNMENT_IN_PROGRESS
86:GROUP_SUBSCRIBED_TO_TOPIC 88:UNSTABLE_OFFSET_COMMIT 91:RESOURCE_NOT_FOUND
92:DUPLICATE_RESOURCE 93:UNACCEPTABLE_CREDENTIAL 94:INCONSISTENT_VOTER_SET
95:INVALID_UPDATE_VERSION 96:FEATURE_UPDATE_FAILED 98:SNAPSHOT_NOT_FOUND
99:POSITION_OUT_OF_RANGE 101:DUPLICATE_BROKER_REGISTRATION 102:BROKER_ID_NOT_REGISTERED
104:INCONSISTENT_CLUSTER_ID 105:TRANSACTIONAL_ID_NOT_FOUND 106:FETCH_SESSION_TOPIC_ID_ERROR
107:INELIGIBLE_REPLICA 109:OFFSET_MOVED_TO_TIERED_STORAGE 110:FENCED_MEMBER_EPOCH
111:UNRELEASED_INSTANCE_ID 112:UNSUPPORTED_ASSIGNOR 113:STALE_MEMBER_EPOCH
114:MISMATCHED_ENDPOINT_TYPE 115:UNSUPPORTED_ENDPOINT_TYPE 116:UNKNOWN_CONTROLLER_ID
117:UNKNOWN_SUBSCRIPTION_ID 118:TELEMETRY_TOO_LARGE 119:INVALID_REGISTRATION
120:TRANSACTION_ABORTABLE 121:INVALID_RECORD_STATE 122:SHARE_SESSION_NOT_FOUND
123:INVALID_SHARE_SESSION_EPOCH 124:FENCED_STATE_EPOCH 125:INVALID_VOTER_KEY 126:DUPLICATE_VOTER
127:VOTER_NOT_FOUND 128:INVALID_REGULAR_EXPRESSION 130:STREAMS_INVALID_TOPOLOGY
131:STREAMS_INVALID_TOPOLOGY_EPOCH 132:STREAMS_TOPOLOGY_FENCED 133:SHARE_SESSION_LIMIT_REACHED
"""

_CLASSES = """
KafkaError again whatever has no class of its own
NoBrokersAvailable all no broker of kafka.bootstrap_servers answers
NodeNotReadyError again the broker cannot be connected to now
CorrelationIdError again two answers were mixed up: the connection is closed
Cancelled again the connection was closed with the request under way
TooManyInFlightRequests again not now
StaleMetadata again our metadata is too old
MetadataEmptyBrokerList all a broker answers that knows no brokers
UnrecognizedBrokerVersion all it is no Kafka, or a very old one
IncompatibleBrokerVersion all the brokers are too old for what we ask
AuthenticationMethodNotSupported all kafka.sasl_mechanism is not offered
AuthenticationFailedError all wrong password: secrets are replaced while we run
KafkaUnavailableError all no broker answers
KafkaTimeoutError again no answer in time
KafkaConnectionError again the connection broke: the batch may be stored
UnsupportedCodecError topic kafka.compression needs a package that is not installed
KafkaConfigurationError all aiokafka refuses a setting
QuotaViolationError again a quota: the broker slows us down
RecordTooLargeError rejected larger than a request may be: too_large, after bisection
ProducerClosed again the client is closed: a new one is made
ProducerFenced again a newer producer has our number: a new one gets its own
"""

_OWN = """
PartitionGone topic the topic was made anew with fewer partitions
AssertionError topic aiokafka asserts that it knows the partition
GivenUp again its deadline has passed
TokenUnavailable all the program behind kafka.oauth_token_provider fails
BrokerUnavailable all no broker lets us in
"""

_UNUSED_CLASSES = """
IllegalStateError IllegalArgumentError KafkaProtocolError CommitFailedError ConsumerStoppedError
IllegalOperation NoOffsetForPartitionError
"""


def _answers() -> list[Known]:
    found = []
    for line in _ANSWERS.strip().splitlines():
        code, name, word, why = line.split(" ", 3)
        found.append(Known(int(code), name, _WORDS[word], why, _PROTOCOL))
    for pair in _NOT_FOR_PRODUCERS.split():
        code, name = pair.split(":")
        why = "says nothing of a batch" if code != "-1" else "the broker has an error of its own"
        found.append(Known(int(code), name, Meaning.UNEXPECTED, why, _PROTOCOL))
    return sorted(found)


def _classes(text: str, source: str) -> list[Known]:
    found = []
    for line in text.strip().splitlines():
        name, word, why = line.split(" ", 2)
        found.append(Known(name, name, _WORDS[word], why, source))
    return found


ANSWERS: tuple[Known, ...] = tuple(_answers())

CLASSES: tuple[Known, ...] = (
    *_classes(_CLASSES, _AIOKAFKA),
    *(
        Known(name, name, Meaning.UNEXPECTED, "not raised to a producer", _AIOKAFKA)
        for name in _UNUSED_CLASSES.split()
    ),
    *_classes(_OWN, _OURS),
)

STORED_NOWHERE = frozenset({3, 5, 19})
"""Repeatable answers that say that the batch was not stored. Not 6 and 56: a leader that went away, or
lost its disk, while it waited for the replicas says so too."""
