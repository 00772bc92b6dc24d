"""The files that the settings name."""

from __future__ import annotations

import dataclasses
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from outbox_relay.config import Config
from outbox_relay.credentials import read_secret
from outbox_relay.doctor.facts import ConfigurationFacts, FileFacts
from outbox_relay.errors import CredentialsError

_SECRET_SETTINGS: Final = ("kafka.sasl_password",)
_URLS: Final = ("database.url", "amqp.url", "redis.url")
_DAY: Final = 86_400.0


def look_at_files(config: Config, *, now: datetime | None = None) -> ConfigurationFacts:
    """What can be said of the files of the settings in use."""
    moment = now or datetime.now(UTC)
    path = _config_path(config)
    return ConfigurationFacts(
        files=tuple(_files(config, moment)),
        config_path=path,
        config_mode=None if path is None else _mode(path),
        secrets_in_config=() if path is None else tuple(_secrets_in(config, path)),
    )


def _sections(config: Config) -> dict[str, Any]:
    chosen = config.broker.section
    return {"database": config.database, chosen: getattr(config, chosen)}


def _files(config: Config, now: datetime) -> Iterator[FileFacts]:
    for section, options in _sections(config).items():
        for option in dataclasses.fields(options):
            path = getattr(options, option.name)
            if not option.name.endswith("_file") or not path:
                continue
            setting = f"{section}.{option.name}"
            is_certificate = option.name in ("ssl_ca_file", "ssl_cert_file")
            is_secret = "password" in option.name or option.name == "ssl_key_file"
            yield FileFacts(
                setting=setting,
                path=path,
                is_secret=is_secret,
                mode=_mode(path),
                problem=_problem(setting, path, is_text="password" in option.name),
                not_after_days=_days_left(path, now) if is_certificate else None,
            )


def _problem(setting: str, path: str, *, is_text: bool) -> str | None:
    try:
        if is_text:
            read_secret(setting, path)
        else:
            Path(path).read_bytes()
    except CredentialsError as error:
        return str(error)
    except OSError as error:
        return f"{setting} = {path} cannot be read ({error.strerror})"
    return None


def _mode(path: str) -> int | None:
    try:
        return stat.S_IMODE(Path(path).stat().st_mode)
    except OSError:
        return None


def _days_left(path: str, now: datetime) -> float | None:
    """Of the certificate that ends first; None where there is none to be read."""
    try:
        found = x509.load_pem_x509_certificates(Path(path).read_bytes())
    except (OSError, ValueError):
        return None
    ends = min((item.not_valid_after_utc for item in found), default=None)
    return None if ends is None else (ends - now).total_seconds() / _DAY


def _config_path(config: Config) -> str | None:
    """The file that settings came from, if any did."""
    paths = {
        origin
        for origin in config.origins.values()
        if origin != "flag" and not origin.startswith("environment: ")
    }
    return min(paths, default=None)


def _secrets_in(config: Config, path: str) -> Iterator[str]:
    for key, origin in config.origins.items():
        section, _, name = key.partition(".")
        value = getattr(getattr(config, section), name)
        if origin != path or not value:
            continue
        if key in _SECRET_SETTINGS:
            yield key
        elif key in _URLS and _has_password(value):
            yield f"the password of {key}"


def _has_password(url: str) -> bool:
    netloc = url.partition("://")[2].partition("/")[0]
    return ":" in netloc.rpartition("@")[0]
