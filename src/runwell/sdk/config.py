"""`define_config` and its options: what `trigger_config.py` says about a project."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Unpack, cast, get_args

from runwell.client.options import (
    MachineOption,
    Retry,
    read_machine,
    read_max_duration,
    read_whole_seconds,
)
from runwell.core.machines import MachineName
from runwell.core.timing import Duration
from runwell.sdk.hooks import Hook, HookName, HookOptions, Hooks, read_hooks
from runwell.sdk.logger import LogThreshold
from runwell.sdk.task_options import TaskDefaults
from runwell.sdk.telemetry import Telemetry, read_telemetry

#: Files that are never task files, besides those whose name starts with `_`.
DEFAULT_IGNORE_PATTERNS = ("**/test_*.py", "**/*_test.py", "**/conftest.py")


@dataclass(frozen=True, kw_only=True, slots=True)
class Retries:
    """The retry settings of a project.

    `default` holds for tasks without a `retry=` of their own. With `enabled_in_dev=False` a failed
    attempt is never repeated in a development environment, so that errors show at once.

    Example:
        >>> from runwell import Retries, Retry, define_config
        >>> config = define_config(
        ...     retries=Retries(enabled_in_dev=False, default=Retry(max_attempts=5))
        ... )
    """

    enabled_in_dev: bool = True
    default: Retry | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """The configuration of a project, checked; made by `define_config`.

    Example:
        >>> from runwell import Config, define_config
        >>> config: Config = define_config(machine="small-2x")
        >>> config.dirs
        ('trigger',)
    """

    project: str | None
    dirs: tuple[str, ...]
    ignore_patterns: tuple[str, ...]
    retries: Retries
    machine: MachineName | None
    max_duration: int | None
    ttl: int | None
    log_level: LogThreshold
    hooks: Hooks = field(default_factory=dict[HookName, Hook])
    telemetry: Telemetry = field(default_factory=Telemetry)

    def may_retry_in(self, environment_type: str) -> bool:
        """Whether failed attempts are repeated at all in an environment of this type."""
        return self.retries.enabled_in_dev or environment_type != "DEVELOPMENT"

    @property
    def task_defaults(self) -> TaskDefaults:
        """What holds for tasks that don't say otherwise."""
        default = self.retries.default
        return TaskDefaults(
            retry=None if default is None else default.to_options(),
            machine=self.machine,
            max_duration=self.max_duration,
            ttl=self.ttl,
        )


# One keyword for each option, as projects write them: nobody passes them by place.
def define_config(  # noqa: PLR0913
    *,
    project: str | None = None,
    dirs: Sequence[str] = ("trigger",),
    ignore_patterns: Sequence[str] = DEFAULT_IGNORE_PATTERNS,
    retries: Retries | None = None,
    machine: MachineOption | None = None,
    max_duration: Duration | None = None,
    ttl: Duration | None = None,
    log_level: LogThreshold = "info",
    telemetry: Telemetry | None = None,
    **hooks: Unpack[HookOptions],
) -> Config:
    """Describe a project, in `trigger_config.py` at its root: `config = define_config(...)`.

    `project` is the project's ref; without it, the one that the secret key belongs to. `dirs` are
    the folders with the task files, relative to this one; `ignore_patterns` name files in them that
    are none. `machine`, `max_duration` and `ttl` hold for tasks that don't set their own; with a
    `ttl` of 0 runs wait as long as it takes. `log_level` is the least urgent level of `logger` that
    is sent. `telemetry` adds to OpenTelemetry. The rest are hooks, called for every task.

    Example:
        >>> from runwell import define_config
        >>> config = define_config(dirs=["trigger"], max_duration="1h", log_level="debug")
        >>> config.max_duration
        3600
    """
    if log_level not in get_args(LogThreshold):
        names = ", ".join(get_args(LogThreshold))
        raise ValueError(f"log_level={log_level!r}: choose one of {names}")
    return Config(
        project=project,
        dirs=tuple(_read_dir(name) for name in _read_texts("dirs", dirs)),
        ignore_patterns=_read_texts("ignore_patterns", ignore_patterns),
        retries=_read_retries(retries),
        machine=None if machine is None else read_machine(machine),
        max_duration=None if max_duration is None else read_max_duration(max_duration),
        ttl=None if ttl is None else read_whole_seconds("ttl", ttl),
        log_level=log_level,
        hooks=read_hooks(hooks, "define_config"),
        telemetry=read_telemetry(telemetry),
    )


def _read_retries(value: object) -> Retries:
    if value is None or isinstance(value, Retries):
        return value or Retries()
    raise ValueError(f"retries={value!r}: it takes Retries(enabled_in_dev=..., default=...)")


def _read_texts(option: str, value: object) -> tuple[str, ...]:
    # A text is a sequence of texts too, and never meant as one here.
    if isinstance(value, list | tuple):
        texts = cast("Sequence[object]", value)
        if all(isinstance(text, str) for text in texts):
            return tuple(cast("Sequence[str]", texts))
    raise ValueError(f"{option}={value!r}: it takes a list of texts")


def _read_dir(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or str(path) == ".":
        raise ValueError(
            f"dirs: {name!r} must be a folder inside of the project, relative to trigger_config.py"
        )
    return str(path)
