"""zlib: see `outbox_relay.compression`."""

from outbox_relay.compression import ZlibCompressor

__all__ = ["ZlibCompressor"]
