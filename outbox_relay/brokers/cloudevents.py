"""
A record as one JSON object: CloudEvents 1.0, JSON event format (cloudevents/spec, json-format.md).

For where a message has no headers. Attributes have names of lower-case letters and digits: the key is
``partitionkey``, the row's id ``outboxseq``, and of a header of the event's own the rest is left out
(``x-tenant`` is ``xtenant``). A payload in JSON stands there as it is, other text as a string, and what
is no text in ``data_base64``; a tombstone has none of them.
"""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any, NoReturn

from outbox_relay.relay.ports import Record

_NO_CHARACTERS = b"\r\n"
_SPACES = bytes.maketrans(_NO_CHARACTERS, b"  ")


def structured(record: Record) -> bytes:
    """The event of *record*, on one line."""
    attributes: dict[str, str] = {}
    content_type = ""
    for header, content in record.headers:
        name, text = header.lower(), content.decode()
        if name == "content-type":
            content_type = attributes["datacontenttype"] = text
            continue
        attributes.setdefault("".join(filter(_is_plain, name.removeprefix("ce_"))), text)
    for name in ("", "data"):  # a header called data would stand in for the payload
        attributes.pop(name, None)
    if record.key is not None:
        attributes["partitionkey"] = record.key.decode(errors="backslashreplace")
    head = json.dumps(attributes, ensure_ascii=False, separators=(",", ":")).encode()
    name_of_data, data = data_of(record.value, content_type)
    if data is None:
        return head
    comma = b"," if attributes else b""
    return b'%b%b"%b":%b}' % (head[:-1], comma, name_of_data.encode(), data)


def data_of(value: bytes | None, content_type: str) -> tuple[str, bytes | None]:
    """
    The member that holds *value*, and its content as JSON on one line; None of nothing.

    >>> data_of(b'{"a":\\n 1}', "application/json"), data_of(b"\\xff", "text/plain")
    (('data', b'{"a":  1}'), ('data_base64', b'"/w=="'))
    """
    if value is None:
        return "data", None
    if _is_json_type(content_type) and _is_json(value):
        # A line end in JSON is always between its parts, never in a string.
        return "data", value.translate(_SPACES)
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return "data_base64", b'"%b"' % b64encode(value)
    if _is_json_type(content_type):
        # It says that it is JSON and is none: a string in its place would be another payload.
        return "data_base64", b'"%b"' % b64encode(value)
    return "data", json.dumps(text, ensure_ascii=False).encode()


def _is_plain(character: str) -> bool:
    return character.isascii() and character.isalnum()


def _is_json_type(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind in ("application/json", "text/json") or kind.endswith("+json")


def _is_json(value: bytes) -> bool:
    try:
        json.loads(value.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity are no JSON


def as_text(value: bytes | None) -> Any:
    """*value* as a JSON string can hold it; None if it is no text."""
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None
