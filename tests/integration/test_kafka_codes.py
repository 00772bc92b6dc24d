"""
The table of Kafka's answers beside the Kafka that the tests run.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from outbox_relay.brokers.kafka_codes import ANSWERS
from tests.services.kafka import LIBRARIES, Kafka

PROGRAM = """
public class Codes {
    public static void main(String[] arguments) {
        for (var error : org.apache.kafka.common.protocol.Errors.values())
            System.out.println(error.code() + " " + error.name());
    }
}
"""


def test_the_table_has_every_answer_that_this_kafka_can_give(kafka: Kafka, tmp_path: Path) -> None:
    """
    Names and numbers are Kafka's own, and none is left out.
    """
    source = tmp_path / "Codes.java"
    source.write_text(PROGRAM)
    command = ["java", "-cp", f"{LIBRARIES}/*", str(source)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    codes = dict(line.split() for line in printed.splitlines())
    del codes["0"]

    assert {str(row.code): row.name for row in ANSWERS} == codes
