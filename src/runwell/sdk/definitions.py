"""`@task` and `queue()`: how user code defines what a project consists of."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar, cast, get_origin, overload

from pydantic import TypeAdapter, ValidationError

from runwell.client.options import (
    MachineOption,
    Queue,
    RateLimit,
    Retry,
    read_machine,
    read_max_duration,
    read_whole_seconds,
)
from runwell.core.payloads import Json
from runwell.core.protocol import TaskId
from runwell.core.timing import Duration, RetryOptions
from runwell.sdk.catalog import TaskFunction, catalog
from runwell.sdk.runtime import RunContext
from runwell.sdk.signature import Parser
from runwell.sdk.task import Task
from runwell.sdk.task_options import TaskOptions

_PayloadT = TypeVar("_PayloadT")
_PayloadT_contra = TypeVar("_PayloadT_contra", contravariant=True)
_ResultT_co = TypeVar("_ResultT_co", covariant=True)
_OutputT = TypeVar("_OutputT")
_InitT = TypeVar("_InitT")
_InitT_contra = TypeVar("_InitT_contra", contravariant=True)

_TASK_ID = TypeAdapter[str](TaskId)


# The shapes of a task's function. `ctx` and `init` are given by name, the payload by place.


class _Bare(Protocol[_ResultT_co]):
    def __call__(self) -> _ResultT_co: ...


class _BareC(Protocol[_ResultT_co]):
    def __call__(self, *, ctx: RunContext) -> _ResultT_co: ...


class _BareI(Protocol[_InitT_contra, _ResultT_co]):
    def __call__(self, *, init: _InitT_contra) -> _ResultT_co: ...


class _BareCI(Protocol[_InitT_contra, _ResultT_co]):
    def __call__(self, *, ctx: RunContext, init: _InitT_contra) -> _ResultT_co: ...


class _Payload(Protocol[_PayloadT_contra, _ResultT_co]):
    def __call__(self, payload: _PayloadT_contra, /) -> _ResultT_co: ...


class _PayloadC(Protocol[_PayloadT_contra, _ResultT_co]):
    def __call__(self, payload: _PayloadT_contra, /, *, ctx: RunContext) -> _ResultT_co: ...


class _PayloadI(Protocol[_PayloadT_contra, _InitT_contra, _ResultT_co]):
    def __call__(self, payload: _PayloadT_contra, /, *, init: _InitT_contra) -> _ResultT_co: ...


class _PayloadCI(Protocol[_PayloadT_contra, _InitT_contra, _ResultT_co]):
    def __call__(
        self, payload: _PayloadT_contra, /, *, ctx: RunContext, init: _InitT_contra
    ) -> _ResultT_co: ...


class _Default(Protocol[_PayloadT_contra, _ResultT_co]):
    def __call__(self, payload: _PayloadT_contra = ..., /) -> _ResultT_co: ...


class _DefaultC(Protocol[_PayloadT_contra, _ResultT_co]):
    def __call__(self, payload: _PayloadT_contra = ..., /, *, ctx: RunContext) -> _ResultT_co: ...


class _DefaultI(Protocol[_PayloadT_contra, _InitT_contra, _ResultT_co]):
    def __call__(
        self, payload: _PayloadT_contra = ..., /, *, init: _InitT_contra
    ) -> _ResultT_co: ...


class _DefaultCI(Protocol[_PayloadT_contra, _InitT_contra, _ResultT_co]):
    def __call__(
        self, payload: _PayloadT_contra = ..., /, *, ctx: RunContext, init: _InitT_contra
    ) -> _ResultT_co: ...


class TaskDecorator:
    """What `task(...)` gives: it takes the function and returns the task."""

    def __init__(self, options: TaskOptions) -> None:
        self._options = options

    @overload
    def __call__(
        self, function: _Default[_PayloadT, Awaitable[_OutputT]], /
    ) -> Task[_PayloadT | None, _OutputT]: ...
    @overload
    def __call__(
        self, function: _DefaultC[_PayloadT, Awaitable[_OutputT]], /
    ) -> Task[_PayloadT | None, _OutputT]: ...
    @overload
    def __call__(
        self, function: _DefaultI[_PayloadT, _InitT, Awaitable[_OutputT]], /
    ) -> Task[_PayloadT | None, _OutputT]: ...
    @overload
    def __call__(
        self, function: _DefaultCI[_PayloadT, _InitT, Awaitable[_OutputT]], /
    ) -> Task[_PayloadT | None, _OutputT]: ...
    @overload
    def __call__(
        self, function: _Default[_PayloadT, _OutputT], /
    ) -> Task[_PayloadT | None, _OutputT]: ...
    @overload
    def __call__(
        self, function: _DefaultC[_PayloadT, _OutputT], /
    ) -> Task[_PayloadT | None, _OutputT]: ...
    @overload
    def __call__(
        self, function: _DefaultI[_PayloadT, _InitT, _OutputT], /
    ) -> Task[_PayloadT | None, _OutputT]: ...
    @overload
    def __call__(
        self, function: _DefaultCI[_PayloadT, _InitT, _OutputT], /
    ) -> Task[_PayloadT | None, _OutputT]: ...
    @overload
    def __call__(self, function: _Bare[Awaitable[_OutputT]], /) -> Task[None, _OutputT]: ...
    @overload
    def __call__(self, function: _BareC[Awaitable[_OutputT]], /) -> Task[None, _OutputT]: ...
    @overload
    def __call__(
        self, function: _BareI[_InitT, Awaitable[_OutputT]], /
    ) -> Task[None, _OutputT]: ...
    @overload
    def __call__(
        self, function: _BareCI[_InitT, Awaitable[_OutputT]], /
    ) -> Task[None, _OutputT]: ...
    @overload
    def __call__(
        self, function: _Payload[_PayloadT, Awaitable[_OutputT]], /
    ) -> Task[_PayloadT, _OutputT]: ...
    @overload
    def __call__(
        self, function: _PayloadC[_PayloadT, Awaitable[_OutputT]], /
    ) -> Task[_PayloadT, _OutputT]: ...
    @overload
    def __call__(
        self, function: _PayloadI[_PayloadT, _InitT, Awaitable[_OutputT]], /
    ) -> Task[_PayloadT, _OutputT]: ...
    @overload
    def __call__(
        self, function: _PayloadCI[_PayloadT, _InitT, Awaitable[_OutputT]], /
    ) -> Task[_PayloadT, _OutputT]: ...
    @overload
    def __call__(self, function: _Bare[_OutputT], /) -> Task[None, _OutputT]: ...
    @overload
    def __call__(self, function: _BareC[_OutputT], /) -> Task[None, _OutputT]: ...
    @overload
    def __call__(self, function: _BareI[_InitT, _OutputT], /) -> Task[None, _OutputT]: ...
    @overload
    def __call__(self, function: _BareCI[_InitT, _OutputT], /) -> Task[None, _OutputT]: ...
    @overload
    def __call__(self, function: _Payload[_PayloadT, _OutputT], /) -> Task[_PayloadT, _OutputT]: ...
    @overload
    def __call__(
        self, function: _PayloadC[_PayloadT, _OutputT], /
    ) -> Task[_PayloadT, _OutputT]: ...
    @overload
    def __call__(
        self, function: _PayloadI[_PayloadT, _InitT, _OutputT], /
    ) -> Task[_PayloadT, _OutputT]: ...
    @overload
    def __call__(
        self, function: _PayloadCI[_PayloadT, _InitT, _OutputT], /
    ) -> Task[_PayloadT, _OutputT]: ...
    def __call__(self, function: TaskFunction, /) -> object:
        """The task of this function, noted in the catalogue."""
        return catalog.add_task(Task[object, object](function, self._options))


def task(  # noqa: PLR0913 (the documented options)
    *,
    id: str,  # noqa: A002 (the name of the platform's documentation)
    retry: Retry | None = None,
    queue: Queue | None = None,
    machine: MachineOption | None = None,
    max_duration: Duration | None = None,
    ttl: Duration | None = None,
    description: str | None = None,
    keep_process: bool = False,
    schema: Callable[[Json], object] | None = None,
) -> TaskDecorator:
    """Turn a function into a task, which runs in a process of its own when it is triggered.

    The function, `async def` or `def`, takes at most one payload, and `ctx` and `init` (what the
    `init` hook returned) if it declares them. The
    payload's annotation is its schema: a pydantic model, dataclass, TypedDict or built-in type,
    checked when the task is triggered and again before it runs. What it returns is the output; it
    must have a JSON form. `schema` is for a parser of your own: a function that gets the payload as
    JSON and returns what the task gets, or raises; or a type, for a payload without an annotation.

    `id` must be unique in the project. What isn't given is taken from the config file. `ttl` is how
    long a run may wait for its first start (0: as long as it takes), `max_duration` how long an
    attempt may take (at least 5 seconds; `timeout.NONE` for no limit). With `keep_process`, one
    process serves many runs of this task: faster, and what a run leaves behind in memory is there
    for the next.

    Example:
        >>> from runwell import Queue, Retry, task
        >>> @task(id="greet", retry=Retry(max_attempts=5), queue=Queue(concurrency_limit=10))
        ... async def greet(name: str) -> str:
        ...     return f"Hello {name}"
        >>> greet.id
        'greet'
    """
    return TaskDecorator(
        with_schema(
            schema,
            read_task_options(
                id=id,
                retry=retry,
                queue=queue,
                machine=machine,
                max_duration=max_duration,
                ttl=ttl,
                description=description,
                keep_process=keep_process,
            ),
        )
    )


def with_schema(schema: object, options: TaskOptions) -> TaskOptions:
    """The options of a task whose payload is read by `schema`; raises ValueError."""
    if schema is None:
        return options
    if isinstance(schema, type) or get_origin(schema) is not None:
        return replace(options, payload_type=cast("type[object]", schema))
    if not callable(schema):
        raise ValueError(f"schema={schema!r}: it takes a function of the payload, or a type")
    return replace(options, parser=cast("Parser", schema))


def read_task_options(
    *,
    id: str,  # noqa: A002 (the name of the platform's documentation)
    retry: Retry | None,
    queue: Queue | None,
    machine: MachineOption | None,
    max_duration: Duration | None,
    ttl: Duration | None,
    description: str | None,
    keep_process: bool,
) -> TaskOptions:
    """The options of a task, read; raises ValueError that names the one that can't be."""
    return TaskOptions(
        id=_read_task_id(id),
        retry=_read_retry(retry),
        queue=_read_queue(queue),
        machine=None if machine is None else read_machine(machine),
        max_duration=None if max_duration is None else read_max_duration(max_duration),
        ttl=None if ttl is None else read_whole_seconds("ttl", ttl),
        description=description,
        keep_process=keep_process,
    )


