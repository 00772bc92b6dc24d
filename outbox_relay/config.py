"""
The settings of the daemon: loaded once, from file, environment and flags, and checked as a whole.

A section is one frozen dataclass, the one home of its defaults. The order is ``config.toml``, then
environment (``OUTBOX_RELAY_KAFKA__BOOTSTRAP_SERVERS``), then flags; the last one wins. Nothing
else in this package reads the environment.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from outbox_relay.admin.options import AdminOptions
from outbox_relay.brokers.options import (
    AmqpOptions,
    BrokerOptions,
    JsonlOptions,
    KafkaOptions,
    RedisOptions,
)
from outbox_relay.config_checks import (
    as_tuple,
    environment_problem,
    login_problems,
    missing_files,
    nearest,
    requirement,
    shown,
    url_problems,
)
from outbox_relay.config_combinations import combination_problems
from outbox_relay.errors import ConfigError
from outbox_relay.relay.canary_options import CanaryOptions
from outbox_relay.relay.options import RelayOptions
from outbox_relay.relay.wire import WireOptions
from outbox_relay.schema import tables
from outbox_relay.store.options import DatabaseOptions

ENVIRONMENT_PREFIX = "OUTBOX_RELAY_"
CONFIG_VARIABLE = "OUTBOX_RELAY_CONFIG"
SEARCHED = (Path("config.toml"), Path("/etc/outbox-relay/config.toml"))


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions:
    """Metrics and health, section ``[http]``."""

    enabled: bool = True
    """Whether /metrics, /livez and /readyz are served."""

    host: str = "127.0.0.1"
    """Address to listen on. 0.0.0.0 in a container, where Prometheus and the kubelet come from outside."""

    port: int = 9464
    """Port to listen on; 0 takes any free one, which the log line http_listening names."""

    def problems(self) -> list[str]:
        """What is wrong with these settings, one line each, named by key."""
        found = []
        if not self.host:
            found.append("http.host is required, such as 127.0.0.1 or 0.0.0.0")
        if not 0 <= self.port <= 65_535:
            found.append(f"http.port = {self.port} must be from 0 to 65535")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """What is logged and how, section ``[log]``. Logs go to standard error."""

    format: Literal["auto", "json", "console"] = "auto"
    """json is one object a line; console is for eyes; auto is console on a terminal, else json."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level that is written. Client libraries never log below warning: they would log keys and values; those of the brokers log at debug only, since the relay says what they say."""

    def problems(self) -> list[str]:
        """What is wrong with these settings, one line each, named by key."""
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class TracingOptions:
    """Spans of the relay, section ``[tracing]``."""

    enabled: bool = False
    """Whether the relay continues the traces in which events were written, by OpenTelemetry: a producer span for each event of a sampled trace. Needs the extra otel and a tracer provider, such as `opentelemetry-instrument` sets one up."""

    def problems(self) -> list[str]:
        """What is wrong with these settings, one line each, named by key."""
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """
    All settings. `origins` says where each one that is not a default came from.

    Its text form hides secrets.
    """

    database: DatabaseOptions
    broker: BrokerOptions = field(default_factory=BrokerOptions)
    kafka: KafkaOptions = field(default_factory=KafkaOptions)
    amqp: AmqpOptions = field(default_factory=AmqpOptions)
    redis: RedisOptions = field(default_factory=RedisOptions)
    jsonl: JsonlOptions = field(default_factory=JsonlOptions)
    relay: RelayOptions = field(default_factory=RelayOptions)
    wire: WireOptions = field(default_factory=WireOptions)
    http: HttpOptions = field(default_factory=HttpOptions)
    admin: AdminOptions = field(default_factory=AdminOptions)
    log: LogOptions = field(default_factory=LogOptions)
    canary: CanaryOptions = field(default_factory=CanaryOptions)
    tracing: TracingOptions = field(default_factory=TracingOptions)
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def publish_deadline_seconds(self) -> float:
        """The deadline of the broker that is chosen."""
        seconds: float = getattr(self, self.broker.section).publish_deadline_seconds
        return seconds

    def settings(self) -> Iterator[tuple[str, str, str]]:
        """Each setting as (key, value as TOML with secrets hidden, origin)."""
        for section, options in SECTIONS.items():
            for option in dataclasses.fields(options):
                key = f"{section}.{option.name}"
                value = getattr(getattr(self, section), option.name)
                yield key, shown(key, value), self.origins.get(key, "default")

    def __repr__(self) -> str:
        return f"Config({', '.join(f'{key}={value}' for key, value, _ in self.settings())})"


