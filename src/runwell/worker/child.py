"""What happens in the process of a run: take it, load, parse, run, encode, report.

The supervisor's STOP frame comes with a SIGTERM, so that code which never looks at a socket hears
of it: the signal is raised inside the task as `RunCanceled` or `RunTimedOut`. A SIGTERM without a
frame is from somebody else, and ends the process as it ends any.
"""

import atexit
import os
import socket
from collections.abc import Coroutine
from contextvars import copy_context
from datetime import UTC, datetime
from typing import cast

from runwell.client.transport import RateLimitError
from runwell.core.errors import (
    BuiltInError,
    ErrorCode,
    InternalError,
    InvalidPayloadError,
    TaskRunError,
)
from runwell.core.payloads import STORE_TYPE, Json, decode_packet
from runwell.core.protocol import DequeuedRun
from runwell.sdk.logger import LogThreshold
from runwell.sdk.project import ImportedTasks
from runwell.sdk.runtime import RunContext, activate
from runwell.sdk.task import AnyTask
from runwell.worker.async_runs import AsyncRuns
from runwell.worker.capture import Capture, OutputPipe
from runwell.worker.child_environment import ChangedEnvironment
from runwell.worker.child_metadata import ChildMetadata
from runwell.worker.child_runtime import ChildRuntime
from runwell.worker.child_waits import ChildWaits
from runwell.worker.failures import describe_bad_output, describe_exception
from runwell.worker.hooks import Ended, HookedAttempt, Output, Stopped, run_to_end
from runwell.worker.inbox import Inbox
from runwell.worker.large_packets import StoredPayloadError, fetch_payload
from runwell.worker.limits import memory_limit, stop_hard_above
from runwell.worker.messages import (
    FAIL,
    RUN,
    STOPPED,
    Failure,
    OrderedRun,
    RunOrder,
    Surroundings,
    complete_frame,
    frame,
    read_run,
)
from runwell.worker.records import now
from runwell.worker.retrying import AttemptFailure, RetryPlan
from runwell.worker.stop_signal import StopSignal
from runwell.worker.tracing import RunTracing, describe_run


