"""
I11. Nothing that a relay or a command prints or serves holds a payload, a key or a header, also when rows are
refused for what they hold.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import sqlalchemy as sa

from outbox_relay.migrate import migrate
from outbox_relay.schema import Status, tables
from outbox_relay.store import DatabaseOptions
from tests.integration.test_secrets import CANARY, Case, output_of, output_of_run, write_config

WORD = CANARY.encode()
KEY = "k3y-w0rd"
ROWS = (
    {"payload": WORD, "codec": 1},
    {"payload": zlib.compress(WORD) + WORD, "codec": 1},
    {"payload": WORD, "codec": 9},
    {"payload": WORD, "headers": f'["{CANARY}"]'},
    {"payload": WORD, "headers": CANARY},
    {"payload": WORD, "headers": f'{{"{CANARY}": 1}}'},
    {"payload": WORD, "headers": f'{{"a": "{CANARY}\\ud800"}}'},
    {"payload": WORD * 200_000},
    {"payload": WORD, "headers": f'{{"last": "{CANARY}"}}', "codec": 2},
)


def test_what_a_row_holds_is_not_told(
    kafka, topic_name: str, sqlite_database, tmp_path: Path
) -> None:
    """
    Each way in which a row becomes a dead letter, and a good row: log, metrics, health answers, and the
    status. The list of dead letters holds their keys and nothing else of them.
    """
    kafka.create_topic(topic_name)
    migrate(DatabaseOptions(url=sqlite_database.async_url))
    engine = sa.create_engine(sqlite_database.sync_url)
    outbox = tables().outbox
    with engine.begin() as connection:
        for columns in ({"payload": WORD}, *ROWS):
            row = {"event_name": "e", "topic": topic_name, "key": KEY.encode(), **columns}
            connection.execute(outbox.insert().values(**row))
    settings = {
        "database": {"url": sqlite_database.async_url},
        "kafka": {"bootstrap_servers": kafka.bootstrap_servers},
    }
    config = write_config(tmp_path, settings)
    case = Case(settings=settings, said=f'"row_id": {len(ROWS) + 1}')
    told = output_of_run(case, config) + output_of(case, config, "status")
    listed = output_of(case, config, "dead-letters list")
    with engine.connect() as connection:
        dead = connection.execute(
            sa.select(outbox.c.last_error).where(outbox.c.status == Status.DEAD)
        )
        reasons = list(dead.scalars())
    engine.dispose()

    assert len(reasons) == len(ROWS)
    assert "outbox_relay_" in told
    assert [word for word in (CANARY, KEY) if word in told + "".join(reasons)] == []
    assert KEY in listed  # whoever asks for dead letters is told their keys
    assert CANARY not in listed
