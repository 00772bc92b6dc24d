"""
The relay of the demo: ``outbox-relay run`` as anybody would start it, with shorter times.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from outbox_relay.demo.processes import Child, ChildEnded

_CONFIG: Final = """\
[database]
url = "sqlite+aiosqlite:///{database}"

[kafka]
bootstrap_servers = "{bootstrap_servers}"
# Short, so that a few seconds show what takes half a minute in production.
publish_deadline_seconds = 2.0
request_timeout_seconds = 1.5

[relay]
lease_seconds = 3.0
standby_seconds = 0.2
poll_seconds = 0.02
backoff_max_seconds = 0.5
stop_seconds = 5.0

[http]
port = 0

[log]
format = "json"
"""


def write_config(path: Path, *, database: Path, bootstrap_servers: str) -> None:
    """The relay's ``config.toml``."""
    text = _CONFIG.format(database=database.as_posix(), bootstrap_servers=bootstrap_servers)
    path.write_text(text)


async def migrate(config: Path, *, log: Path) -> None:
    """Make the tables: ``outbox-relay migrate``."""
    child = Child("migration", "-m", "outbox_relay", "migrate", "--config", str(config), log=log)
    await child.start()
    if await child.wait() != 0:
        raise ChildEnded(f"outbox-relay migrate failed:\n{child.last_words()}")


def relay(config: Path, *, log: Path) -> Child:
    """``outbox-relay run``, not started yet."""
    return Child("relay", "-m", "outbox_relay", "run", "--config", str(config), log=log)