class Child:
    """A process that runs tasks: one run by default, several when they allow it."""

    def __init__(
        self,
        connection: socket.socket,
        capture: Capture,
        pipe: OutputPipe,
        imported: ImportedTasks,
        surroundings: Surroundings,
        log_level: LogThreshold,
        *,
        is_rehearsal: bool = False,
    ) -> None:
        """With `is_rehearsal`, runs change nothing of the process that the next one would see."""
        self._connection = connection
        self._capture = capture
        self._pipe = pipe
        self._imported = imported
        self._surroundings = surroundings
        self._log_level: LogThreshold = log_level
        self._may_retry = imported.config.may_retry_in(surroundings.environment.type)
        self._inbox = Inbox(connection)
        self._waits = ChildWaits(self._inbox)
        self._tracing = RunTracing(pipe, imported.config.telemetry)
        self._folder = os.getcwd()  # noqa: PTH109 (a text is all that chdir needs)
        self._pid = os.getpid()
        self._environment = ChangedEnvironment()
        self._stop = StopSignal(self._inbox)
        tasks = imported.catalog.tasks.values()
        self._project_hooks = imported.config.hooks
        # Made ahead, while the process waits for its run.
        self._async_runs = (
            AsyncRuns(is_rehearsal=is_rehearsal)
            if self._project_hooks or any(task.is_async or task.hooks for task in tasks)
            else None
        )
        self._is_rehearsal = is_rehearsal

    def serve(self) -> int:
        """Take runs until the last one or until the supervisor is gone; returns the exit code."""
        # What was registered before the fork is the parent's to do.
        atexit._clear()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        self._stop.listen()
        while (order := self.take_run()) is not None and order.keep:
            os.chdir(self._folder)
            self._capture.restore()
        if os.getpid() == self._pid:
            atexit._run_exitfuncs()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        return 0

    def take_run(self) -> RunOrder | None:
        """Wait for a run, work on it, and answer; None when there is no further one."""
        order = self._next_order()
        if order is None:
            return None
        self._stop.raised = None
        answer = self._execute(order)
        if self._stop.raised is not None:
            # Whatever the task made of it: one that was asked to stop does not complete.
            answer = frame(STOPPED)
        if os.getpid() != self._pid:
            # The task forked, and its copy came back here: it is nobody's child.
            return None
        if not order.keep and self._async_runs is not None:
            self._async_runs.close()
        self._capture.flush()
        self._waits.end()
        self._inbox.send(answer)
        return order

    def _next_order(self) -> RunOrder | None:
        while (found := self._inbox.next_order()) is not None:
            if found.kind == RUN:
                return read_run(found.body)
            # Too late: the run it was for has ended. Its signal comes, or has come, as well.
            self._stop.expect_stale_signal()
        return None

    def _execute(self, order: RunOrder) -> bytes:
        run: DequeuedRun | None = None
        try:
            run = OrderedRun.model_validate_json(order.run_json)
            self._environment.change(run.variables)
            with self._tracing.attempt(run, self._describe(run)):
                return self._execute_run(run, order)
        except _KnownError as known:
            skip_retrying = known.skip_retrying or not self._may_retry
            return _failure(known.error, skip_retrying=skip_retrying)
        # All that user code can raise ends here, KeyboardInterrupt and SystemExit included.
        except BaseException as error:  # noqa: BLE001
            described, skip_retrying = describe_exception(error)
            is_spent = isinstance(error, MemoryError)
            if run is not None and isinstance(error, RateLimitError):
                return _failure_frame(self._plan(run).usual(error, described))
            skip_retrying = skip_retrying or not self._may_retry
            return _failure(described, skip_retrying=skip_retrying, is_spent=is_spent)

    def _execute_run(self, run: DequeuedRun, order: RunOrder) -> bytes:
        task = self._find_task(run)
        raw = _decode_payload(run)
        runtime = self._make_runtime(run, order)
        if not self._is_rehearsal:
            stop_hard_above(memory_limit(run.machine))
        if task.hooks or self._project_hooks:
            return self._execute_with_hooks(run, task, raw, runtime)
        payload = task.parse_payload(raw)
        value = self._call(task, payload, runtime)
        return complete_frame(now(), _encode(task, value))

    def _describe(self, run: DequeuedRun) -> dict[str, Json]:
        return describe_run(run, self._imported.manifests.get(run.task_id), self._surroundings)

    def _execute_with_hooks(
        self, run: DequeuedRun, task: AnyTask, payload: Json, runtime: ChildRuntime
    ) -> bytes:
        assert self._async_runs is not None
        attempt = HookedAttempt(
            task,
            self._project_hooks,
            runtime,
            self._plan(run),
            self._stop,
            self._async_runs,
            is_first=run.started_at is None,
        )
        if attempt.has_wait_hooks:
            runtime.wait_hooks = attempt
        with activate(runtime):
            context = copy_context()
            coroutine = attempt.execute(payload)
            self._stop.begin(self._async_runs)
            try:
                if task.is_async:
                    ended = cast("Ended", self._async_runs.run(coroutine, context))
                else:
                    ended = context.run(run_to_end, coroutine)
                    self._async_runs.end_leftovers()
            finally:
                self._stop.end()
        match ended:
            case Output():
                return complete_frame(now(), ended.text)
            case AttemptFailure():
                return _failure_frame(ended)
            case Stopped():
                return frame(STOPPED)

    def _plan(self, run: DequeuedRun) -> RetryPlan:
        options = self._imported.manifests[run.task_id].retry
        return RetryPlan.of(run, options, may_retry=self._may_retry)

    def _find_task(self, run: DequeuedRun) -> AnyTask:
        task = self._imported.catalog.tasks.get(run.task_id)
        if task is None:
            raise _KnownError(
                InternalError(
                    code=ErrorCode.COULD_NOT_FIND_TASK,
                    message=f"version {run.version} has no task '{run.task_id}'",
                )
            )
        return task

    def _make_runtime(self, run: DequeuedRun, order: RunOrder) -> ChildRuntime:
        def make_context() -> RunContext:
            return RunContext.from_execution(
                run,
                self._imported.manifests[run.task_id],
                organization=self._surroundings.organization,
                project=self._surroundings.project,
                environment=self._surroundings.environment,
                started_at=datetime.fromtimestamp(order.started_at, UTC),
            )

        metadata = ChildMetadata(run, self._inbox)
        self._waits.start_clock()
        return ChildRuntime(
            make_context, self._pipe, self._log_level, self._waits, metadata, self._tracing
        )

    def _call(self, task: AnyTask, payload: object, runtime: ChildRuntime) -> object:
        with activate(runtime):
            context = copy_context()
            ctx = runtime.ctx if task.takes_context else None
            if task.is_async and self._async_runs is not None:
                self._stop.begin(self._async_runs)
                try:
                    made = context.run(task.call, payload, ctx)
                    coroutine = cast("Coroutine[object, object, object]", made)
                    return self._async_runs.run(coroutine, context)
                finally:
                    self._stop.end()
            self._stop.begin(None)
            try:
                return context.run(task.call, payload, ctx)
            finally:
                self._stop.end()


class _KnownError(Exception):
    """An error whose description is known where it is found."""

    def __init__(self, error: TaskRunError, *, skip_retrying: bool = False) -> None:
        super().__init__(error)
        self.error = error
        self.skip_retrying = skip_retrying


def _decode_payload(run: DequeuedRun) -> Json:
    try:
        if run.payload_type == STORE_TYPE and run.payload is not None:
            return fetch_payload(run.payload)
        return decode_packet(run.payload, run.payload_type)
    except InvalidPayloadError as error:
        raise _KnownError(
            InternalError(code=ErrorCode.TASK_INPUT_ERROR, message=str(error))
        ) from None
    except StoredPayloadError as error:
        raise _KnownError(
            InternalError(code=ErrorCode.TASK_INPUT_ERROR, message=str(error)),
            skip_retrying=error.is_gone,
        ) from None


def _encode(task: AnyTask, value: object) -> str | None:
    try:
        return task.encode_output(value)
    # The user's own serialisers may raise anything.
    except Exception as error:  # noqa: BLE001
        raise _KnownError(describe_bad_output(error)) from None


def _failure_frame(failure: AttemptFailure) -> bytes:
    return _failure(
        failure.error,
        skip_retrying=failure.skip_retrying,
        is_spent=failure.is_spent,
        retry_at=failure.retry_at,
    )


def _failure(
    error: TaskRunError,
    *,
    skip_retrying: bool,
    is_spent: bool = False,
    retry_at: datetime | None = None,
) -> bytes:
    if isinstance(error, BuiltInError) and not error.name:
        error = error.model_copy(update={"name": "Error"})
    failure = Failure(
        error=error,
        skip_retrying=skip_retrying,
        is_spent=is_spent,
        retry_at=retry_at,
        finished_at=now(),
    )
    return frame(FAIL, failure.model_dump_json().encode())
