"""
Payloads are deflated by the writer and inflated by the relay, within bounds.
"""

from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox_relay.compression import MOST_SMALL_BYTES, ZlibCompressor, inflate


@given(st.binary(max_size=2_000), st.integers(-1, 9))
def test_what_was_compressed_comes_back(data: bytes, level: int) -> None:
    """
    At every level, for any bytes.
    """
    compressor = ZlibCompressor(level)

    assert compressor.decompress(compressor.compress(data)) == data


@pytest.mark.parametrize("level", [-2, 10])
def test_levels_that_zlib_does_not_have(level: int) -> None:
    """
    Refused where it was written, not at the first large event.
    """
    with pytest.raises(ValueError, match="zlib level"):
        ZlibCompressor(level)


def test_the_output_is_bounded_while_it_grows() -> None:
    """
    A small stream cannot fill the memory: one byte above the bound is refused, the bound is not.
    """
    bomb = zlib.compress(bytes(1_000_000))

    assert len(inflate(bomb, max_bytes=1_000_000)) == 1_000_000
    with pytest.raises(ValueError, match="more than 999999"):
        inflate(bomb, max_bytes=999_999)


GOOD = zlib.compress(b"payload")


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (b"", "truncated"),
        (b"payload", "not a zlib stream"),
        (GOOD[:-1], "truncated"),
        (GOOD + b"x", "follow"),
        (GOOD[:-1] + bytes([GOOD[-1] ^ 1]), "not a zlib stream"),
    ],
)
def test_damaged_streams_are_refused(damaged: bytes, message: str) -> None:
    """
    Truncated, changed or followed by other bytes: never a payload that nobody wrote.
    """
    with pytest.raises(ValueError, match=message):
        inflate(damaged, max_bytes=1_000)


@pytest.mark.parametrize("level", range(-1, 10))
def test_a_small_payload_looks_as_from_zlib_itself_and_is_no_larger(level: int) -> None:
    """
    Up to `MOST_SMALL_BYTES` the stream has a window of the payload's size. Its first two bytes are
    those of zlib.compress, by which some readers know a stream, and nothing is found less often.
    """
    rng = random.Random(level)
    words = [f"word-{rng.randrange(200)}" for _ in range(4000)]
    text = " ".join(words).encode()
    edges = [MOST_SMALL_BYTES - 262 + more for more in (-1, 0, 1, 262, 263)]
    for size in [0, 1, 2, 249, 250, 251, 600, 1786, 1787, 3000, 8000, *edges]:
        data = text[:size]
        usual = zlib.compress(data, level)

        made = ZlibCompressor(level).compress(data)

        assert made[:2] == usual[:2]
        assert zlib.decompress(made) == data
        assert len(made) <= len(usual) + 8, f"{size} bytes at level {level}"
