"""How payloads are stored: `outbox_relay.compression`, by the documents' name."""

from outbox_relay.compression import Compressor, ZlibCompressor

__all__ = ["Compressor", "ZlibCompressor"]
