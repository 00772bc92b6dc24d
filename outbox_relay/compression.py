"""How a payload is stored: the compressor of the write side and the bounded inverse of the relay."""

from __future__ import annotations

import zlib
from typing import Protocol

from outbox_relay.schema import Codec


class Compressor(Protocol):
    """Turns a payload into what the row stores. The row's codec says which one did."""

    codec: Codec

    def compress(self, data: bytes) -> bytes:
        """*data* in the form of `codec`."""


class ZlibCompressor:
    """
    zlib (RFC 1950), the user's choice for stored payloads.

    >>> ZlibCompressor().decompress(ZlibCompressor().compress(b"x" * 1000)) == b"x" * 1000
    True
    """

    codec = Codec.ZLIB

    def __init__(self, level: int = 6) -> None:
        if level not in range(-1, 10):
            raise ValueError(
                f"level = {level} is not a zlib level: use 0 to 9, or -1 for zlib's own"
            )
        self.level = level

    def compress(self, data: bytes) -> bytes:
        """*data* as a zlib stream."""
        return zlib.compress(data, self.level)

    def decompress(self, data: bytes, *, max_bytes: int = 16 * 1024 * 1024) -> bytes:
        """The bytes that were compressed. Raises UnreadablePayload as `inflate` does."""
        return inflate(data, max_bytes=max_bytes)


class UnreadablePayload(ValueError):
    """The stored bytes are not what their codec says, or too many. The text says which."""


def inflate(data: bytes, *, max_bytes: int) -> bytes:
    """
    The content of a zlib stream, at most *max_bytes*.

    Raises UnreadablePayload if it is damaged, truncated, followed by other bytes, or larger: a stream of
    200 kB may hold 200 MB, so the output is bounded while it grows, not afterwards.
    """
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, max_bytes + 1)
    except zlib.error as error:
        raise UnreadablePayload(f"the payload is not a zlib stream ({error})") from error
    if len(content) > max_bytes:
        raise UnreadablePayload(f"the payload inflates to more than {max_bytes} bytes")
    if not stream.eof:
        raise UnreadablePayload("the payload's zlib stream is truncated")
    if stream.unused_data:
        raise UnreadablePayload("bytes follow the payload's zlib stream")
    return content
