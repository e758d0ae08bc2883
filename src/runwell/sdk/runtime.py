"""The context of a run, and the seam to whoever executes it.

A child process that runs a task enters its `Runtime` here; `logger` and the functions that depend
on the current run ask for it. Outside of a run there is none.
"""

import asyncio
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, Self

from runwell.core.machines import MACHINES, MachineName
from runwell.core.metadata import Metadata, Operation, Target
from runwell.core.payloads import Json
from runwell.core.protocol import (
    DequeuedRun,
    EnvironmentContext,
    OrganizationContext,
    ProjectContext,
    TaskManifest,
)
from runwell.core.waits import Wait, WaitOutcome
from runwell.sdk.hooks import WaitHooks

#: What `logger` writes, from the least to the most urgent.
LogLevel = Literal["DEBUG", "INFO", "LOG", "WARN", "ERROR"]
EnvironmentType = Literal["PRODUCTION", "STAGING", "DEVELOPMENT", "PREVIEW"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunTask:
    """`ctx.task`: the task of the run and where it is defined."""

    id: str
    file_path: str
    export_name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunAttempt:
    """`ctx.attempt`: this attempt of the run, numbered from 1."""

    id: str
    number: int
    started_at: datetime
    background_worker_id: str
    status: str = "EXECUTING"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunDetails:
    """`ctx.run`: the run as it was when this attempt started."""

    id: str
    created_at: datetime
    started_at: datetime
    context: Json = None
    tags: tuple[str, ...] = ()
    is_test: bool = False
    idempotency_key: str | None = None
    max_attempts: int | None = None
    max_duration: int | None = None
    duration_ms: int = 0
    cost_in_cents: float = 0
    base_cost_in_cents: float = 0
    version: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunQueue:
    """`ctx.queue`: the queue that the run came from."""

    id: str
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunEnvironment:
    """`ctx.environment`: the environment that the run belongs to."""

    id: str
    slug: str
    type: EnvironmentType


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOrganization:
    """`ctx.organization`: the organisation that the run belongs to."""

    id: str
    slug: str
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunProject:
    """`ctx.project`: the project that the run belongs to."""

    id: str
    ref: str
    slug: str
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunBatch:
    """`ctx.batch`: the batch that the run was triggered in."""

    id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunMachine:
    """`ctx.machine`: what the attempt may use; `cpu` in cores, `memory` in GB."""

    name: MachineName
    cpu: float
    memory: float
    cents_per_ms: float = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class RunContext:
    """What a task may know about its run: declare a parameter `ctx` to get it.

    It does not change while the task runs.

    Example:
        >>> from runwell import RunContext, task
        >>> @task(id="who-am-i")
        ... async def who_am_i(ctx: RunContext) -> str:
        ...     return f"attempt {ctx.attempt.number} of {ctx.run.id}"
    """

    task: RunTask
    attempt: RunAttempt
    run: RunDetails
    queue: RunQueue
    environment: RunEnvironment
    organization: RunOrganization
    project: RunProject
    batch: RunBatch | None = None
    machine: RunMachine | None = None

    @classmethod
    def from_execution(
        cls,
        run: DequeuedRun,
        manifest: TaskManifest,
        *,
        organization: OrganizationContext,
        project: ProjectContext,
        environment: EnvironmentContext,
        started_at: datetime,
    ) -> Self:
        """The context of the attempt that a worker took as `run` and starts at `started_at`."""
        preset = MACHINES[run.machine]
        return cls(
            task=RunTask(
                id=run.task_id, file_path=manifest.file_path, export_name=manifest.export_name
            ),
            attempt=RunAttempt(
                id=run.attempt_id,
                number=run.attempt_number,
                started_at=started_at,
                background_worker_id=run.background_worker_id,
            ),
            run=RunDetails(
                id=run.run_id,
                created_at=run.created_at,
                started_at=run.started_at or started_at,
                context=run.context,
                tags=tuple(run.tags),
                is_test=run.is_test,
                idempotency_key=run.idempotency_key,
                max_attempts=run.max_attempts,
                max_duration=run.max_duration,
                duration_ms=run.duration_ms,
                version=run.version,
            ),
            queue=RunQueue(id=run.queue.id, name=run.queue.name),
            environment=_environment(environment),
            organization=RunOrganization(
                id=organization.id, slug=organization.slug, name=organization.name
            ),
            project=RunProject(
                id=project.id, ref=project.ref, slug=project.slug, name=project.name
            ),
            batch=None if run.batch_id is None else RunBatch(id=run.batch_id),
            machine=RunMachine(
                name=preset.name,
                cpu=preset.cpu,
                memory=preset.memory,
                cents_per_ms=preset.cents_per_ms,
            ),
        )


class OpenSpan(Protocol):
    """A span that goes on; whoever executes the run makes it. Nothing of it may raise."""

    def set(self, attributes: Mapping[str, Json]) -> None:
        """Attributes, in place of those with the same names."""
        ...

    def add_event(self, name: str, attributes: Mapping[str, Json]) -> None:
        """Something happened now."""
        ...

    def end(self, error: BaseException | None) -> None:
        """The block is over, by an error or without."""
        ...


class Runtime(Protocol):
    """Whoever executes the current run, as the SDK sees it."""

    @property
    def ctx(self) -> RunContext:
        """The context of the current run."""
        ...

    @property
    def locals(self) -> dict[object, object]:
        """What `locals` keeps for this attempt."""
        ...

    def active_seconds(self) -> float:
        """How long this attempt has run until now, in seconds, without its waits."""
        ...

    @property
    def wait_hooks(self) -> WaitHooks | None:
        """Whom to tell of waits; None when no hook wants to know."""
        ...

    def emit_line(self, level: LogLevel, message: str, attributes: Mapping[str, Json]) -> None:
        """Take one line of `logger`. Must not raise; drops what the log level of the project hides.

        `sdk.logger.is_logged` decides that.
        """
        ...

    def begin_span(self, name: str, attributes: Mapping[str, Json]) -> OpenSpan:
        """Begin a span of the run's trace, in which everything is until it ends. Must not raise."""
        ...

    def change_metadata(self, target: Target, operation: Operation) -> None:
        """Take a change of metadata; InvalidPayloadError when the run's would be too large."""
        ...

    def read_metadata(self) -> Metadata:
        """The run's metadata as it knows it."""
        ...

    def replace_metadata(self, metadata: Metadata) -> None:
        """Take what the server has for what the run knows."""
        ...

    def flush_metadata(self) -> tuple[int, int]:
        """Have all changes until now stored at once; the lease, and the number of the last one."""
        ...

    def begin_wait(self, wait: Wait) -> "asyncio.Future[WaitOutcome]":
        """Begin a wait; the coroutine that awaits what this returns is all that stands between."""
        ...

    def wait(self, wait: Wait) -> WaitOutcome:
        """Wait, and block the calling thread."""
        ...


#: The runtime of the run that the current code belongs to; None outside of a run.
current_runtime: ContextVar[Runtime | None] = ContextVar("current_runtime", default=None)
# A thread that user code starts has a context of its own, without the variable; while a run is
# active this process runs nothing else, so such a thread belongs to that run.
_process_runtime: Runtime | None = None


@contextmanager
def activate(runtime: Runtime) -> Generator[None]:
    """Make `runtime` the current one, for this context and for all threads started meanwhile."""
    global _process_runtime
    token, before = current_runtime.set(runtime), _process_runtime
    _process_runtime = runtime
    try:
        yield
    finally:
        _process_runtime = before
        current_runtime.reset(token)


def find_runtime() -> Runtime | None:
    """The runtime of the current run; None outside of a run."""
    return current_runtime.get() or _process_runtime


def _environment(environment: EnvironmentContext) -> RunEnvironment:
    kinds: dict[str, EnvironmentType] = {
        "PRODUCTION": "PRODUCTION",
        "STAGING": "STAGING",
        "DEVELOPMENT": "DEVELOPMENT",
        "PREVIEW": "PREVIEW",
    }
    return RunEnvironment(
        id=environment.id, slug=environment.slug, type=kinds.get(environment.type, "PRODUCTION")
    )
