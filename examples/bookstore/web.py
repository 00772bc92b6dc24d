"""
The web application's process.

    python -m examples.bookstore.web --port 8000
"""

from __future__ import annotations

import argparse
import sys
from typing import Final

import uvicorn
from fastapi import FastAPI

from examples.bookstore.app import create_app
from examples.bookstore.settings import Settings

MOST_FRAME_BYTES: Final = 1024 * 1024
"""A larger WebSocket frame is not even read: the connection is closed with 1009."""


def build_server(app: FastAPI, *, host: str = "127.0.0.1", port: int = 8000) -> uvicorn.Server:
    """A server for *app*; port 0 takes any that is free."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        ws_max_size=MOST_FRAME_BYTES,
        # Compressing costs memory for each connection, and a frame here is small.
        ws_per_message_deflate=False,
        log_level="warning",
        timeout_graceful_shutdown=5,
    )
    return uvicorn.Server(config)


def main() -> int:
    """Serve until SIGTERM. 2 if a setting is missing."""
    parser = argparse.ArgumentParser(prog="python -m examples.bookstore.web")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    said = parser.parse_args()
    try:
        settings = Settings.from_environment()
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    build_server(create_app(settings), host=said.host, port=said.port).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