SECTIONS: dict[str, type[Any]] = {
    "database": DatabaseOptions,
    "broker": BrokerOptions,
    "kafka": KafkaOptions,
    "amqp": AmqpOptions,
    "redis": RedisOptions,
    "jsonl": JsonlOptions,
    "relay": RelayOptions,
    "wire": WireOptions,
    "http": HttpOptions,
    "admin": AdminOptions,
    "log": LogOptions,
    "canary": CanaryOptions,
    "tracing": TracingOptions,
}


BROKER_SECTIONS = frozenset({"kafka", "amqp", "redis", "jsonl"})


@cache
def setting_types() -> dict[str, Any]:
    """Every key, such as ``relay.chunk_rows``, with its type, in the order of the sections."""
    return {
        f"{section}.{option.name}": typing.get_type_hints(options)[option.name]
        for section, options in SECTIONS.items()
        for option in dataclasses.fields(options)
    }


def environment_name(key: str) -> str:
    """
    The environment variable of a setting.

    >>> environment_name("kafka.bootstrap_servers")
    'OUTBOX_RELAY_KAFKA__BOOTSTRAP_SERVERS'
    """
    return ENVIRONMENT_PREFIX + key.replace(".", "__").upper()


def find_config(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    """
    The file to load: *path*, $OUTBOX_RELAY_CONFIG, ./config.toml or /etc/outbox-relay/config.toml.

    None if there is none; then the environment alone configures.
    """
    if path is not None:
        return path
    if environ.get(CONFIG_VARIABLE):
        return Path(environ[CONFIG_VARIABLE])
    return next((candidate for candidate in SEARCHED if candidate.is_file()), None)


def load_config(
    path: Path | None, environ: Mapping[str, str], flags: Mapping[str, str] | None = None
) -> Config:
    """
    The settings of the file at *path*, overridden by *environ*, overridden by *flags*.

    Raises ConfigError with one line for each thing that is wrong, all at once.
    """
    loading = _Loading(str(path) if path else "configuration")
    if path is not None:
        loading.take_file(_parse(path))
    loading.take_environment(environ)
    loading.take_flags(flags or {})
    return loading.finish()


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read ({error.strerror})"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: is not UTF-8 text"]) from error
    except (ValueError, RecursionError) as error:
        # Not only TOMLDecodeError: a number of 5,000 digits, or 1,000 brackets, end otherwise.
        raise ConfigError([f"{path}: is not TOML: {error}"]) from error


