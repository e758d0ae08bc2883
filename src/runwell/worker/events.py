"""What a supervisor tells its owner, so that the owner can print it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runwell.core.errors import TaskRunError
from runwell.core.protocol import WorkerMetadata
from runwell.worker.messages import Problem


@dataclass(frozen=True, kw_only=True)
class WorkerConnected:
    """The server knows the worker under this id now."""

    worker_id: str
    environment_slug: str
    project_ref: str


@dataclass(frozen=True, kw_only=True)
class VersionRegistered:
    """A version of a project's tasks takes runs now. `is_new`: the server had not seen it before.

    `mode` is `fork`, or `spawn` when the project's import left threads running.
    """

    version: str
    background_worker_id: str
    folder: Path
    metadata: WorkerMetadata
    mode: str
    import_seconds: float


@dataclass(frozen=True, kw_only=True)
class ImportProblems:
    """Task files that could not be imported; `kept_version` is the good one that stays."""

    folder: Path
    problems: list[Problem]
    kept_version: str | None


@dataclass(frozen=True, kw_only=True)
class VersionUnusable:
    """A version can't run here any more (its files changed, its warm parent does not start)."""

    version: str
    message: str


@dataclass(frozen=True, kw_only=True)
class ForkFailed:
    """The machine has no room for another process; it is tried again every second."""

    message: str


@dataclass(frozen=True, kw_only=True)
class VersionRetired:
    """A version that is no longer current and has no runs was let go."""

    version: str


@dataclass(frozen=True, kw_only=True)
class ImportOutput:
    """A line that a project's files wrote while they were imported."""

    folder: Path
    text: str


@dataclass(frozen=True, kw_only=True)
class RunStarted:
    """A run's code starts."""

    run_id: str
    task_id: str
    attempt_number: int
    version: str


@dataclass(frozen=True, kw_only=True)
class RunEnded:
    """An attempt of a run is over. `result` says how; the server decides what follows."""

    run_id: str
    task_id: str
    attempt_number: int
    version: str
    result: Literal["completed", "failed", "canceled", "handed-back", "lost"]
    duration_seconds: float
    error: TaskRunError | None = None


@dataclass(frozen=True, kw_only=True)
class RunLogged:
    """A run wrote a line; only told when the settings ask for it."""

    run_id: str
    task_id: str
    level: str
    message: str


@dataclass(frozen=True, kw_only=True)
class ServerUnreachable:
    """The server does not answer; what runs goes on, and results are kept."""

    message: str


@dataclass(frozen=True, kw_only=True)
class ServerReachable:
    """The server answers again."""

    seconds_away: float


@dataclass(frozen=True, kw_only=True)
class ReportRefused:
    """The server refused a report for good; it was dropped, or sent as a failure instead."""

    run_id: str
    message: str


@dataclass(frozen=True, kw_only=True)
class OutputKeptInline:
    """The object store could not take a large output: it is reported as small ones are."""

    run_id: str
    message: str


@dataclass(frozen=True, kw_only=True)
class OutboxFull:
    """Too many results wait for the server: no more runs are taken until it has them."""

    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """The worker takes no more runs and waits for `running` of them."""

    running: int
    grace_seconds: float


WorkerEvent = (
    WorkerConnected
    | VersionRegistered
    | ImportProblems
    | VersionUnusable
    | ForkFailed
    | VersionRetired
    | ImportOutput
    | RunStarted
    | RunEnded
    | RunLogged
    | ServerUnreachable
    | ServerReachable
    | ReportRefused
    | OutputKeptInline
    | OutboxFull
    | Stopping
)
