"""How a payload is stored: the compressor of the write side and the bounded inverse of the relay."""

from __future__ import annotations

import zlib
from typing import Final, Protocol

from outbox_relay.schema import Codec

MOST_SMALL_BYTES: Final = 1 << 14
"""Up to here a payload gets a window of its own size; above it zlib's own of 32 KiB."""

ZLIB_STARTS: Final = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
"""How a stream with zlib's usual window begins, by FLEVEL, the two highest bits of its second byte (RFC 1950).
A JSON document begins otherwise."""

_LOOKAHEAD_BYTES: Final = 262


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
        if len(data) > MOST_SMALL_BYTES - _LOOKAHEAD_BYTES:
            return zlib.compress(data, self.level)
        return _compress_small(data, self.level)

    def decompress(self, data: bytes, *, max_bytes: int = 16 * 1024 * 1024) -> bytes:
        """The bytes that were compressed. Raises UnreadablePayload as `inflate` does."""
        return inflate(data, max_bytes=max_bytes)


def _compress_small(data: bytes, level: int) -> bytes:
    """
    As zlib.compress, with as much memory as *data* needs.

    zlib takes and clears 256 KiB for each stream, which for an event of 600 bytes is most of the work
    (zconf.h: ``(1 << (windowBits + 2)) + (1 << (memLevel + 9))`` bytes). The window holds all of *data*,
    so nothing is found less often. The header still names the usual window, which is no less true: some
    readers know a zlib stream by its first two bytes.
    """
    window_bits = max((len(data) + _LOOKAHEAD_BYTES).bit_length(), 9)
    stream = zlib.compressobj(level, zlib.DEFLATED, window_bits, min(window_bits - 6, 8))
    made = stream.compress(data) + stream.flush()
    return ZLIB_STARTS[made[1] >> 6] + made[2:]


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
