"""An attempt of a run on a thread of the tests' process, with what a process gives one."""

import asyncio
import secrets
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import copy_context
from functools import partial
from types import FrameType
from typing import Protocol, cast

from runwell.core.errors import (
    ErrorCode,
    InternalError,
    InvalidPayloadError,
    RunStopped,
)
from runwell.core.metadata import Metadata, Operation, Target
from runwell.core.payloads import STORE_TYPE, Json, decode_packet
from runwell.core.protocol import DequeuedRun, TaskManifest
from runwell.core.spans import CapturedLine, Span, SpanEvent
from runwell.core.timing import Clock
from runwell.core.waits import Wait, WaitOutcome
from runwell.sdk.config import Config
from runwell.sdk.hooks import WaitHooks
from runwell.sdk.logger import is_logged
from runwell.sdk.runtime import LogLevel, RunContext, current_runtime
from runwell.sdk.task import AnyTask
from runwell.worker.async_runs import AsyncRuns
from runwell.worker.capture import clean_attributes
from runwell.worker.child_metadata import ChildMetadata
from runwell.worker.failures import describe_exception
from runwell.worker.hooks import Ended, HookedAttempt, Stopped, run_to_end
from runwell.worker.idleness import is_idle
from runwell.worker.inbox import Inbox
from runwell.worker.large_packets import StoredPayloadError, fetch_payload
from runwell.worker.messages import Frame, FrameReader, MetadataChange, Surroundings
from runwell.worker.metadata_collector import MetadataCollector
from runwell.worker.retrying import AttemptFailure, RetryPlan
from runwell.worker.wait_future import WaitFuture

# A run that does other things besides its waits is looked at again so often.
_LOOK_SECONDS = 0.002


class Tracer(Protocol):
    """What `sys.settrace` takes: it sees each line of an attempt."""

    def __call__(self, frame: FrameType, event: str, arg: object, /) -> "Tracer | None":
        """Something happened in a frame."""
        ...


