"""
Compares the outbox table with the topics: what is missing, twice, out of order, or was never there.

A finding is said only if nothing else can explain what was read. The rules, and why they hold while
events are written and published:

* **The table first, the topics after it.** The largest id is noted (`upper`), then the rows are read, then
  the ends of all partitions are taken, then the records up to those ends. A row that was seen produced
  had been acked before (I3), so its record is in front of the ends: if it is not there, it is **lost**.
  Rows that were seen pending are never called lost.
* **What cannot be seen is not judged.** The records in front of where a partition is read may be removed by
  the topic's retention or by DeleteRecords, or left out by ``--since`` or ``--from-offset``. Of a
  partition that is not read from offset 0, `seen_from` is the latest `produced_at` among its first
  records that have a row (1,000 offsets, or three groups of marks more than a minute apart, whichever
  ends sooner), and `SLACK_US` more, since marks of neighbours may change places. A row produced
  later was published behind these records, so it must be there; one produced earlier may have been in
  front of them: it counts as *removed*. Where ``--since`` left records out that are there still, all
  that is asked for comes later, and `seen_from` is that time.
* **Compaction** removes a record only if a later one of its key exists, or a tombstone does. A missing row
  of a compacted topic is lost only if neither is there. Where the topic's settings may not be read,
  compaction is taken for granted.
* **A ghost** is a record of this outbox whose event is not in the table, or is pending or dead there.
  Commits and marks come in while the audit works, so whatever looks like a ghost is looked up once more,
  again and again for `settle_seconds`; and events above `upper` are not judged. The purge deletes produced
  rows, so a record is judged only if its event was created after the oldest kept row was produced, and
  within the relay's `retention_seconds`; and not if a produced row next to it, which was read, is gone by
  now: then somebody deletes rows while the audit works.
* **Duplicates** are second copies of an event on its topic, whoever made them. Copies with the header
  `replay-of` are on purpose, and counted apart.
* **Inversions**: of the first copies of the events with one key on one partition, one with a smaller
  `outbox-seq` comes behind a larger one (I4). Those with `requeued-at` may: they are counted apart. Behind
  a part that cannot be seen, events created before `seen_from` are not judged: their first copy may be in
  front.

All that is read goes to the *work file*, a SQLite database, together with how far the reading is: in one
transaction, so that an audit that was killed goes on where it was. SQLite sorts and joins on disk.
"""
