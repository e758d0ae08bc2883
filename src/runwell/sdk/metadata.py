"""`metadata`: what a run shows of itself while it runs (docs `runs/metadata.md`).

A change is seen by this run at once, and handed to the worker, which stores it within a second or
with the end of the attempt, whatever becomes of the process. Outside of a run nothing happens.
"""

import copy
import time
from collections.abc import AsyncIterable, Iterable
from typing import Final, TypeVar

from runwell.client.metadata_changes import MetadataWriter
from runwell.client.transport import Flow, Pause
from runwell.core.metadata import Metadata, Operation, Target
from runwell.core.payloads import Json
from runwell.sdk.client import default_client, runs
from runwell.sdk.runtime import Runtime, find_runtime
from runwell.sdk.streams import BlockingMetadataStream, MetadataStream

T = TypeVar("T")

_FLUSH_SECONDS = 60.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.01, 0.5


class RelatedMetadata(MetadataWriter):
    """Changes the metadata of the current run, its parent, or its root."""

    def __init__(self, target: Target) -> None:
        self._target: Target = target

    @property
    def _has_use(self) -> bool:
        return find_runtime() is not None

    def _add(self, operation: Operation) -> None:
        runtime = find_runtime()
        if runtime is not None:
            runtime.change_metadata(self._target, operation)


class StreamingMetadata(RelatedMetadata):
    """The same, and streams of that run."""

    def stream(self, key: str, source: AsyncIterable[T]) -> MetadataStream[T]:
        """Send values to whoever reads the stream `key`, while they are passed on."""
        return MetadataStream(self._target, key, source)


class BlockingStreamingMetadata(RelatedMetadata):
    """The same, and streams of that run, blocking the caller."""

    def stream(self, key: str, source: Iterable[T]) -> BlockingMetadataStream[T]:
        """Send values to whoever reads the stream `key`, while they are passed on."""
        return BlockingMetadataStream(self._target, key, source)


class _CurrentMetadata(RelatedMetadata):
    """What both ways of calling have."""

    def __init__(self) -> None:
        super().__init__("run")

    def current(self) -> dict[str, Json] | None:
        """A copy of the metadata as this run has it; None outside of a run.

        What others have changed since the attempt began is not in it: `refresh` brings that.
        """
        runtime = find_runtime()
        return None if runtime is None else copy.deepcopy(runtime.read_metadata())

    def get(self, key: str) -> Json:
        """A copy of one value, None when it isn't there and outside of a run."""
        runtime = find_runtime()
        return None if runtime is None else copy.deepcopy(runtime.read_metadata().get(key))


class RunMetadata(_CurrentMetadata, StreamingMetadata):
    """The metadata of the current run, up to 256 KB of JSON.

    Example:
        >>> from runwell import metadata, task
        >>> @task(id="import-rows")
        ... async def import_rows(rows: list[str]) -> None:
        ...     metadata.set("total", len(rows)).set("done", 0)
        ...     for row in rows:
        ...         metadata.increment("done").append("log", f"imported {row}")
        ...     metadata.parent.increment("imports")
    """

    @property
    def parent(self) -> StreamingMetadata:
        """The metadata of the run that triggered this one; its own without one."""
        return StreamingMetadata("parent")

    @property
    def root(self) -> StreamingMetadata:
        """The metadata of the first run of the line, which no other one triggered."""
        return StreamingMetadata("root")

    async def flush(self) -> None:
        """Wait until all changes until now are stored; ApiError or TimeoutError if they aren't."""
        runtime = find_runtime()
        if runtime is not None:
            await default_client.run(_flush_flow(runtime))

    async def refresh(self) -> None:
        """Store all changes until now, and fetch what the metadata is then."""
        runtime = find_runtime()
        if runtime is not None:
            runtime.replace_metadata(await default_client.run(_flush_flow(runtime)))


class BlockingRunMetadata(_CurrentMetadata, BlockingStreamingMetadata):
    """The metadata of the current run, up to 256 KB of JSON; what waits blocks the caller.

    Example:
        >>> from runwell import task
        >>> from runwell.sync import metadata
        >>> @task(id="import-rows")
        ... def import_rows(rows: list[str]) -> None:
        ...     metadata.set("total", len(rows))
        ...     metadata.flush()
    """

    @property
    def parent(self) -> BlockingStreamingMetadata:
        """The metadata of the run that triggered this one; its own without one."""
        return BlockingStreamingMetadata("parent")

    @property
    def root(self) -> BlockingStreamingMetadata:
        """The metadata of the first run of the line, which no other one triggered."""
        return BlockingStreamingMetadata("root")

    def flush(self) -> None:
        """Wait until all changes until now are stored; ApiError or TimeoutError if they aren't."""
        runtime = find_runtime()
        if runtime is not None:
            default_client.run_blocking(_flush_flow(runtime))

    def refresh(self) -> None:
        """Store all changes until now, and fetch what the metadata is then."""
        runtime = find_runtime()
        if runtime is not None:
            runtime.replace_metadata(default_client.run_blocking(_flush_flow(runtime)))


metadata: Final = RunMetadata()
blocking_metadata: Final = BlockingRunMetadata()


def _flush_flow(runtime: Runtime) -> Flow[Metadata]:
    lease_id, number = runtime.flush_metadata()
    run_id = runtime.ctx.run.id
    deadline = time.monotonic() + _FLUSH_SECONDS
    pause = _FIRST_PAUSE_SECONDS
    while True:
        answer = yield from runs.read_metadata_flow(run_id)
        stored_lease, _, stored = (answer.flushed or "0.0").partition(".")
        if not number or (int(stored_lease) == lease_id and int(stored) >= number):
            return answer.metadata
        if time.monotonic() > deadline:
            raise TimeoutError(f"the metadata of {run_id} was not stored in {_FLUSH_SECONDS:.0f} s")
        yield Pause(pause)
        pause = min(_LONGEST_PAUSE_SECONDS, pause * 1.6)
