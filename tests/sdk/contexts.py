"""Contexts of runs and runtimes for tests of the SDK."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime

from runwell.core.machines import MachineName
from runwell.core.metadata import Metadata, Operation, Target, change_in_place
from runwell.core.payloads import Json
from runwell.core.protocol import (
    DequeuedRun,
    EnvironmentContext,
    OrganizationContext,
    ProjectContext,
    QueueContext,
    TaskManifest,
)
from runwell.core.waits import Wait, WaitOutcome
from runwell.sdk.runtime import LogLevel, OpenSpan, RunContext

NOW = datetime(2025, 1, 2, tzinfo=UTC)


def make_context(
    *, environment_type: str = "DEVELOPMENT", batch_id: str | None = None
) -> RunContext:
    """The context of attempt 2 of a run."""
    run = DequeuedRun(
        run_id="run_1",
        snapshot_id=1,
        task_id="hello",
        background_worker_id="worker_1",
        version="20250102.1",
        attempt_id="attempt_1",
        attempt_number=2,
        tags=["a"],
        max_attempts=3,
        max_duration=300,
        machine=MachineName.MICRO,
        queue=QueueContext(id="queue_1", name="task/hello"),
        created_at=NOW,
        batch_id=batch_id,
        context={"from": "test"},
    )
    return RunContext.from_execution(
        run,
        TaskManifest(id="hello", file_path="trigger/a.py", export_name="hello"),
        organization=OrganizationContext(id="org_1", slug="acme", name="Acme"),
        project=ProjectContext(id="p_1", ref="proj_a", slug="shop", name="Shop"),
        environment=EnvironmentContext(id="env_1", slug="dev", type=environment_type),
        started_at=NOW,
    )


class KeepingRuntime:
    """A runtime that keeps the lines."""

    def __init__(self) -> None:
        """Of a run."""
        self.ctx = make_context()
        self.lines: list[tuple[LogLevel, str, Mapping[str, Json]]] = []
        self.wait_hooks = None
        self.spans: list[str] = []
        self.metadata: Metadata = {}
        self.changes: list[tuple[Target, Operation]] = []
        self.locals: dict[object, object] = {}
        self.seconds = 0.0

    def active_seconds(self) -> float:
        """What the test says."""
        return self.seconds

    def emit_line(self, level: LogLevel, message: str, attributes: Mapping[str, Json]) -> None:
        """Keep a line."""
        self.lines.append((level, message, attributes))

    def begin_span(self, name: str, attributes: Mapping[str, Json]) -> OpenSpan:
        """Keep its name, and take what it is told."""
        self.spans.append(name)
        return _Ignored()

    def change_metadata(self, target: Target, operation: Operation) -> None:
        """Keep a change, and apply one of the run's own."""
        self.changes.append((target, operation))
        if target == "run":
            change_in_place(self.metadata, operation)

    def read_metadata(self) -> Metadata:
        """The metadata."""
        return self.metadata

    def replace_metadata(self, metadata: Metadata) -> None:
        """Take other metadata."""
        self.metadata = metadata

    def flush_metadata(self) -> tuple[int, int]:
        """The lease, and how many changes there are."""
        return 7, len(self.changes)

    def begin_wait(self, wait: Wait) -> "asyncio.Future[WaitOutcome]":
        """No test of these waits."""
        raise AssertionError(wait)

    def wait(self, wait: Wait) -> WaitOutcome:
        """No test of these waits."""
        raise AssertionError(wait)


class _Ignored:
    """A span that nobody looks at."""

    def set(self, attributes: Mapping[str, Json]) -> None:
        """Ignore it."""

    def add_event(self, name: str, attributes: Mapping[str, Json]) -> None:
        """Ignore it."""

    def end(self, error: BaseException | None) -> None:
        """Ignore it."""
