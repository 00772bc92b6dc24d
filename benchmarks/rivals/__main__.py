"""
outbox-relay beside Debezium and watermill's forwarder, on the same servers, in one run.

    python -m benchmarks.rivals [--rows 200000] [--few-rows 20000] [--repeat 3] [--only debezium]
"""

from __future__ import annotations

import argparse
import time
from tests.services.kafka import Kafka
from tests.services.mariadb import MariaDB
from benchmarks.rivals import debezium, watermill
from benchmarks.rivals.measure import drain, latency_and_idle
from benchmarks.rivals.ours import Ours


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--few-rows", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--only", default="")
    a = parser.parse_args()
    mariadb_args = ["--innodb-buffer-pool-size=2G", "--innodb-log-file-size=1G"]
    t0 = time.monotonic()
    with MariaDB(extra_args=mariadb_args) as mariadb, Kafka(heap="1g") as kafka:
        subjects = [
            (Ours(mariadb, kafka), a.rows),
            (Ours(mariadb, kafka, hints=True), a.few_rows),
            (debezium.Debezium(mariadb, kafka, how="default", tuning={}), a.rows),
            (debezium.Debezium(mariadb, kafka, how="tuned", tuning=debezium.TUNED), a.rows),
            (watermill.Watermill(mariadb, kafka, how="default", tuning={}), a.few_rows),
            (watermill.Watermill(mariadb, kafka, how="tuned", tuning=watermill.TUNED), a.few_rows),
        ]
        for i, (subject, rows) in enumerate(subjects):
            if a.only not in subject.name:
                continue
            with subject.running():
                for r in range(a.repeat):
                    print(f"{time.monotonic()-t0:.0f}", subject.name, drain(subject, f"d{i}-{r}", rows), flush=True)
                print(f"{time.monotonic()-t0:.0f}", subject.name, latency_and_idle(subject, f"l{i}", rate=200, seconds=a.seconds, idle_seconds=5), flush=True)
    print(f"{time.monotonic()-t0:.0f}")


if __name__ == "__main__":
    main()
