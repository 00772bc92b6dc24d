"""Metrics and health over HTTP. Needs the extra `relay`."""