class Attempt:
    """One attempt: `start` it; it calls `notify` whenever there is something to look at."""

    def __init__(
        self,
        run: DequeuedRun,
        task: AnyTask,
        manifest: TaskManifest,
        config: Config,
        surroundings: Surroundings,
        clock: Clock,
        notify: Callable[[], None],
    ) -> None:
        self.run = run
        self._task = task
        self._manifest = manifest
        self._config = config
        self._surroundings = surroundings
        self._clock = clock
        self._notify = notify
        self.started_at = clock.now()
        self.ended: Ended | None = None
        #: Whether all that it does is wait; and whether the server knows that.
        self.is_waiting = False
        self.is_blocked = False
        self.begun: list[Wait] = []
        self.forgotten: list[str] = []
        self.pending: set[str] = set()
        self.received: list[str] = []
        self.lines: list[CapturedLine] = []
        self.spans: list[Span] = []
        self.metadata = MetadataCollector()
        self.tracer: Tracer | None = None
        self.raised: RunStopped | None = None
        self._line_count = 0
        self._async_runs: AsyncRuns | None = None
        self._waiters: dict[str, WaitFuture | threading.Event] = {}
        self._outcomes: dict[str, WaitOutcome] = {}
        self._looks: asyncio.TimerHandle | None = None
        self._given = self._taken = 0
        self.lock = threading.RLock()

    def start(self) -> None:
        """Begin, on a thread of its own."""
        threading.Thread(target=self._main, name=self.run.run_id, daemon=True).start()

    @property
    def is_idle(self) -> bool:
        """Whether it does nothing until one of its waits is complete, or has ended."""
        with self.lock:
            return self.ended is not None or (self.is_waiting and self._given == self._taken)

    def give(self, outcome: WaitOutcome) -> None:
        """A wait is complete."""
        with self.lock:
            waiter = self._waiters.pop(outcome.wait_id, None)
            self.pending.discard(outcome.wait_id)
            self.received.append(outcome.wait_id)
            if waiter is None:
                return
            self.is_waiting = self.is_blocked = False
            if isinstance(waiter, threading.Event):
                self._outcomes[outcome.wait_id] = outcome
                waiter.set()
                return
            self._given += 1
        waiter.get_loop().call_soon_threadsafe(self._take, waiter, outcome)

    def stop(self, stop: RunStopped) -> None:
        """It was canceled: raise that at its await, or at its blocking wait."""
        with self.lock:
            if self.raised is not None or self.ended is not None:
                return
            self.raised = stop
            self.is_waiting = self.is_blocked = False
            events = [one for one in self._waiters.values() if isinstance(one, threading.Event)]
        for event in events:
            event.set()
        if not events and self._task.is_async and self._async_runs is not None:
            try:
                self._async_runs.stop(stop)
            except RunStopped:
                # It computes at this moment: its next wait hears of it.
                return

    # The runtime, as the SDK sees it.

    @property
    def ctx(self) -> RunContext:
        """The context of the run."""
        return RunContext.from_execution(
            self.run,
            self._manifest,
            organization=self._surroundings.organization,
            project=self._surroundings.project,
            environment=self._surroundings.environment,
            started_at=self.started_at,
        )

    def active_seconds(self) -> float:
        """How long it has run; what was skipped doesn't count."""
        return time.monotonic() - self._began

    def emit_line(self, level: LogLevel, message: str, attributes: Mapping[str, Json]) -> None:
        """One line of `logger`."""
        if not is_logged(level, self._config.log_level):
            return
        with self.lock:
            self._line_count += 1
            line = CapturedLine(
                seq=self._line_count,
                time=self._clock.now(),
                level=level,
                message=message,
                attributes=clean_attributes(attributes),
            )
            self.lines.append(line)

    def begin_span(self, name: str, attributes: Mapping[str, Json]) -> "_TestedSpan":
        """A span, stored with the attempt's lines when it ends."""
        return _TestedSpan(name, attributes, self._clock, self.spans.append)

    def change_metadata(self, target: Target, operation: Operation) -> None:
        """A change of `metadata`."""
        self._own_metadata.change(target, operation)

    def read_metadata(self) -> Metadata:
        """What the run knows of its metadata."""
        return self._own_metadata.read()

    def replace_metadata(self, metadata: Metadata) -> None:
        """What the server has."""
        self._own_metadata.replace(metadata)

    def flush_metadata(self) -> tuple[int, int]:
        """Have all changes stored at once."""
        flushed = self._own_metadata.flush()
        self._notify()
        return flushed

    def begin_wait(self, wait: Wait) -> "asyncio.Future[WaitOutcome]":
        """A coroutine waits."""
        loop = asyncio.get_running_loop()
        future = WaitFuture(loop=loop)
        future.add_done_callback(partial(self._on_done, wait.wait_id))
        with self.lock:
            self._waiters[wait.wait_id] = future
            self.begun.append(wait)
            self.pending.add(wait.wait_id)
        loop.call_soon(self._look, loop)
        return future

    def wait(self, wait: Wait) -> WaitOutcome:
        """A thread waits."""
        event = threading.Event()
        with self.lock:
            self._waiters[wait.wait_id] = event
            self.begun.append(wait)
            self.pending.add(wait.wait_id)
            self.is_waiting = self.raised is None and threading.current_thread() is self._thread
        self._notify()
        if self.raised is None:
            event.wait()
        if self.raised is not None:
            raise self.raised
        return self._outcomes.pop(wait.wait_id)

    wait_hooks: WaitHooks | None = None

    @property
    def locals(self) -> dict[object, object]:
        """What `locals` keeps for this attempt."""
        return self._locals

    # Its thread.

    def _main(self) -> None:
        self._began = time.monotonic()
        self._thread = threading.current_thread()
        self._locals: dict[object, object] = {}
        inbox = _LocalInbox(self._on_frame)
        self._own_metadata = ChildMetadata(self.run, inbox)
        if self.tracer is not None:
            sys.settrace(self.tracer)
        try:
            ended = self._execute()
        finally:
            sys.settrace(None)
        with self.lock:
            self.ended = Stopped() if self.raised is not None else ended
        self._notify()

    def _execute(self) -> Ended:
        try:
            payload = self._decode()
        except (InvalidPayloadError, StoredPayloadError) as error:
            found = InternalError(code=ErrorCode.TASK_INPUT_ERROR, message=str(error))
            return AttemptFailure(error=found, skip_retrying=False)
        # As in a rehearsal: its loop is nobody's current one, and closed at the end.
        runs = self._async_runs = AsyncRuns(is_rehearsal=True)
        may_retry = self._config.may_retry_in(self._surroundings.environment.type)
        attempt = HookedAttempt(
            self._task,
            self._config.hooks,
            self,
            RetryPlan.of(self.run, self._manifest.retry, may_retry=may_retry),
            self,
            runs,
            is_first=self.run.started_at is None,
        )
        if attempt.has_wait_hooks:
            self.wait_hooks = attempt
        token = current_runtime.set(self)
        try:
            context = copy_context()
            coroutine = attempt.execute(payload)
            if self._task.is_async:
                return cast("Ended", runs.run(coroutine, context))
            return context.run(run_to_end, coroutine)
        # All that user code can raise ends here.
        except BaseException as error:  # noqa: BLE001
            described, skip_retrying = describe_exception(error)
            return AttemptFailure(error=described, skip_retrying=skip_retrying)
        finally:
            current_runtime.reset(token)
            runs.end_leftovers()
            runs.close()

    def _decode(self) -> Json:
        if self.run.payload_type == STORE_TYPE and self.run.payload is not None:
            return fetch_payload(self.run.payload)
        return decode_packet(self.run.payload, self.run.payload_type)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._looks is not None:
            self._looks.cancel()
            self._looks = None
        with self.lock:
            if not self._waiters:
                return
            self.is_waiting = is_idle(loop, ())
            is_waiting = self.is_waiting
        if is_waiting or self.begun:
            self._notify()
        if not is_waiting:
            self._looks = loop.call_later(_LOOK_SECONDS, self._look, loop)

    def _take(self, future: WaitFuture, outcome: WaitOutcome) -> None:
        with self.lock:
            self._taken += 1
            self.is_waiting = False
        if not future.done():
            future.set_result(outcome)
        loop = future.get_loop()
        # After the steps of what was woken.
        if self._looks is None:
            self._looks = loop.call_later(_LOOK_SECONDS, self._look, loop)

    def _on_done(self, wait_id: str, future: "asyncio.Future[WaitOutcome]") -> None:
        if not future.cancelled():
            return
        with self.lock:
            if self._waiters.pop(wait_id, None) is not None:
                self.pending.discard(wait_id)
                self.forgotten.append(wait_id)
                self.begun = [wait for wait in self.begun if wait.wait_id != wait_id]
                self.is_waiting = False

    def _on_frame(self, found: Frame) -> None:
        with self.lock:
            self.metadata.add(MetadataChange.model_validate_json(found.body))


