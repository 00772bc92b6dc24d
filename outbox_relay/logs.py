"""
Logs: one JSON object a line, or colours on a terminal. Never a payload, a key or a secret.

Names of events are fixed snake_case words; what varies is in the fields.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Final, TextIO

import structlog
from structlog.typing import Processor

from outbox_relay.config import LogOptions

OWN_LOGGER: Final = "outbox_relay"
BROKER_CLIENTS: Final = ("aiokafka", "aio_pika", "aiormq", "redis")
CLIENT_LOGGERS: Final = (*BROKER_CLIENTS, "asyncmy", "aiosqlite", "sqlalchemy", "kafka", "uvicorn")
REPEAT_SECONDS: Final = 30.0

_PASSWORD = re.compile(r"(\w://[^:/@\s]*:)[^\s]+@")
_NEVER_LOGGED: Final = frozenset(
    {"payload", "value", "key", "keys", "headers", "record", "row", "password", "secret"}
)


class RepeatLimit:
    """
    Lets one of equal things through every *seconds*, and counts those held back.

    >>> limit = RepeatLimit(30.0, clock=lambda: 0.0)
    >>> limit.held_back("a"), limit.held_back("a")
    (0, None)
    """

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._seen: dict[object, tuple[float, int]] = {}

    def held_back(self, thing: object) -> int | None:
        """How many equal ones were held back since the last; None if this one is held back too."""
        now = self._clock()
        if len(self._seen) > 1000:
            self._seen.clear()
        since, count = self._seen.get(thing, (float("-inf"), 0))
        if now - since < self._seconds:
            self._seen[thing] = (since, count + 1)
            return None
        self._seen[thing] = (now, 0)
        return count


class ClientRepeats(logging.Filter):
    """
    Holds back what client libraries repeat; the next line that passes says how many there were.

    aiokafka writes the same warning every 100 ms for as long as a broker is away.
    """

    def __init__(self, limit: RepeatLimit) -> None:
        super().__init__()
        self._limit = limit

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] == OWN_LOGGER:
            return True
        text = re.sub(r"\d+", "#", record.getMessage())
        count = self._limit.held_back((record.name, record.levelno, text))
        if count:
            record.msg, record.args = f"{record.getMessage()} (and {count} times before)", None
        return count is not None


def hide_secrets(
    _logger: object, _method: str, fields: MutableMapping[str, object]
) -> Mapping[str, object]:
    """Replace passwords in URLs, and whatever stands under a name that never may be logged."""
    for name, value in fields.items():
        if name in _NEVER_LOGGED:
            fields[name] = "(hidden)"
        elif isinstance(value, str):
            fields[name] = _PASSWORD.sub(r"\1***@", value)
    return fields


def configure_logs(options: LogOptions, *, stream: TextIO | None = None) -> None:
    """Send all logs of this process to *stream*, standard error by default, as *options* say."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(_is_console(options, stream)))
    handler.addFilter(ClientRepeats(RepeatLimit(REPEAT_SECONDS)))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(OWN_LOGGER).setLevel(options.level.upper())
    for name in CLIENT_LOGGERS:
        # aiokafka writes each record's key and value at DEBUG, SQLAlchemy parameters at INFO.
        logging.getLogger(name).setLevel(logging.WARNING)
    if options.level != "debug":
        # Each of their errors is one that the relay tells too, with what mends it; and aiormq writes a
        # message that came back, with its body.
        for name in BROKER_CLIENTS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[*_shared(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def get_logger(name: str = OWN_LOGGER) -> structlog.stdlib.BoundLogger:
    """The logger of this package."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def flush_logs() -> None:
    """Write out what is buffered."""
    for handler in logging.getLogger().handlers:
        handler.flush()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()


def _is_console(options: LogOptions, stream: TextIO) -> bool:
    return options.format == "console" or (options.format == "auto" and stream.isatty())


def _shared() -> list[Processor]:
    return [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _formatter(console: bool) -> logging.Formatter:
    # Exceptions become text before secrets are hidden. Never with local variables, which may
    # hold a payload: hence the plain traceback on a terminal too.
    last: list[Processor] = [structlog.processors.format_exc_info, hide_secrets]
    if console:
        last.append(
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        )
    else:
        last.append(structlog.processors.JSONRenderer())
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_shared(), structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )
