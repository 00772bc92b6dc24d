"""Kinds of metrics that prometheus_client does not have."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class WeightedHistogram(Collector):
    """
    A histogram that takes many equal observations at once.

    A batch of 2,000 rows is one step: prometheus_client's own would take 2,000.
    """

    def __init__(self, name: str, documentation: str, buckets: Sequence[float]) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = [*map(float, buckets), float("inf")]
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0

    def observe(self, value: float, times: int) -> None:
        """Count *value*, *times* over."""
        self._counts[bisect.bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def counts(self) -> tuple[int, ...]:
        """What was observed in each bucket, the last one above all bounds."""
        return tuple(self._counts)

    def collect(self) -> Iterable[Metric]:
        """What has been observed, as Prometheus wants it: each bucket with those below it."""
        total = 0
        buckets = []
        for bound, count in zip(self._bounds, self._counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound == float("inf") else str(bound), float(total)))
        yield HistogramMetricFamily(
            self._name, self._documentation, buckets=buckets, sum_value=self._sum
        )


class CertificateExpiry(Collector):
    """
    When the certificates of some settings end, read from their files when they have changed.

    Of a certificate of the relay's own the first of its file, of authorities the one that lasts longest:
    without it nobody is trusted any more. A file that cannot be read gives nothing.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.files: Mapping[str, str] = {}
        """Setting, such as database.ssl_cert_file, to path."""
        self._read: dict[str, tuple[tuple[str, int, int], float]] = {}

    def collect(self) -> Iterable[Metric]:
        """One sample for each file."""
        family = GaugeMetricFamily(
            self._name,
            "When the certificate of this setting ends, in seconds since 1970",
            labels=["setting"],
        )
        for setting, path in self.files.items():
            try:
                family.add_metric([setting], self._not_after(setting, Path(path)))
            except (OSError, ValueError):
                self._read.pop(setting, None)
        yield family

    def _not_after(self, setting: str, path: Path) -> float:
        found = path.stat()
        version = (str(path), found.st_mtime_ns, found.st_size)
        known = self._read.get(setting)
        if known is None or known[0] != version:
            known = self._read[setting] = (version, not_after(path.read_bytes(), setting))
        return known[1]


def not_after(pem: bytes, setting: str) -> float:
    """When what the file of *setting* holds ends. Raises ValueError if it holds no certificate."""
    from cryptography import x509  # noqa: PLC0415 - only where certificates are used

    certificates = x509.load_pem_x509_certificates(pem)
    ends = [certificate.not_valid_after_utc.timestamp() for certificate in certificates]
    return max(ends) if setting.endswith("ca_file") else ends[0]
