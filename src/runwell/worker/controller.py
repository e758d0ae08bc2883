"""The life of one run as decisions: what happened comes in, what to report goes out. No I/O."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal

from runwell.core.errors import ErrorCode, InternalError, TaskRunError
from runwell.core.protocol import (
    CanceledReport,
    CompleteReport,
    DequeuedRun,
    FailReport,
    HandBackReport,
    StartReport,
)
from runwell.worker.exits import Circumstances, Exit, explain_exit
from runwell.worker.messages import Completion, Failure

EndReport = CompleteReport | FailReport | HandBackReport | CanceledReport
Result = Literal["completed", "failed", "canceled", "handed-back", "lost"]


class Wish(StrEnum):
    """Why a run is to stop before its end."""

    #: A user canceled it: the server waits for the word that it has stopped.
    CANCEL = "cancel"
    #: It exceeded its max duration.
    TIME_OUT = "time-out"
    #: It exceeded its memory.
    MEMORY = "memory"
    #: The worker shuts down: it goes on elsewhere.
    HAND_BACK = "hand-back"
    #: The lease is another's now: nobody wants to hear of it.
    LOSE = "lose"


# A wish is not replaced by a weaker one.
_STRENGTH = [Wish.TIME_OUT, Wish.MEMORY, Wish.HAND_BACK, Wish.CANCEL, Wish.LOSE]


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How the attempt ended here; a report of None: there is nothing to say to the server."""

    report: EndReport | None
    result: Result
    error: TaskRunError | None = None
    duration_seconds: float = 0


