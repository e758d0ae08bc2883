"""A task: a function with an id and options, as triggers and as the worker see it.

Not about the decorators that make tasks: those are in `definitions.py`.
"""

import inspect
from collections.abc import Iterable
from functools import partial
from typing import Any, Generic, Never, TypeVar, Unpack, cast, overload

from runwell.client.batching import (
    BatchEntry,
    BatchHandle,
    BatchItem,
    BatchOptions,
    batch_flow,
    read_entries,
    split_item,
)
from runwell.client.management import trigger_flow
from runwell.client.options import Queue
from runwell.client.runs import RunHandle
from runwell.client.transport import Flow
from runwell.client.triggering import TriggerOptions
from runwell.core.machines import DEFAULT_MACHINE
from runwell.core.payloads import MAX_OUTPUT_BYTES, Json, encode_value
from runwell.core.protocol import (
    MachineManifest,
    QueueManifest,
    TaskManifest,
    task_queue_name,
)
from runwell.core.timing import RetryOptions
from runwell.sdk.and_wait import (
    BatchResult,
    batch_and_block,
    batch_and_wait,
    trigger_and_block,
    trigger_and_wait,
)
from runwell.sdk.catalog import TaskFunction
from runwell.sdk.client import default_client
from runwell.sdk.hooks import HookDecorators
from runwell.sdk.runtime import RunContext
from runwell.sdk.signature import TaskSignature
from runwell.sdk.subtasks import Failed, Ok, PendingResult
from runwell.sdk.task_options import TaskDefaults, TaskOptions

PayloadT_contra = TypeVar("PayloadT_contra", contravariant=True)
OutputT = TypeVar("OutputT")
OutputT_co = TypeVar("OutputT_co", covariant=True)


