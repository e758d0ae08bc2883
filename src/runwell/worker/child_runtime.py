"""The seam between the SDK and the process of a run: what `logger`, `wait` and `metadata` reach."""

import asyncio
from collections.abc import Callable, Mapping

from runwell.core.metadata import Metadata, Operation, Target
from runwell.core.payloads import Json
from runwell.core.waits import Wait, WaitOutcome
from runwell.sdk.hooks import WaitHooks
from runwell.sdk.logger import LogThreshold, is_logged
from runwell.sdk.runtime import LogLevel, OpenSpan, RunContext
from runwell.worker.capture import OutputPipe, clean_attributes
from runwell.worker.child_metadata import ChildMetadata
from runwell.worker.child_waits import ChildWaits
from runwell.worker.tracing import RunTracing


class ChildRuntime:
    """The seam to the SDK: where `logger` writes while a run is active."""

    def __init__(
        self,
        make_context: Callable[[], RunContext],
        pipe: OutputPipe,
        log_level: LogThreshold,
        waits: ChildWaits,
        metadata: ChildMetadata,
        tracing: RunTracing,
    ) -> None:
        self._tracing = tracing
        self._metadata = metadata
        self._make_context = make_context
        self._ctx: RunContext | None = None
        self._pipe = pipe
        self._log_level: LogThreshold = log_level
        self._waits = waits
        self.wait_hooks: WaitHooks | None = None
        self.locals: dict[object, object] = {}

    @property
    def ctx(self) -> RunContext:
        """Made when it is asked for: most short runs don't."""
        if self._ctx is None:
            self._ctx = self._make_context()
        return self._ctx

    def active_seconds(self) -> float:
        """How long it has run, without its waits."""
        return self._waits.active_seconds()

    def change_metadata(self, target: Target, operation: Operation) -> None:
        """A change of `metadata`."""
        self._metadata.change(target, operation)

    def read_metadata(self) -> Metadata:
        """What the run knows of its metadata."""
        return self._metadata.read()

    def replace_metadata(self, metadata: Metadata) -> None:
        """What the server has."""
        self._metadata.replace(metadata)

    def flush_metadata(self) -> tuple[int, int]:
        """Have all changes stored at once."""
        return self._metadata.flush()

    def emit_line(self, level: LogLevel, message: str, attributes: Mapping[str, Json]) -> None:
        """One line of `logger`."""
        if is_logged(level, self._log_level):
            self._pipe.write_line(level, message, clean_attributes(attributes))

    def begin_span(self, name: str, attributes: Mapping[str, Json]) -> OpenSpan:
        """A block of `logger.trace`."""
        return self._tracing.begin_block(name, attributes)

    def begin_wait(self, wait: Wait) -> asyncio.Future[WaitOutcome]:
        """A coroutine of the run waits."""
        span = self._tracing.begin_wait(wait)
        future = self._waits.begin(wait)
        future.add_done_callback(lambda ended: span.end(_error_of(ended)))
        return future

    def wait(self, wait: Wait) -> WaitOutcome:
        """A blocking caller waits."""
        span = self._tracing.begin_wait(wait)
        try:
            outcome = self._waits.wait(wait)
        except BaseException as error:
            span.end(error)
            raise
        span.end(None)
        return outcome


def _error_of(ended: asyncio.Future[WaitOutcome]) -> BaseException | None:
    return asyncio.CancelledError() if ended.cancelled() else ended.exception()