class RunController:
    """What a worker knows of one run that it holds. Instants are seconds since the epoch."""

    def __init__(self, run: DequeuedRun) -> None:
        self.run = run
        self.started_at: float | None = None
        self.wish: Wish | None = None
        self.was_killed_for_grace = False
        self._waited_seconds = 0.0
        self._blocked_at: float | None = None

    def start(self, instant: float) -> StartReport:
        """Its process has it."""
        self.started_at = instant
        return StartReport.model_construct(
            run_id=self.run.run_id, snapshot_id=self.run.snapshot_id, started_at=_aware(instant)
        )

    @property
    def is_blocked(self) -> bool:
        """Whether it waits and can do nothing else."""
        return self._blocked_at is not None

    def block(self, instant: float) -> None:
        """It waits from here on."""
        if self._blocked_at is None:
            self._blocked_at = instant

    def unblock(self, instant: float) -> None:
        """It goes on."""
        if self._blocked_at is not None:
            self._waited_seconds += max(0.0, instant - self._blocked_at)
            self._blocked_at = None

    def active_seconds(self, instant: float) -> float:
        """How long it has run without its waits (docs `runs/max-duration.md`)."""
        waited = self._waited_seconds
        if self._blocked_at is not None:
            waited += max(0.0, instant - self._blocked_at)
        return max(0.0, instant - self._started_at(instant) - waited)

    def want(self, wish: Wish) -> bool:
        """Note that it is to stop; False when something stronger was wanted before."""
        if self.wish is not None and _STRENGTH.index(self.wish) >= _STRENGTH.index(wish):
            return False
        self.wish = wish
        return True

    def on_complete(self, completion: Completion) -> Ending:
        """The task returned. One that exceeded its limits in the same instant has made it."""
        finished_at = completion.finished_at
        if self.wish in (Wish.CANCEL, Wish.LOSE):
            return self._stopped_early(finished_at)
        started_at = self._started_at(finished_at)
        report = CompleteReport(
            run_id=self.run.run_id,
            snapshot_id=self.run.snapshot_id,
            output=completion.output,
            started_at=_aware(started_at),
            finished_at=_aware(finished_at),
            duration_ms=_milliseconds(self.active_seconds(finished_at)),
        )
        return Ending(report=report, result="completed", duration_seconds=finished_at - started_at)

    def on_failure(self, failure: Failure) -> Ending:
        """The task raised."""
        if self.wish in (Wish.CANCEL, Wish.LOSE):
            return self._stopped_early(failure.finished_at)
        return self._failed(
            failure.error,
            failure.finished_at,
            skip_retrying=failure.skip_retrying,
            retry_at=failure.retry_at,
        )

    def on_stopped(self, instant: float) -> Ending:
        """The task let the wish to stop pass through it."""
        return self._stopped_early(instant)

    def on_exit(self, end: Exit, seen: Circumstances, instant: float) -> Ending:
        """The process ended and had not said how the run did."""
        if self.wish is None or self.wish is Wish.MEMORY:
            return self._failed(explain_exit(end, seen), instant)
        return self._stopped_early(instant)

    def on_host_lost(self, instant: float, *, is_suspect: bool) -> Ending:
        """The warm parent died and took the process along; most likely the run is not to blame."""
        if self.wish in (Wish.CANCEL, Wish.LOSE, Wish.TIME_OUT):
            return self._stopped_early(instant)
        if is_suspect:
            error = InternalError(
                code=ErrorCode.TASK_EXECUTION_ABORTED,
                message="the process that started the run was killed again and again",
            )
            return self._failed(error, instant)
        return self._handed_back("the process that started it was killed", instant)

    def on_not_started(self, reason: str, instant: float) -> Ending:
        """There is no process for it here."""
        if self.wish in (Wish.CANCEL, Wish.LOSE):
            return self._stopped_early(instant)
        return self._handed_back(reason, instant)

    def _stopped_early(self, instant: float) -> Ending:
        duration = instant - self._started_at(instant)
        match self.wish:
            case Wish.LOSE:
                return Ending(report=None, result="lost", duration_seconds=duration)
            case Wish.CANCEL:
                report = CanceledReport(run_id=self.run.run_id, snapshot_id=self.run.snapshot_id)
                return Ending(report=report, result="canceled", duration_seconds=duration)
            case Wish.HAND_BACK:
                return self._handed_back("the worker shuts down", instant)
            case Wish.TIME_OUT:
                return self._failed(self._timed_out(), instant)
            case Wish.MEMORY | None:
                error = InternalError(
                    code=ErrorCode.TASK_EXECUTION_ABORTED, message="the run was stopped"
                )
                return self._failed(error, instant)

    def _timed_out(self) -> InternalError:
        message = f"Run exceeded maximum duration of {self.run.max_duration} seconds"
        if self.was_killed_for_grace:
            message += "; it did not stop when it was asked to, and its process was killed"
        return InternalError(code=ErrorCode.MAX_DURATION_EXCEEDED, message=message)

    def _failed(
        self,
        error: TaskRunError,
        instant: float,
        *,
        skip_retrying: bool = False,
        retry_at: datetime | None = None,
    ) -> Ending:
        started_at = self._started_at(instant)
        report = FailReport(
            run_id=self.run.run_id,
            snapshot_id=self.run.snapshot_id,
            error=error,
            skip_retrying=skip_retrying,
            retry_at=retry_at,
            started_at=_aware(started_at),
            finished_at=_aware(instant),
            duration_ms=_milliseconds(self.active_seconds(instant)),
        )
        return Ending(
            report=report, result="failed", error=error, duration_seconds=instant - started_at
        )

    def _handed_back(self, reason: str, instant: float) -> Ending:
        report = HandBackReport(
            run_id=self.run.run_id, snapshot_id=self.run.snapshot_id, reason=reason
        )
        duration = instant - self._started_at(instant)
        return Ending(report=report, result="handed-back", duration_seconds=duration)

    def _started_at(self, finished_at: float) -> float:
        # The machine's clock may have been set back meanwhile.
        return finished_at if self.started_at is None else min(self.started_at, finished_at)


def _aware(instant: float) -> datetime:
    return datetime.fromtimestamp(instant, UTC)


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))
