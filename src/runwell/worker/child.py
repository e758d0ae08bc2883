"""What happens in the process of a run: take it, load, parse, run, encode, report.

The supervisor's STOP frame comes with a SIGTERM, so that code which never looks at a socket hears
of it: the signal is raised inside the task as `RunCanceled` or `RunTimedOut`. A SIGTERM without a
frame is from somebody else, and ends the process as it ends any.
"""

import atexit
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Mapping
from contextvars import copy_context
from datetime import UTC, datetime
from types import FrameType
from typing import cast

from runwell.core.errors import (
    BuiltInError,
    ErrorCode,
    InternalError,
    InvalidPayloadError,
    RunCanceled,
    RunStopped,
    RunTimedOut,
    TaskRunError,
)
from runwell.core.payloads import STORE_TYPE, Json, decode_packet
from runwell.core.protocol import DequeuedRun
from runwell.sdk.logger import LogThreshold, is_logged
from runwell.sdk.project import ImportedTasks
from runwell.sdk.runtime import LogLevel, RunContext, activate
from runwell.sdk.task import AnyTask
from runwell.worker.async_runs import AsyncRuns
from runwell.worker.capture import Capture, OutputPipe, clean_attributes
from runwell.worker.failures import describe_bad_output, describe_exception
from runwell.worker.large_packets import StoredPayloadError, fetch_payload
from runwell.worker.limits import memory_limit, stop_hard_above
from runwell.worker.messages import (
    FAIL,
    RUN,
    STOP,
    STOPPED,
    TIMED_OUT,
    Failure,
    Frame,
    FrameReader,
    RunOrder,
    Surroundings,
    complete_frame,
    frame,
    read_run,
)
from runwell.worker.records import now


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
        self._frames = FrameReader()
        self._waiting: list[Frame] = []
        self._folder = os.getcwd()  # noqa: PTH109 (a text is all that chdir needs)
        self._pid = os.getpid()
        self._stop = _StopSignal(connection, self._frames, self._waiting)
        tasks = imported.catalog.tasks.values()
        # Made ahead, while the process waits for its run.
        self._async_runs = (
            AsyncRuns(is_rehearsal=is_rehearsal) if any(task.is_async for task in tasks) else None
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
        self._stop.was_raised = False
        answer = self._execute(order)
        if self._stop.was_raised:
            # Whatever the task made of it: one that was asked to stop does not complete.
            answer = frame(STOPPED)
        if os.getpid() != self._pid:
            # The task forked, and its copy came back here: it is nobody's child.
            return None
        if not order.keep and self._async_runs is not None:
            self._async_runs.close()
        self._capture.flush()
        self._connection.sendall(answer)
        return order

    def _next_order(self) -> RunOrder | None:
        while True:
            while self._waiting:
                kind, body = self._waiting.pop(0)
                if kind == RUN:
                    return read_run(body)
                # Too late: the run it was for has ended. Its signal comes, or has come, as well.
                self._stop.expect_stale_signal()
            data = self._connection.recv(262_144)
            if not data:
                return None
            self._waiting += self._frames.feed(data)

    def _execute(self, order: RunOrder) -> bytes:
        try:
            run = DequeuedRun.model_validate_json(order.run_json)
            task = self._find_task(run)
            payload = task.parse_payload(_decode_payload(run))
            runtime = self._make_runtime(run, order)
            if not self._is_rehearsal:
                stop_hard_above(memory_limit(run.machine))
            value = self._call(task, payload, runtime)
            return complete_frame(now(), _encode(task, value))
        except _KnownError as known:
            skip_retrying = known.skip_retrying or not self._may_retry
            return _failure(known.error, skip_retrying=skip_retrying)
        # All that user code can raise ends here, KeyboardInterrupt and SystemExit included.
        except BaseException as error:  # noqa: BLE001
            described, skip_retrying = describe_exception(error)
            is_spent = isinstance(error, MemoryError)
            skip_retrying = skip_retrying or not self._may_retry
            return _failure(described, skip_retrying=skip_retrying, is_spent=is_spent)

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

    def _make_runtime(self, run: DequeuedRun, order: RunOrder) -> "_ChildRuntime":
        def make_context() -> RunContext:
            return RunContext.from_execution(
                run,
                self._imported.manifests[run.task_id],
                organization=self._surroundings.organization,
                project=self._surroundings.project,
                environment=self._surroundings.environment,
                started_at=datetime.fromtimestamp(order.started_at, UTC),
            )

        return _ChildRuntime(make_context, self._pipe, self._log_level)

    def _call(self, task: AnyTask, payload: object, runtime: "_ChildRuntime") -> object:
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


class _ChildRuntime:
    """The seam to the SDK: where `logger` writes while a run is active."""

    def __init__(
        self, make_context: Callable[[], RunContext], pipe: OutputPipe, log_level: LogThreshold
    ) -> None:
        self._make_context = make_context
        self._ctx: RunContext | None = None
        self._pipe = pipe
        self._log_level: LogThreshold = log_level

    @property
    def ctx(self) -> RunContext:
        """Made when it is asked for: most short runs don't."""
        if self._ctx is None:
            self._ctx = self._make_context()
        return self._ctx

    def emit_line(self, level: LogLevel, message: str, attributes: Mapping[str, Json]) -> None:
        """One line of `logger`."""
        if is_logged(level, self._log_level):
            self._pipe.write_line(level, message, clean_attributes(attributes))


class _StopSignal:
    """Turns the supervisor's wish that a run stops into an exception inside of the task."""

    def __init__(
        self, connection: socket.socket, frames: FrameReader, waiting: list[Frame]
    ) -> None:
        self._connection = connection
        self._frames = frames
        self._waiting = waiting
        self._stale_signals = 0
        self._is_running = False
        self._async_runs: AsyncRuns | None = None
        self.was_raised = False

    def listen(self) -> None:
        """Take SIGTERM from here on."""
        signal.signal(signal.SIGTERM, self._on_signal)

    def expect_stale_signal(self) -> None:
        """A STOP frame came after the end of its run: its SIGTERM means nothing."""
        self._stale_signals += 1

    def begin(self, async_runs: AsyncRuns | None) -> None:
        """The task's code runs from here on."""
        self._async_runs = async_runs
        self._is_running = True

    def end(self) -> None:
        """The task's code has ended."""
        self._is_running = False

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        stop = self._read_stop()
        if stop is None and self._stale_signals:
            self._stale_signals -= 1
        elif stop is None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif self._is_running:
            self.was_raised = True
            if self._async_runs is not None:
                self._async_runs.stop(stop)
            else:
                raise stop

    def _read_stop(self) -> RunStopped | None:
        try:
            data = self._connection.recv(4096, socket.MSG_DONTWAIT)
        except OSError:
            return None
        stop: RunStopped | None = None
        for found in self._frames.feed(data):
            if found.kind != STOP:
                self._waiting.append(found)
            elif found.body.decode() == TIMED_OUT:
                stop = RunTimedOut("the run exceeded its max duration")
            else:
                stop = RunCanceled("the run was canceled")
        return stop


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


def _failure(error: TaskRunError, *, skip_retrying: bool, is_spent: bool = False) -> bytes:
    if isinstance(error, BuiltInError) and not error.name:
        error = error.model_copy(update={"name": "Error"})
    failure = Failure(
        error=error, skip_retrying=skip_retrying, is_spent=is_spent, finished_at=now()
    )
    return frame(FAIL, failure.model_dump_json().encode())
