"""Keys, times and payloads as people read and type them: at a terminal and on a page."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Final

from outbox_relay.compression import inflate
from outbox_relay.schema import MAX_PAYLOAD_BYTES, Codec

_AGE: Final = re.compile(r"(\d{1,9})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def key_text(key: bytes | None) -> str:
    """
    The key as text, or its bytes as 0x... if it is none.

    >>> key_text(bytes([0, 255]))
    '0x00ff'
    """
    if key is None:
        return ""
    try:
        text = key.decode()
    except UnicodeDecodeError:
        text = ""
    plain = text.isprintable() and text and not text.startswith("0x")
    return text if plain else f"0x{key.hex()}"


def typed_key(text: str) -> bytes:
    """
    The key that *text* stands for, as `key_text` shows it. Raises ValueError.

    >>> typed_key("order-7"), typed_key("0x00ff")
    (b'order-7', b'\\x00\\xff')
    """
    if not text.startswith("0x"):
        return text.encode(errors="surrogateescape")
    try:
        return bytes.fromhex(text[2:])
    except ValueError:
        raise ValueError("after 0x comes an even number of hexadecimal digits") from None


def typed_seconds(text: str, *, most_digits: int = 9) -> int | None:
    """
    The seconds of an age such as 90m, 2h or 3d; None if it is none.

    >>> typed_seconds("2h"), typed_seconds("2 hours")
    (7200, None)
    """
    age = _AGE.fullmatch(text)
    if age is None or len(age[1]) > most_digits:
        return None
    return int(age[1]) * _SECONDS[age[2]]


def typed_instant(text: str, *, now: datetime) -> datetime:
    """
    The time that *text* names, UTC without a zone, as the tables have it. Raises ValueError.

    >>> typed_instant("2h", now=datetime(2026, 11, 22, 3, tzinfo=UTC))
    datetime.datetime(2026, 11, 22, 1, 0)
    >>> typed_instant("2026-11-22T03:00+02:00", now=datetime.now(UTC))
    datetime.datetime(2026, 11, 22, 1, 0)
    """
    # A number of more digits is a time before all time.
    ago = typed_seconds(text, most_digits=6)
    if ago is not None:
        found = now - timedelta(seconds=ago)
    else:
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(
                "use a time such as 2026-11-22T03:00, or how long ago, such as 2h"
            ) from None
    return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found


def harmless(text: str) -> str:
    """
    *text* for a terminal: what a writer put in must not move the cursor or change the screen.

    >>> harmless("a" + chr(27) + "[2J")
    'a\\\\x1b[2J'
    """
    return "".join(
        [c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text]
    )


def payload(stored: bytes, codec: int) -> dict[str, str | None]:
    """What would be published; what is stored, and why, if that cannot be made of it."""
    if codec == Codec.TOMBSTONE:
        return {"payload": None}
    if codec == Codec.ZLIB:
        try:
            stored = inflate(stored, max_bytes=MAX_PAYLOAD_BYTES)
        except ValueError as error:
            return _as_stored(stored, str(error))
    elif codec != Codec.RAW:
        return _as_stored(stored, f"codec {codec} is not one that this version reads")
    try:
        return {"payload": stored.decode()}
    except UnicodeDecodeError:
        return {"payload_base64": base64.b64encode(stored).decode()}


def _as_stored(stored: bytes, problem: str) -> dict[str, str | None]:
    return {"stored_base64": base64.b64encode(stored).decode(), "payload_problem": problem}


def for_reading(name: str, value: object, content_type: str) -> str:
    """The field as a person reads it: JSON over several lines."""
    if value is None:
        return ""
    if name == "payload" and _is_json(content_type):
        try:
            value = json.dumps(json.loads(str(value)), indent=2, ensure_ascii=False)
        except (ValueError, RecursionError):
            pass  # it says so and is none: shown as it is
        else:
            value = f"\n{value}"
    return harmless(str(value))


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind.endswith(("/json", "+json"))