class _TestedSpan:
    """A span that goes on."""

    def __init__(
        self,
        name: str,
        attributes: Mapping[str, Json],
        clock: Clock,
        store: Callable[[Span], None],
    ) -> None:
        self._name = name
        self._attributes = dict(attributes)
        self._events: list[SpanEvent] = []
        self._clock = clock
        self._store = store
        self._started_at = clock.now()

    def set(self, attributes: Mapping[str, Json]) -> None:
        """Attributes, in place of those with the same names."""
        self._attributes.update(attributes)

    def add_event(self, name: str, attributes: Mapping[str, Json]) -> None:
        """Something happened now."""
        now = self._clock.now()
        self._events.append(SpanEvent(name=name, time=now, attributes=dict(attributes)))

    def end(self, error: BaseException | None) -> None:
        """The block is over."""
        self._store(
            Span(
                span_id=secrets.token_hex(8),
                name=self._name,
                started_at=self._started_at,
                ended_at=self._clock.now(),
                is_error=error is not None,
                attributes=self._attributes,
                events=self._events,
            )
        )


class _LocalInbox(Inbox):
    """Stands for the way to a supervisor: what is sent is taken right here."""

    def __init__(self, take: Callable[[Frame], None]) -> None:
        self._take = take

    def send(self, message: bytes) -> None:
        """Take the frames of a message."""
        for found in FrameReader().feed(message):
            self._take(found)
