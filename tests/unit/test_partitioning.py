"""
A key goes to the partition where every other Kafka client puts it.
"""

from __future__ import annotations

import pytest

from outbox_relay.relay.partitioning import KeyPartitions, murmur2


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_that_of_the_java_client(key: bytes, expected: int) -> None:
    """
    The vectors of org.apache.kafka.common.utils.UtilsTest. Another hash would move every key to
    another partition than its earlier events.
    """
    assert murmur2(key) == expected % 2**32


def test_a_hash_is_made_positive_as_the_java_client_does_it() -> None:
    """
    Its sign bit is cut off: an absolute value would be another partition.
    """
    found = [KeyPartitions(7)[key] for key in (b"21", b"foobar", b"abc")]

    assert found == [(hashed % 2**31) % 7 for hashed in (-973932308, -790332482, 479470107)]


def test_partitions_of_keys_are_kept_for_a_bounded_number(monkeypatch) -> None:
    """
    I10. A topic may see any number of keys.
    """
    monkeypatch.setattr("outbox_relay.relay.partitioning._MOST_KEYS", 10)
    partitions = KeyPartitions(8)
    found, kept = [], []
    for number in range(100):
        found.append(partitions[b"%d" % number])
        kept.append(len(partitions))

    assert max(kept) == 10
    assert kept[9:11] == [10, 1]
    assert [partitions[b"%d" % number] for number in range(100)] == found
