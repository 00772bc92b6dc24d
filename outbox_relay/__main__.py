"""`outbox-relay` and `python -m outbox_relay`."""

from __future__ import annotations

import sys
from importlib.util import find_spec

NEEDED = ("typer", "rich", "alembic", "starlette", "uvicorn")
"""What the extra `relay` brings and each command may need."""


def main() -> None:
    """Run the command line, or say which extra it needs."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"outbox-relay: the command line needs {', '.join(missing)}: "
            'install "outbox-relay[relay]"\n'
        )
        sys.exit(2)
    from outbox_relay.cli.app import app

    app(prog_name="outbox-relay")


if __name__ == "__main__":
    main()
