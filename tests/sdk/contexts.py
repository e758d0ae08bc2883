"""Contexts of runs and runtimes for tests of the SDK."""

from collections.abc import Mapping
from datetime import UTC, datetime

from runwell.core.machines import MachineName
from runwell.core.payloads import Json
from runwell.core.protocol import (
    DequeuedRun,
    EnvironmentContext,
    OrganizationContext,
    ProjectContext,
    QueueContext,
    TaskManifest,
)
from runwell.sdk.runtime import LogLevel, RunContext

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

    def emit_line(self, level: LogLevel, message: str, attributes: Mapping[str, Json]) -> None:
        """Keep a line."""
        self.lines.append((level, message, attributes))