class _Loading:
    """Collects values and problems; a later source wins."""

    def __init__(self, file_label: str) -> None:
        self.file_label = file_label
        self.values: dict[str, Any] = {}
        self.origins: dict[str, str] = {}
        self.problems: list[str] = []
        self.broken: set[str] = set()

    def take_file(self, content: Mapping[str, Any]) -> None:
        for section, settings in content.items():
            if section not in SECTIONS:
                hint = nearest(section, SECTIONS)
                self.problems.append(f"{self.file_label}: [{section}] is not a section{hint}")
            elif not isinstance(settings, Mapping):
                self.problems.append(f"{self.file_label}: {section} must be a section, [{section}]")
            else:
                for name, value in settings.items():
                    self._take_from_file(f"{section}.{name}", value)

    def _take_from_file(self, key: str, value: object) -> None:
        if key not in setting_types():
            hint = nearest(key, setting_types())
            self.problems.append(f"{self.file_label}: {key} is not a setting{hint}")
        else:
            self._set(key, value, self.file_label, strict=True)

    def take_environment(self, environ: Mapping[str, str]) -> None:
        names = {environment_name(key): key for key in setting_types()}
        for name, value in environ.items():
            if not name.startswith(ENVIRONMENT_PREFIX) or name == CONFIG_VARIABLE:
                continue
            if name in names:
                self._set(names[name], value, f"environment: {name}", strict=False)
            elif problem := environment_problem(name, value, names):
                self.problems.append(problem)

    def take_flags(self, flags: Mapping[str, str]) -> None:
        for key, value in flags.items():
            if key not in setting_types():
                hint = nearest(key, setting_types())
                self.problems.append(f"flag: {key} is not a setting{hint}")
            else:
                self._set(key, value, "flag", strict=False)

    def _set(self, key: str, value: object, origin: str, *, strict: bool) -> None:
        self.origins[key] = origin
        if typing.get_origin(setting_types()[key]) is tuple:
            value = as_tuple(value)
        try:
            self.values[key] = _adapter(key).validate_python(value, strict=strict)
        except ValidationError:
            self.broken.add(key)
            name = self._named(key)
            needed = requirement(setting_types()[key])
            self.problems.append(f"{name} = {shown(key, value)} must be {needed}")

    def _named(self, key: str) -> str:
        """*key* as its source calls it, so that it is found where it was written."""
        origin = self.origins.get(key, self.file_label)
        return origin if origin.startswith("environment: ") else f"{origin}: {key}"

    def finish(self) -> Config:
        sections = {}
        for section, options in SECTIONS.items():
            chosen = {
                key.partition(".")[2]: value
                for key, value in self.values.items()
                if key.startswith(f"{section}.") and key not in self.broken
            }
            sections[section] = options(**chosen)
        config = Config(**sections, origins=self.origins)
        for section in _checked_sections(config, self.broken):
            if not any(key.startswith(f"{section}.") for key in self.broken):
                self._add(sections[section].problems())
        self._add(_cross_problems(config, self.broken))
        if self.problems:
            raise ConfigError(self.problems)
        return config

    def _add(self, lines: list[str]) -> None:
        for line in lines:
            key, rest = re.match(r"([a-z]+\.\w+|)(.*)", line, re.DOTALL).groups()  # type: ignore[union-attr]
            self.problems.append(self._named(key) + rest if key else f"{self.file_label}: {line}")


@cache
def _adapter(key: str) -> TypeAdapter[Any]:
    # TOML knows nan and inf; nan <= 0 is false, so they would pass every check of a range.
    return TypeAdapter(setting_types()[key], config=ConfigDict(allow_inf_nan=False))


def _checked_sections(config: Config, broken: set[str]) -> list[str]:
    """All but those of the brokers that are not chosen: they may hold what is for another day."""
    chosen = None if "broker.kind" in broken else config.broker.section
    return [
        section
        for section in SECTIONS
        if section != "wire" and (section not in BROKER_SECTIONS or section == chosen)
    ]


def _cross_problems(config: Config, broken: set[str]) -> list[str]:
    found = []
    lease, deadline = config.relay.lease_seconds, config.publish_deadline_seconds
    key = f"{config.broker.section}.publish_deadline_seconds"
    if lease <= deadline and not broken & {"relay.lease_seconds", "broker.kind", key}:
        found.append(
            f"relay.lease_seconds = {lease} must be greater than {key} = {deadline}, else two "
            "relays publish the same event"
        )
    if config.database.url and "database.url" not in broken:
        found += url_problems(config.database.url) + login_problems(config.database)
    found += combination_problems(config, broken)
    chosen = config.broker.section
    found += missing_files({"database": config.database, chosen: getattr(config, chosen)})
    found += missing_files({"admin": config.admin} if config.admin.enabled else {})
    return found + _name_problems(config.database)


def _name_problems(database: DatabaseOptions) -> list[str]:
    found = []
    for key, names in (
        ("table", {"name": database.table}),
        ("schema", {"schema": database.schema or None}),
    ):
        try:
            tables(**names)
        except ValueError as error:
            found.append(f"database.{key}: {error}")
    if database.schema and database.url.startswith("sqlite"):
        found.append("database.schema is for database servers: SQLite's tables are in url's file")
    return found
