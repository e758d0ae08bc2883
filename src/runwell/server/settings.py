"""What the server can be told: settings, read from the environment in one place."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from runwell.core.errors import ConfigurationError
from runwell.core.protocol import LEASE_SECONDS
from runwell.engine.backlogs import QueueSizes
from runwell.engine.retention import DEFAULT_DAYS, Retention
from runwell.server.event_log import LEVELS, LogFormat
from runwell.server.object_stores import (
    FileStoreSettings,
    ObjectStoreSettings,
    read_object_store,
)
from runwell.server.request_limits import RequestLimits, read_request_limits

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 3030
DEFAULT_DATA_DIR = Path(".runwell")
DEFAULT_POOL_SIZE = 10
DEFAULT_STOP_SECONDS = 10

_LEAST_KEY_CHARACTERS = 32


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the server can be told. `database_url` of None means the embedded PostgreSQL."""

    database_url: str | None = None
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    data_dir: Path = DEFAULT_DATA_DIR
    log_level: str = "info"
    log_format: LogFormat = "text"
    lease_seconds: int = LEASE_SECONDS
    pool_size: int = DEFAULT_POOL_SIZE
    stop_seconds: int = DEFAULT_STOP_SECONDS
    object_store: ObjectStoreSettings = field(default_factory=FileStoreSettings)
    retention: Retention = field(default_factory=Retention)
    queue_sizes: QueueSizes = field(default_factory=QueueSizes)
    #: The first encrypts environment variables, each decrypts what it encrypted.
    encryption_keys: tuple[str, ...] = field(default=(), repr=False)
    limits: RequestLimits = field(default_factory=lambda: read_request_limits({}))


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of the environment; raises ConfigurationError that says what to change."""
    given = os.environ if environment is None else environment
    log_format = _choice(given, "RUNWELL_LOG_FORMAT", "text", ("text", "json"))
    return Settings(
        database_url=_database_url(given),
        host=given.get("RUNWELL_HOST") or DEFAULT_HOST,
        port=_integer(given, "RUNWELL_PORT", DEFAULT_PORT, 0, 65_535),
        data_dir=Path(given.get("RUNWELL_DATA_DIR") or DEFAULT_DATA_DIR),
        log_level=_choice(given, "RUNWELL_LOG_LEVEL", "info", LEVELS),
        log_format="json" if log_format == "json" else "text",
        lease_seconds=_integer(given, "RUNWELL_LEASE_SECONDS", LEASE_SECONDS, 1, 3_600),
        pool_size=_integer(given, "RUNWELL_POOL_SIZE", DEFAULT_POOL_SIZE, 2, 1_000),
        stop_seconds=_integer(given, "RUNWELL_STOP_SECONDS", DEFAULT_STOP_SECONDS, 1, 3_600),
        object_store=read_object_store(given),
        queue_sizes=QueueSizes(
            development=_queue_size(given, "RUNWELL_QUEUE_SIZE_DEV", QueueSizes.development),
            staging=_queue_size(given, "RUNWELL_QUEUE_SIZE_STAGING", QueueSizes.staging),
            production=_queue_size(given, "RUNWELL_QUEUE_SIZE_PROD", QueueSizes.production),
        ),
        encryption_keys=_encryption_keys(given),
        limits=read_request_limits(given),
        retention=Retention(
            runs=_days(given, "RUNWELL_RUN_RETENTION_DAYS"),
            lines=_days(given, "RUNWELL_LOG_RETENTION_DAYS"),
        ),
    )


def _database_url(given: Mapping[str, str]) -> str | None:
    url = given.get("DATABASE_URL", "").strip()
    if url and not url.startswith(("postgresql://", "postgres://")):
        # The value itself is not shown: it holds a password.
        raise ConfigurationError(
            "DATABASE_URL must begin with postgresql:// (postgresql://user:password@host/name); "
            "unset it to use the embedded PostgreSQL"
        )
    return url or None


def _choice(given: Mapping[str, str], name: str, default: str, choices: tuple[str, ...]) -> str:
    value = given.get(name, "").strip().lower() or default
    if value not in choices:
        raise ConfigurationError(f"{name} is {value!r}: it must be one of {', '.join(choices)}")
    return value


def _encryption_keys(given: Mapping[str, str]) -> tuple[str, ...]:
    keys = tuple(
        key.strip() for key in given.get("RUNWELL_ENCRYPTION_KEY", "").split(",") if key.strip()
    )
    if any(len(key) < _LEAST_KEY_CHARACTERS for key in keys):
        # The value itself is not shown.
        raise ConfigurationError(
            f"RUNWELL_ENCRYPTION_KEY must have {_LEAST_KEY_CHARACTERS} random characters or more "
            "(`openssl rand -hex 32` prints some); several keys have commas between them"
        )
    return keys


def _queue_size(given: Mapping[str, str], name: str, default: int) -> int:
    return _integer(given, name, default, 1, 1_000_000_000)


def _days(given: Mapping[str, str], name: str) -> timedelta | None:
    """A number of days; None for 0, which means for ever."""
    days = _integer(given, name, DEFAULT_DAYS, 0, 36_500)
    return timedelta(days=days) if days else None


def _integer(given: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    value = given.get(name, "").strip()
    if not value:
        return default
    if not (value.isascii() and value.isdecimal() and least <= int(value[:12]) <= most):
        raise ConfigurationError(
            f"{name} is {value!r}: it must be a whole number from {least} to {most}"
        )
    return int(value)
