"""
`outbox-relay audit` on real databases and a real Kafka: what is planted is found, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient

from tests.integration.auditing import NewShop, found_ids
from tests.pages import blocks
from tests.services.kafka import Kafka

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "audit.md"
both_databases = pytest.mark.parametrize("server", ["mariadb", "postgresql"])


@both_databases
def test_each_kind_is_found_with_its_ids(new_shop: NewShop) -> None:
    """
    Loss, duplicate, inversion and ghosts of four kinds; requeued, pending, dead apart.
    """
    shop = new_shop()
    sound = shop.write(*(f"sound-{n}" for n in range(20)))
    late, early, dead, _ = shop.write("k", "k", "d", "d")
    shop.change(late, status=3)
    shop.change(dead, status=2, last_error="too_large: x")
    shop.relay()
    shop.change(late, status=0)
    now = datetime.now(UTC).replace(tzinfo=None)
    shop.change(dead, status=0, last_error=None, attempts=1, available_at=now)
    unmarked, gave_up, vanished, swapped, twice = shop.write("a", "b", "c", "e", "f")
    shop.relay()
    (lost,) = shop.write("sound-0")
    shop.change(lost, status=1, produced_at=now)
    shop.publish([shop.record_of(twice)])
    foreign = replace(shop.record_of(sound[0]), headers={}, value=b"of somebody else")
    other = replace(shop.record_of(sound[0]), headers={**shop.record_of(sound[0]).headers})
    other.headers["ce_id"] = b"00000000-0000-4000-8000-000000000000"
    other.headers["outbox-seq"] = str(swapped).encode()
    newest = replace(other, timestamp=shop.record_of(swapped).timestamp + 1)
    shop.publish([foreign, newest])
    shop.change(unmarked, status=0)
    shop.change(gave_up, status=2, last_error="unreadable: y")
    shop.delete(vanished)
    (pending,) = shop.write("waits")

    report = shop.audit()

    assert report["found"] == {"loss": 1, "duplicate": 1, "inversion": 1, "ghost": 4}
    assert found_ids(report, "loss") == [lost]
    assert found_ids(report, "duplicate") == [twice]
    assert [(f["outbox_seq"], f["behind_outbox_seq"]) for f in report["findings"]["inversion"]] == [
        (late, early)
    ]
    assert [(f["outbox_seq"], f["reason"]) for f in report["findings"]["ghost"]] == [
        (unmarked, "pending"),
        (gave_up, "dead"),
        (vanished, "unknown"),
        (swapped, "another_event"),
    ]
    assert report["findings"]["loss"][0]["event_id"] == shop.event_ids(lost)[0]
    assert report["requeued_late"] == 1
    (counts,) = report["topics"]
    assert (counts["pending"], counts["dead_letters"]) == (2, 1)
    assert counts["unidentified_records"] == 1
    assert pending > lost


def test_what_retention_removed_is_no_loss(new_shop: NewShop) -> None:
    """
    Records in front of the first that is kept may have been there; what was produced later must be.
    """
    shop = new_shop(partitions=1)
    old = shop.write(*"abcdef")
    shop.relay()
    an_hour_ago = datetime.now(UTC).replace(tzinfo=None) - timedelta(hours=1)
    shop.change(*old, created_at=an_hour_ago, produced_at=an_hour_ago)
    new = shop.write(*"abcdef")
    shop.relay()
    shop.remove_before(4)
    later = datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=90)
    (lost,) = shop.write("a", status=1, produced_at=later)

    report = shop.audit()

    assert found_ids(report, "loss") == [lost]
    assert report["removed"] == 4
    assert new


def test_what_compaction_removed_is_no_loss(new_shop: NewShop) -> None:
    """
    A record may give way to a later one of its key, or to a tombstone; the last of a key may not.
    """
    shop = new_shop(partitions=1, **{"cleanup.policy": "compact"})
    now = datetime.now(UTC).replace(tzinfo=None)
    gone = shop.write("k", status=1, produced_at=now)
    shop.write("k")
    shop.relay()
    lost = shop.write("k", "last", status=1, produced_at=now)
    deleted = shop.write("t", status=1, produced_at=now)
    tombstone = shop.write("t", codec=3, payload=b"", status=1, produced_at=now)

    report = shop.audit()

    assert found_ids(report, "loss") == lost
    assert report["compacted"] == len(gone + deleted + tombstone)
    assert not any("DescribeConfigs" in note for note in report["notes"])


@both_databases
def test_a_range_is_judged_alone(new_shop: NewShop) -> None:
    """
    --since, --until and --from-offset leave out what is outside, and call none of it a finding.
    """
    shop = new_shop(partitions=1)
    now = datetime.now(UTC).replace(tzinfo=None)
    old, old_lost = shop.write("a", "b", created_at=now - timedelta(days=2))
    shop.change(old_lost, status=1, produced_at=now - timedelta(days=2))
    shop.relay()
    shop.change(old, produced_at=now - timedelta(days=2))
    new, new_lost = shop.write("a", "b")
    shop.change(new_lost, status=1, produced_at=now + timedelta(seconds=90))
    shop.relay()

    assert found_ids(shop.audit(), "loss") == [old_lost, new_lost]
    assert found_ids(shop.audit("--since", "1d"), "loss") == [new_lost]
    assert found_ids(shop.audit("--until", "1d"), "loss") == [old_lost]
    assert found_ids(shop.audit("--from-offset", "1"), "loss") == [new_lost]
    assert shop.audit("--from-offset", f"{shop.topic}:0=1")["removed"] == 2
    assert new


def test_the_end_of_a_partition_may_be_a_marker(new_shop: NewShop, kafka: Kafka) -> None:
    """
    Control records of transactions are never handed over, and the audit ends all the same.
    """
    shop = new_shop(partitions=1)
    shop.write("a")
    shop.relay()
    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": shop.topic}
    )
    producer.init_transactions(30)
    for end in (producer.commit_transaction, producer.abort_transaction):
        producer.begin_transaction()
        producer.produce(shop.topic, key=b"a", value=b"of somebody else")
        producer.flush()
        end(30)

    report = shop.audit("--allow", "ghost")

    assert report["clean"]
    assert report["topics"][0]["unidentified_records"] == 2


def test_a_topic_that_grew(new_shop: NewShop) -> None:
    """
    Keys that went to another partition are neither lost nor turned round.
    """
    shop = new_shop(partitions=1)
    shop.write(*(f"k{n}" for n in range(10)))
    shop.relay()
    shop.kafka.add_partitions(shop.topic, 4)
    shop.write(*(f"k{n}" for n in range(10)))
    shop.relay()

    assert shop.audit()["clean"]


def test_a_topic_made_anew_is_told(new_shop: NewShop) -> None:
    """
    Nothing says that it was: all that is missing is a loss, and a note says what it looks like.
    """
    shop = new_shop(partitions=1)
    gone = shop.write("a", "b", "c")
    shop.relay()
    shop.kafka.delete_topic(shop.topic)
    missing = shop.audit()
    shop.kafka.create_topic(shop.topic, partitions=1)
    shop.write("a")
    shop.relay()

    report = shop.audit()

    assert found_ids(missing, "loss") == found_ids(report, "loss") == gone
    assert any("does not exist" in note for note in missing["notes"])
    assert any("made anew" in note for note in report["notes"])


@pytest.mark.parametrize("envelope", ["python-cqrs-0", "python-cqrs-5"])
def test_records_without_headers(new_shop: NewShop, envelope: str) -> None:
    """
    The id in the value is enough: the rows say the rest.
    """
    shop = new_shop(settings=f'[wire]\nheaders = "none"\nenvelope = "{envelope}"\n')
    shop.write(*"abcab")
    late, _ = shop.write("k", "k")
    shop.change(late, status=3)
    shop.relay()
    shop.change(late, status=0)
    (vanished,) = shop.write("v")
    shop.relay()
    shop.delete(vanished)
    (lost,) = shop.write("a", status=1, produced_at=datetime.now(UTC).replace(tzinfo=None))
    shop.publish([shop.kafka.consume_all(shop.topic)[0]])

    report = shop.audit()

    assert report["found"] == {"loss": 1, "duplicate": 1, "inversion": 1, "ghost": 1}
    assert found_ids(report, "loss") == [lost]
    assert found_ids(report, "inversion") == [late]
    assert report["findings"]["ghost"][0]["reason"] == "unknown"


def test_records_that_say_no_id_are_refused(new_shop: NewShop) -> None:
    """
    By the settings before anything is read; by the records where the settings have changed.
    """
    shop = new_shop()
    shop.write("a")
    shop.relay()
    bare = replace(shop.kafka.consume_all(shop.topic)[0], headers={})
    other = f"{shop.topic}-bare"
    shop.kafka.create_topic(other)
    shop.publish([bare], topic=other, partition=0)

    by_settings = shop.quickly("audit", "--set", "wire.headers=none")
    by_records = shop.quickly("audit", "--topic", other)

    assert by_settings.exit_code == 2
    assert "do not say which event" in by_settings.stderr
    assert by_records.exit_code == 1
    assert f"topic {other}: none of its 1 records says which event it is" in by_records.stderr


def test_only_our_source_is_judged(new_shop: NewShop) -> None:
    """
    Of several outboxes on one topic, --source names the one that the table is of.
    """
    shop = new_shop()
    shop.write("a", "b")
    shop.relay()
    ours = shop.kafka.consume_all(shop.topic)[0]
    theirs = replace(ours, timestamp=ours.timestamp + 60_000, headers={**ours.headers})
    theirs.headers["ce_source"] = b"/other"
    theirs.headers["ce_id"] = b"00000000-0000-4000-8000-000000000001"
    shop.publish([theirs])

    mixed, alone = shop.audit(), shop.audit("--source", "/outbox-relay")

    assert mixed["found"]["ghost"] == 1
    assert any("--source" in note for note in mixed["notes"])
    assert alone["clean"]


def test_copies_on_purpose_are_counted_apart(new_shop: NewShop) -> None:
    """
    A record with `replay-of` is no duplicate and no inversion, and its event is not lost.
    """
    shop = new_shop(partitions=1)
    first, second, third = shop.write("a", "a", "a")
    shop.relay()
    (gone,) = shop.write("a", status=1, produced_at=datetime.now(UTC).replace(tzinfo=None))
    record = shop.record_of(first)
    replay = replace(record, headers={**record.headers, "replay-of": str(first).encode()})
    again = replace(replay, headers={**replay.headers, "outbox-seq": str(gone).encode()})
    again.headers["ce_id"] = shop.event_ids(gone)[0].encode()
    shop.publish([replay, again])

    report = shop.audit()

    assert report["clean"]
    assert report["replays"] == 2
    assert third > second


def test_findings_that_are_allowed_end_with_0(new_shop: NewShop) -> None:
    """
    And the report is for people, where nobody asks for JSON.
    """
    shop = new_shop()
    shop.write("a")
    shop.relay()
    shop.publish([shop.kafka.consume_all(shop.topic)[0]])

    refused = shop.quickly("audit")
    allowed = shop.quickly("audit", "--allow", "duplicate", "--most", "0")

    assert refused.exit_code == 4
    assert "1 duplicates: more than once on the topic" in refused.stdout
    assert allowed.exit_code == 0


def test_nothing_is_changed(new_shop: NewShop) -> None:
    """
    No group, no topic: the audit only reads.
    """
    shop = new_shop()
    shop.write("a")
    shop.relay()
    shop.write("a", topic=f"{shop.topic}-missing", status=1)

    shop.audit()

    admin: Any = AdminClient({"bootstrap.servers": shop.kafka.bootstrap_servers})
    groups = admin.list_consumer_groups().result(30)
    assert [group for group in groups.valid if "audit" in group.group_id] == []
    assert f"{shop.topic}-missing" not in admin.list_topics(timeout=30).topics


def test_the_guides_commands_run(
    new_shop: NewShop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Every block of docs/guide/audit.md, in its order, over a shop with a topic of that name.
    """
    shop = new_shop()
    with contextlib.suppress(KafkaException):
        shop.kafka.create_topic("orders")
    shop.write("a", "b", topic="orders")
    shop.relay()
    now = datetime.now(UTC).replace(tzinfo=None)
    (lost,) = shop.write("a", topic="orders", status=1, produced_at=now)
    monkeypatch.chdir(shop.folder)
    monkeypatch.setenv("REPLICA_URL", shop.database.async_url)
    codes = []
    for language, block in (
        (block.language, block.text) for block in blocks(GUIDE, "sh", "python")
    ):
        if language == "python":
            exec(compile(block, str(GUIDE), "exec"), {})
            continue
        for line in block.splitlines():
            command, *words = shlex.split(os.path.expandvars(line))
            assert command == "outbox-relay"
            codes.append(shop.quickly(*words).exit_code)

    assert codes == [4] * 5
    assert capsys.readouterr().out.split()[0] == str(lost)