class Task(HookDecorators, Generic[PayloadT_contra, OutputT_co]):
    """A task: a function with an id and options. Made by `@task`.

    `function` is the function itself, to be called in tests; `is_async` says whether it is an
    `async def`. The decorators `init`, `cleanup`, `middleware`, `on_start`, `on_success`,
    `on_failure`, `on_complete`, `on_cancel`, `on_wait`, `on_resume` and `handle_error` give it
    hooks.

    Example:
        >>> import asyncio
        >>> from runwell import Task, task
        >>> @task(id="double")
        ... async def double(number: int) -> int:
        ...     return 2 * number
        >>> isinstance(double, Task), asyncio.run(double.function(21))
        (True, 42)
    """

    def __init__(self, function: TaskFunction, options: TaskOptions) -> None:
        super().__init__(f"task '{options.id}'")
        self.function = function
        self.options = options
        self.is_async = inspect.iscoroutinefunction(function)
        self._signature = TaskSignature(options.id, function, options.payload_type, options.parser)
        # The function's own, for pickle, `inspect` and tools that show documentation.
        self.__module__ = function.__module__
        self.__name__: str = function.__name__
        self.__qualname__: str = function.__qualname__
        self.__doc__ = function.__doc__
        self.__wrapped__ = function

    @property
    def id(self) -> str:
        """The id by which the task is triggered."""
        return self.options.id

    @property
    def sync(self) -> "BlockingTask[PayloadT_contra, OutputT_co]":
        """The same task for callers that block: `hello.sync.trigger(...)`."""
        return BlockingTask(self)

    @overload
    async def trigger(
        self: "Task[None, OutputT]",
        payload: None = None,
        /,
        **options: Unpack[TriggerOptions],
    ) -> RunHandle[OutputT]: ...
    @overload
    async def trigger(
        self, payload: PayloadT_contra, /, **options: Unpack[TriggerOptions]
    ) -> RunHandle[OutputT_co]: ...
    async def trigger(self, payload: object = None, /, **options: Unpack[TriggerOptions]) -> object:
        """Trigger a run; when this returns, the run is stored and will start.

        Raises TaskPayloadParsedError when the payload does not fit the task, and ApiError when the
        server can't take it.

        Example:
            >>> from runwell import task
            >>> @task(id="add")
            ... async def add(numbers: list[int]) -> int:
            ...     return sum(numbers)
            >>> async def main() -> str:
            ...     handle = await add.trigger([1, 2, 3], tags=["sums"], delay="10s")
            ...     return handle.id
        """
        return await default_client.run(self.trigger_flow(payload, options))

    @overload
    def trigger_and_wait(
        self: "Task[None, OutputT]",
        payload: None = None,
        /,
        **options: Unpack[TriggerOptions],
    ) -> PendingResult[OutputT]: ...
    @overload
    def trigger_and_wait(
        self, payload: PayloadT_contra, /, **options: Unpack[TriggerOptions]
    ) -> PendingResult[OutputT_co]: ...
    def trigger_and_wait(
        self, payload: object = None, /, **options: Unpack[TriggerOptions]
    ) -> PendingResult[Any]:
        """Trigger a run and let the current run wait for its end.

        Await it for `Ok` or `Failed`, or await its `.unwrap()` for the output. The run is of the
        version that the current run is of. Several can be waited for at once with `asyncio.gather`.
        Raises RunwellError outside of a run, and WaitRefusedError when the wait would never end.

        Example:
            >>> from runwell import task
            >>> @task(id="add")
            ... async def add(numbers: list[int]) -> int:
            ...     return sum(numbers)
            >>> @task(id="twice")
            ... async def twice(numbers: list[int]) -> int:
            ...     return 2 * await add.trigger_and_wait(numbers).unwrap()
        """
        return trigger_and_wait(
            self.id, partial(self.encode_payload, payload), options, self.parse_output
        )

    def trigger_flow(self, payload: object, options: TriggerOptions) -> Flow[RunHandle[OutputT_co]]:
        """The flow of a trigger, which both kinds of caller drive."""
        text = self.encode_payload(payload)
        return trigger_flow(default_client, self.id, text, options, self.parse_output)

    async def batch_trigger(
        self,
        items: Iterable[PayloadT_contra | BatchItem[PayloadT_contra]],
        /,
        **options: Unpack[BatchOptions],
    ) -> BatchHandle[OutputT_co]:
        """Trigger up to 1,000 runs in one step: all of them are stored, or none.

        Each item is a payload, or `item(payload, ...)` with options of its own. Raises
        TaskPayloadParsedError that names the item when a payload does not fit the task.

        Example:
            >>> from runwell import item, task
            >>> @task(id="greet")
            ... async def greet(name: str) -> str:
            ...     return f"Hello {name}"
            >>> async def main() -> list[str]:
            ...     handle = await greet.batch_trigger(["Ada", item("Grace", delay="1h")])
            ...     return [run.id for run in handle.runs]
        """
        return await default_client.run(self.batch_flow(items, options))

    async def batch_trigger_and_wait(
        self,
        items: Iterable[PayloadT_contra | BatchItem[PayloadT_contra]],
        /,
        **options: Unpack[BatchOptions],
    ) -> BatchResult[OutputT_co]:
        """Trigger a batch and let the current run wait for all of it.

        The results have the order of the items; those that did not complete are `Failed`. Raises
        RunwellError outside of a run, and what `batch_trigger` and `trigger_and_wait` raise.

        Example:
            >>> from runwell import task
            >>> @task(id="add")
            ... async def add(numbers: list[int]) -> int:
            ...     return sum(numbers)
            >>> @task(id="add-all")
            ... async def add_all(lists: list[list[int]]) -> list[int]:
            ...     result = await add.batch_trigger_and_wait(lists)
            ...     return [run.unwrap() for run in result.runs]
        """
        entries = read_entries(items, self.batch_entry)
        return cast("BatchResult[OutputT_co]", await batch_and_wait(entries, options))

    def batch_flow(
        self, items: Iterable[object], options: BatchOptions
    ) -> Flow[BatchHandle[OutputT_co]]:
        """The flow of a batch trigger, which both kinds of caller drive."""
        entries = read_entries(items, self.batch_entry)
        return cast("Flow[BatchHandle[OutputT_co]]", batch_flow(default_client, entries, options))

    def batch_entry(self, given: object) -> BatchEntry:
        """A payload or `item(...)` as an item of a batch; raises TaskPayloadParsedError."""
        payload, options = split_item(given)
        return BatchEntry(
            task_id=self.id,
            payload=self.encode_payload(payload),
            options=options,
            parse_output=self.parse_output,
        )

    def encode_payload(self, payload: object) -> str | None:
        """A payload that fits as JSON text, None for none; raises TaskPayloadParsedError."""
        return self._signature.encode_payload(payload)

    def parse_payload(self, value: Json) -> object:
        """A payload as the function takes it; raises TaskPayloadParsedError."""
        return self._signature.parse_payload(value)

    @property
    def payload_name(self) -> str | None:
        """The name of the parameter that takes the payload; None when there is none."""
        return parameter.name if (parameter := self._signature.payload) else None

    def payload_schema(self) -> dict[str, Json] | None:
        """The JSON schema of payloads; None when there is none."""
        return schema.json_schema() if (schema := self._signature.payload_schema) else None

    @property
    def takes_context(self) -> bool:
        """Whether the function declares `ctx`."""
        return self._signature.takes_context

    def call(self, payload: object, ctx: RunContext | None, init: object = None) -> object:
        """Call the function, with `ctx` and `init` if it declares them; may give a coroutine."""
        positional, named = self._signature.arguments(payload, ctx, init)
        return self.function(*positional, **named)

    def encode_output(self, value: object) -> str | None:
        """What the function returned, as JSON text; raises InvalidPayloadError."""
        if value is None:
            return None
        return encode_value(value, what="the output", limit=MAX_OUTPUT_BYTES)

    def parse_output(self, value: Json) -> OutputT_co:
        """The output of a run as the type that the function returns; raises InvalidPayloadError."""
        return cast("OutputT_co", self._signature.parse_output(value))

    def manifest(
        self, file_path: str, export_name: str, defaults: TaskDefaults | None = None
    ) -> TaskManifest:
        """What the server is told about this task; reads the annotations, which may raise."""
        options, defaults = self.options, defaults or TaskDefaults()
        # Read now, so that an annotation that can't be used is found before the first run.
        _ = self._signature.output_schema
        return TaskManifest(
            id=self.id,
            description=options.description,
            file_path=file_path,
            export_name=export_name,
            queue=_queue_manifest(self.id, options.queue),
            retry=options.retry or defaults.retry or RetryOptions(),
            machine=MachineManifest(preset=options.machine or defaults.machine or DEFAULT_MACHINE),
            max_duration=options.max_duration or defaults.max_duration,
            ttl=defaults.ttl if options.ttl is None else options.ttl,
            payload_schema=self.payload_schema(),
            keep_process=options.keep_process,
            trigger_source="schedule" if options.is_scheduled else None,
            schedule=options.schedule,
        )

    def __reduce__(self) -> str:
        # By reference, as functions are pickled.
        return self.__qualname__

    def __repr__(self) -> str:
        return f"<Task {self.id!r}>"