def queue(
    name: str,
    *,
    concurrency_limit: int | None = None,
    rate_limit: RateLimit | Sequence[RateLimit] | None = None,
) -> Queue:
    """Define a queue that several tasks share, and with it limits on all of them together.

    Example:
        >>> from runwell import queue, task
        >>> reports = queue("reports", concurrency_limit=1)
        >>> @task(id="daily-report", queue=reports)
        ... def daily_report() -> None: ...
        >>> @task(id="weekly-report", queue=reports)
        ... def weekly_report() -> None: ...
    """
    return catalog.add_queue(
        Queue(name=name, concurrency_limit=concurrency_limit, rate_limit=rate_limit)
    )


def _read_task_id(task_id: object) -> str:
    try:
        return _TASK_ID.validate_python(task_id, strict=True)
    except ValidationError:
        raise ValueError(
            f"id={task_id!r}: the id of a task is a text of 1 to 256 characters, on one line"
        ) from None


def _read_retry(retry: object) -> RetryOptions | None:
    if retry is None or isinstance(retry, Retry):
        return None if retry is None else retry.to_options()
    raise ValueError(f"retry={retry!r}: it takes Retry(max_attempts=..., ...)")


def _read_queue(value: object) -> Queue | None:
    if value is None or isinstance(value, Queue):
        return value
    raise ValueError(f"queue={value!r}: it takes Queue(...), or what queue(...) returned")
