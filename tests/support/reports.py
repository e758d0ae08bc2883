"""What a worker reports of a run."""

from datetime import datetime
from typing import Any

from runwell.core.errors import BuiltInError, TaskRunError
from runwell.core.protocol import (
    CanceledReport,
    CompleteReport,
    DequeuedRun,
    FailReport,
    HandBackReport,
    LogsReport,
    StartReport,
)
from runwell.core.spans import CapturedLine
from tests.support.instants import NOW

ERROR = BuiltInError(name="ValueError", message="no", stack_trace="Traceback ...")


def start(run: DequeuedRun, at: datetime = NOW) -> StartReport:
    """The attempt starts."""
    return StartReport(run_id=run.run_id, snapshot_id=run.snapshot_id, started_at=at)


def complete(run: DequeuedRun, output: str | None = "3", at: datetime = NOW) -> CompleteReport:
    """The task returned."""
    return CompleteReport(
        run_id=run.run_id,
        snapshot_id=run.snapshot_id,
        output=output,
        started_at=at,
        finished_at=at,
        duration_ms=5,
    )


def fail(
    run: DequeuedRun, error: TaskRunError = ERROR, at: datetime = NOW, **fields: Any
) -> FailReport:
    """The attempt failed."""
    return FailReport(
        run_id=run.run_id,
        snapshot_id=run.snapshot_id,
        error=error,
        started_at=at,
        finished_at=at,
        duration_ms=5,
        **fields,
    )


def hand_back(run: DequeuedRun) -> HandBackReport:
    """The worker gives the run back."""
    return HandBackReport(run_id=run.run_id, snapshot_id=run.snapshot_id, reason="shutting down")


def canceled(run: DequeuedRun) -> CanceledReport:
    """A canceled run has stopped."""
    return CanceledReport(run_id=run.run_id, snapshot_id=run.snapshot_id)


def write_lines(run: DequeuedRun, *messages: str, first: int = 1) -> LogsReport:
    """Lines that the attempt wrote."""
    return LogsReport(
        run_id=run.run_id,
        snapshot_id=run.snapshot_id,
        attempt_number=run.attempt_number,
        lines=[
            CapturedLine(seq=seq, time=NOW, level="INFO", message=message)
            for seq, message in enumerate(messages, first)
        ],
    )