class BlockingTask(Generic[PayloadT_contra, OutputT_co]):
    """A task whose triggers block the caller."""

    def __init__(self, task: Task[PayloadT_contra, OutputT_co]) -> None:
        self._task = task

    @overload
    def trigger(
        self: "BlockingTask[None, OutputT]",
        payload: None = None,
        /,
        **options: Unpack[TriggerOptions],
    ) -> RunHandle[OutputT]: ...
    @overload
    def trigger(
        self, payload: PayloadT_contra, /, **options: Unpack[TriggerOptions]
    ) -> RunHandle[OutputT_co]: ...
    def trigger(self, payload: object = None, /, **options: Unpack[TriggerOptions]) -> object:
        """Trigger a run; when this returns, the run is stored and will start."""
        return default_client.run_blocking(self._task.trigger_flow(payload, options))

    def batch_trigger(
        self,
        items: Iterable[PayloadT_contra | BatchItem[PayloadT_contra]],
        /,
        **options: Unpack[BatchOptions],
    ) -> BatchHandle[OutputT_co]:
        """Trigger up to 1,000 runs in one step, each by a payload or `item(payload, ...)`."""
        return default_client.run_blocking(self._task.batch_flow(items, options))

    @overload
    def trigger_and_wait(
        self: "BlockingTask[None, OutputT]",
        payload: None = None,
        /,
        **options: Unpack[TriggerOptions],
    ) -> "Ok[OutputT] | Failed": ...
    @overload
    def trigger_and_wait(
        self, payload: PayloadT_contra, /, **options: Unpack[TriggerOptions]
    ) -> "Ok[OutputT_co] | Failed": ...
    def trigger_and_wait(
        self, payload: object = None, /, **options: Unpack[TriggerOptions]
    ) -> "Ok[Any] | Failed":
        """Trigger a run and let the current run wait for its end, blocking the caller.

        `.unwrap()` of what it returns is the output, or raises SubtaskUnwrapError.
        """
        task = self._task
        text = task.encode_payload(payload)
        return trigger_and_block(task.id, text, options, task.parse_output)

    def batch_trigger_and_wait(
        self,
        items: Iterable[PayloadT_contra | BatchItem[PayloadT_contra]],
        /,
        **options: Unpack[BatchOptions],
    ) -> BatchResult[OutputT_co]:
        """Trigger a batch and let the current run wait for all of it, blocking the caller."""
        entries = read_entries(items, self._task.batch_entry)
        return cast("BatchResult[OutputT_co]", batch_and_block(entries, options))


#: Any task, whatever it takes and returns.
AnyTask = Task[Never, object]


def _queue_manifest(task_id: str, queue: Queue | None) -> QueueManifest | None:
    if queue is None:
        return None
    return queue.to_manifest(task_queue_name(task_id))
