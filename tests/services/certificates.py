"""
Certificates made for one run of the tests, with the openssl program.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from tests.services.process import MissingPartError, ServiceFailedError

KEY_PASSWORD = "opens-the-key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate and its key, in PEM files of their own."""

    cert: Path
    key: Path


class Authority:
    """Signs certificates. Its own is `certificate.cert`."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        if shutil.which("openssl") is None:
            raise MissingPartError("openssl is not installed; run: apt-get install openssl")
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        # Without it the system's own settings would add extensions.
        self._config = folder / "openssl.cnf"
        self._config.write_text("[req]\ndistinguished_name = dn\n[dn]\n")
        self.certificate = self._make(
            name,
            (
                "basicConstraints=critical,CA:TRUE",
                "keyUsage=critical,keyCertSign",
                "subjectKeyIdentifier=hash",
            ),
        )

    def sign(self, name: str, *, names: str = "IP:127.0.0.1,DNS:localhost") -> Certificate:
        """A certificate for *names*, for servers and clients alike."""
        return self._make(
            name,
            (
                f"subjectAltName={names}",
                "basicConstraints=critical,CA:FALSE",
                "keyUsage=critical,digitalSignature",
                "extendedKeyUsage=serverAuth,clientAuth",
                "authorityKeyIdentifier=keyid",
            ),
            "-CA",
            str(self.certificate.cert),
            "-CAkey",
            str(self.certificate.key),
        )

    def sign_expired(self, name: str) -> Certificate:
        """A certificate like those of `sign` that ran out yesterday."""
        return self.sign_until(name, datetime.now(UTC) - timedelta(days=1))

    def sign_until(self, name: str, end: datetime) -> Certificate:
        """A certificate like those of `sign` that ends at *end*."""
        made = self.sign(name)
        own = x509.load_pem_x509_certificate(made.cert.read_bytes())
        authority = load_pem_private_key(self.certificate.key.read_bytes(), None)
        builder = (
            x509.CertificateBuilder()
            .subject_name(own.subject)
            .issuer_name(own.issuer)
            .public_key(own.public_key())
            .serial_number(own.serial_number)
            .not_valid_before(min(end, datetime.now(UTC)) - timedelta(days=1))
            .not_valid_after(end)
        )
        for extension in own.extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        signed = builder.sign(authority, hashes.SHA256())  # type: ignore[arg-type]
        made.cert.write_bytes(signed.public_bytes(Encoding.PEM))
        return made

    def encrypted_key(self, certificate: Certificate) -> Path:
        """The certificate's key once more, under KEY_PASSWORD."""
        path = certificate.key.with_suffix(".encrypted")
        _openssl(
            "pkcs8",
            "-topk8",
            "-in",
            str(certificate.key),
            "-out",
            str(path),
            "-passout",
            f"pass:{KEY_PASSWORD}",
        )
        return path

    def _make(self, name: str, extensions: Sequence[str], *signed_by: str) -> Certificate:
        made = Certificate(cert=self.folder / f"{name}.pem", key=self.folder / f"{name}.key")
        _openssl(
            "req",
            "-x509",
            "-config",
            str(self._config),
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "30",
            "-subj",
            f"/CN=outbox test {name}",
            "-keyout",
            str(made.key),
            "-out",
            str(made.cert),
            *(word for extension in extensions for word in ("-addext", extension)),
            *signed_by,
        )
        # A server that runs as a user of its own reads them too.
        made.key.chmod(0o644)
        return made


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServiceFailedError(f"openssl {arguments[0]} failed:\n{done.stderr}")
