"""
When certificates end, as the metrics say it: read from their files, anew when they change.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from outbox_relay.config import load_config
from outbox_relay.metric_kinds import CertificateExpiry, not_after
from outbox_relay.wiring import certificates
from tests.services.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def ends(expiry: CertificateExpiry) -> dict[str, float]:
    """Setting -> when its certificate ends."""
    [family] = expiry.collect()
    return {sample.labels["setting"]: sample.value for sample in family.samples}


def test_a_certificate_that_is_replaced_is_read_anew(authority: Authority, tmp_path: Path) -> None:
    """
    The file stays where it is: what it holds changes.
    """
    path = tmp_path / "client.pem"
    expiry = CertificateExpiry("x")
    expiry.files = {"kafka.ssl_cert_file": str(path)}
    none = ends(expiry)
    path.write_bytes(authority.sign("first").cert.read_bytes())
    first = ends(expiry)
    path.write_bytes(b"damaged")
    damaged = ends(expiry)
    path.write_bytes(authority.sign("second").cert.read_bytes())
    second = ends(expiry)

    assert none == damaged == {}
    assert first["kafka.ssl_cert_file"] > datetime.now(UTC).timestamp()
    assert second.keys() == first.keys()


def test_a_file_that_has_not_changed_is_not_read_again(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A scrape costs a look at the file, not its parsing.
    """
    expiry = CertificateExpiry("x")
    expiry.files = {"kafka.ssl_cert_file": str(authority.certificate.cert)}
    before = ends(expiry)
    monkeypatch.setattr(Path, "read_bytes", lambda _path: b"")

    assert ends(expiry) == before


def test_of_authorities_the_last_one_counts(authority: Authority, tmp_path: Path) -> None:
    """
    A bundle holds old ones too; of a chain the first certificate is the relay's own.
    """
    other = Authority(tmp_path / "other")
    both = authority.certificate.cert.read_bytes() + other.certificate.cert.read_bytes()
    first = not_after(authority.certificate.cert.read_bytes(), "kafka.ssl_cert_file")
    second = not_after(other.certificate.cert.read_bytes(), "kafka.ssl_cert_file")

    assert not_after(both, "kafka.ssl_ca_file") == max(first, second)
    assert not_after(both, "kafka.ssl_cert_file") == first


def test_the_settings_name_the_certificates(authority: Authority) -> None:
    """
    Those of the database and of the broker that is chosen, where they are set.
    """
    path = str(authority.certificate.cert)
    config = load_config(
        None,
        {
            "OUTBOX_RELAY_DATABASE__URL": "mysql+asyncmy://ob@db/shop",
            "OUTBOX_RELAY_DATABASE__SSL": "true",
            "OUTBOX_RELAY_DATABASE__SSL_CA_FILE": path,
            "OUTBOX_RELAY_KAFKA__BOOTSTRAP_SERVERS": "kafka:9092",
        },
    )

    assert certificates(config) == {"database.ssl_ca_file": path}
    assert timedelta(0) < datetime.fromtimestamp(
        not_after(authority.certificate.cert.read_bytes(), "x"), UTC
    ) - datetime.now(UTC)
