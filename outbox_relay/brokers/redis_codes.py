"""
What each answer of Redis and each error of redis-py means for a batch, as data.

A line is: the first word of the answer or the class, what follows, and why. ``docs/reference/error-codes.md``
shows it. The answers are those of Redis 7; what is not here is published again, counted and logged.
"""

from __future__ import annotations

from outbox_relay.relay.known import Known, Meaning

_SERVER = "redis/src/server.c, redis.io/docs"
_CLIENT = "redis/exceptions.py"

_WORDS = {
    "rejected": Meaning.REJECTED,
    "again": Meaning.PUBLISH_AGAIN,
    "topic": Meaning.PAUSE_TOPIC,
    "all": Meaning.PAUSE_ALL,
    "unexpected": Meaning.UNEXPECTED,
}

_ANSWERS = """
OOM all used memory is above maxmemory and nothing may be evicted
READONLY all it is a replica: after a failover the master is another one
LOADING all it reads its data after a start
MISCONF all it cannot write its snapshot, and refuses writes until it can
NOREPLICAS all fewer replicas than min-replicas-to-write; nothing is stored
NOAUTH all it asks for a password: secrets are replaced while we run, so it is tried again
WRONGPASS all the password or the user is wrong
DENIED all protected mode: it has no password and takes local clients only
NOPERM topic the user may not write to this key or channel: a setting, not the event's fault
WRONGTYPE topic the key of the stream holds something else
BUSY all a script runs and holds everything up
MASTERDOWN all a replica without its master
CLUSTERDOWN all the cluster has no quorum
MOVED all another node of a cluster has the key: Redis Cluster is not served
ASK all the same
TRYAGAIN again the cluster moves the key now
CROSSSLOT all keys of several nodes of a cluster
EXECABORT again the batch was refused as a whole; the answer before it says why
NOPROTO all it is older than Redis 6
UNBLOCKED again somebody ended the wait for replicas
ERR again whatever has no word of its own
"""

_CLASSES = """
ConnectionError all nobody answers there, or the connection broke: what was under way is unknown
TimeoutError all no answer in time
BusyLoadingError all it reads its data after a start
AuthenticationError all the password or the user is wrong
AuthenticationWrongNumberOfArgsError all it is older than Redis 6 and knows no users
AuthorizationError all the password or the user is wrong
MaxConnectionsError all it has as many clients as it may have
ExternalAuthProviderError all who gives the passwords fails
InvalidResponse all the answer makes no sense: the connection is given up
ResponseError again an answer with a word that is not in the table above
OutOfMemoryError all as OOM
ExecAbortError again as EXECABORT
ReadOnlyError all as READONLY
NoPermissionError topic as NOPERM
ClusterError all Redis Cluster is not served
ClusterDownError all as CLUSTERDOWN
AskError all as ASK
TryAgainError again as TRYAGAIN
ClusterCrossSlotError all as CROSSSLOT
MovedError all as MOVED
MasterDownError all as MASTERDOWN
RedisError again whatever has no class of its own
DataError rejected a value that cannot be sent: unreadable
"""

_OWN = """
TooFewReplicas again fewer replicas than redis.wait_replicas have it; the master does, and is asked again
TooFewReceivers topic fewer subscribers than redis.min_receivers were there
BrokerUnavailable all no server lets us in
"""

_UNUSED = """
PubSubError WatchError NoScriptError ModuleError NoSuchFieldsetError LockError LockNotOwnedError
ChildDeadlockedError RedisClusterException SlotNotCoveredError CrossSlotTransactionError
InvalidPipelineStack IncorrectPolicyType
"""


def _rows(text: str, source: str) -> list[Known]:
    found = []
    for line in text.strip().splitlines():
        name, word, why = line.split(" ", 2)
        found.append(Known(name, name, _WORDS[word], why, source))
    return found


ANSWERS: tuple[Known, ...] = tuple(_rows(_ANSWERS, _SERVER))

CLASSES: tuple[Known, ...] = (
    *_rows(_CLASSES, _CLIENT),
    *(
        Known(name, name, Meaning.UNEXPECTED, "not raised to a publisher", _CLIENT)
        for name in _UNUSED.split()
    ),
    *_rows(_OWN, "outbox_relay/brokers"),
)
