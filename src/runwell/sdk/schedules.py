"""`schedules.task` and `Cron`: tasks that schedules trigger, and the schedules that code declares.

The management functions beside `schedules.task` are those of `client/schedules.py`.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, Protocol, TypeVar, cast, get_args, overload

from runwell.client.options import MachineOption, Queue, Retry
from runwell.client.raw_responses import RawBlockingSchedules, RawSchedules
from runwell.client.schedules import (
    BlockingSchedules,
    MissedTicksOption,
    Schedules,
    read_missed_ticks,
    read_spread,
)
from runwell.core.cron import DEFAULT_TIMEZONE, check_pattern, check_timezone, list_timezones
from runwell.core.schedules import (
    EnvironmentType,
    MissedTicks,
    ScheduledPayload,
    ScheduleManifest,
)
from runwell.core.timing import Duration
from runwell.sdk.catalog import TaskFunction, catalog
from runwell.sdk.client import default_client
from runwell.sdk.definitions import read_task_options
from runwell.sdk.runtime import RunContext
from runwell.sdk.task import Task
from runwell.sdk.task_options import TaskOptions

_OutputT = TypeVar("_OutputT")
_InitT = TypeVar("_InitT")
_InitT_contra = TypeVar("_InitT_contra", contravariant=True)
_ResultT_co = TypeVar("_ResultT_co", covariant=True)

_ENVIRONMENT_TYPES: Final[tuple[str, ...]] = get_args(EnvironmentType)


@dataclass(frozen=True, slots=True)
class Cron:
    """A schedule as a task declares it: a pattern in the time of a zone.

    `environments` says where it exists (`"PRODUCTION"`, `"STAGING"`, `"DEVELOPMENT"`); without it,
    wherever the code is. With `missed_ticks="catch-up"`, one run makes up for ticks at which no
    server ran. With `spread`, runs come at a moment of the schedule's own within that time after
    each tick. Raises ValueError for what can't be.

    Example:
        >>> from runwell import Cron, schedules
        >>> @schedules.task(id="tokyo-report", cron=Cron("0 5 * * *", timezone="Asia/Tokyo"))
        ... async def tokyo_report() -> None: ...
    """

    pattern: str
    timezone: str = DEFAULT_TIMEZONE
    environments: Sequence[EnvironmentType] | None = None
    missed_ticks: MissedTicksOption = MissedTicks.SKIP
    spread: Duration = 0

    def __post_init__(self) -> None:
        self.to_manifest()

    def to_manifest(self) -> ScheduleManifest:
        """The form that the API takes."""
        if not isinstance(cast("object", self.pattern), str):
            raise ValueError(f"cron={self.pattern!r}: it takes a text like '0 9 * * *'")
        zone = self.timezone
        # A machine may have no time zones of its own; the server knows them then.
        if zone != DEFAULT_TIMEZONE and len(list_timezones()) > 1:
            zone = check_timezone(zone)
        return ScheduleManifest(
            cron=check_pattern(self.pattern),
            timezone=zone,
            environments=_read_environments(self.environments),
            missed_ticks=read_missed_ticks(self.missed_ticks),
            spread_seconds=read_spread(self.spread),
        )


# The shapes of a scheduled task's function, besides plain ones.


class _WithContext(Protocol[_ResultT_co]):
    def __call__(self, *, ctx: RunContext) -> _ResultT_co: ...


class _WithBoth(Protocol[_ResultT_co]):
    def __call__(self, payload: ScheduledPayload, /, *, ctx: RunContext) -> _ResultT_co: ...


class _WithInit(Protocol[_InitT_contra, _ResultT_co]):
    def __call__(self, *, init: _InitT_contra) -> _ResultT_co: ...


class _WithContextInit(Protocol[_InitT_contra, _ResultT_co]):
    def __call__(self, *, ctx: RunContext, init: _InitT_contra) -> _ResultT_co: ...


class _WithPayloadInit(Protocol[_InitT_contra, _ResultT_co]):
    def __call__(self, payload: ScheduledPayload, /, *, init: _InitT_contra) -> _ResultT_co: ...


class _WithAll(Protocol[_InitT_contra, _ResultT_co]):
    def __call__(
        self, payload: ScheduledPayload, /, *, ctx: RunContext, init: _InitT_contra
    ) -> _ResultT_co: ...


class ScheduledTaskDecorator:
    """What `schedules.task(...)` gives: it takes the function and returns the task."""

    def __init__(self, options: TaskOptions) -> None:
        self._options = options

    @overload
    def __call__(
        self, function: Callable[[ScheduledPayload], Awaitable[_OutputT]], /
    ) -> Task[ScheduledPayload, _OutputT]: ...
    @overload
    def __call__(
        self, function: _WithBoth[Awaitable[_OutputT]], /
    ) -> Task[ScheduledPayload, _OutputT]: ...
    @overload
    def __call__(self, function: Callable[[], Awaitable[_OutputT]], /) -> Task[None, _OutputT]: ...
    @overload
    def __call__(self, function: _WithContext[Awaitable[_OutputT]], /) -> Task[None, _OutputT]: ...
    @overload
    def __call__(
        self, function: _WithPayloadInit[_InitT, Awaitable[_OutputT]], /
    ) -> Task[ScheduledPayload, _OutputT]: ...
    @overload
    def __call__(
        self, function: _WithAll[_InitT, Awaitable[_OutputT]], /
    ) -> Task[ScheduledPayload, _OutputT]: ...
    @overload
    def __call__(
        self, function: _WithInit[_InitT, Awaitable[_OutputT]], /
    ) -> Task[None, _OutputT]: ...
    @overload
    def __call__(
        self, function: _WithContextInit[_InitT, Awaitable[_OutputT]], /
    ) -> Task[None, _OutputT]: ...
    @overload
    def __call__(
        self, function: Callable[[ScheduledPayload], _OutputT], /
    ) -> Task[ScheduledPayload, _OutputT]: ...
    @overload
    def __call__(self, function: _WithBoth[_OutputT], /) -> Task[ScheduledPayload, _OutputT]: ...
    @overload
    def __call__(self, function: Callable[[], _OutputT], /) -> Task[None, _OutputT]: ...
    @overload
    def __call__(self, function: _WithContext[_OutputT], /) -> Task[None, _OutputT]: ...
    @overload
    def __call__(
        self, function: _WithPayloadInit[_InitT, _OutputT], /
    ) -> Task[ScheduledPayload, _OutputT]: ...
    @overload
    def __call__(
        self, function: _WithAll[_InitT, _OutputT], /
    ) -> Task[ScheduledPayload, _OutputT]: ...
    @overload
    def __call__(self, function: _WithInit[_InitT, _OutputT], /) -> Task[None, _OutputT]: ...
    @overload
    def __call__(self, function: _WithContextInit[_InitT, _OutputT], /) -> Task[None, _OutputT]: ...
    def __call__(self, function: TaskFunction, /) -> object:
        """The task of this function, noted in the catalogue."""
        return catalog.add_task(Task[object, object](function, self._options))


class _ScheduledTasks:
    """The decorator, for both kinds of caller."""

    def task(  # noqa: PLR0913 (the documented options)
        self,
        *,
        id: str,  # noqa: A002 (the name of the platform's documentation)
        cron: str | Cron | None = None,
        retry: Retry | None = None,
        queue: Queue | None = None,
        machine: MachineOption | None = None,
        max_duration: Duration | None = None,
        ttl: Duration | None = None,
        description: str | None = None,
        keep_process: bool = False,
    ) -> ScheduledTaskDecorator:
        """Turn a function into a task that schedules trigger; the options are those of `@task`.

        The function may take a `ScheduledPayload`, `ctx` and `init`. `cron`, a pattern in UTC or
        a `Cron`, declares a schedule: it is there as soon as the code is, changes and goes with it.
        Further ones are attached with `schedules.create`.

        Example:
            >>> from runwell import ScheduledPayload, schedules
            >>> @schedules.task(id="every-two-hours", cron="0 */2 * * *")
            ... async def every_two_hours(payload: ScheduledPayload) -> str:
            ...     return f"planned for {payload.timestamp}, next at {payload.upcoming[0]}"
        """
        options = read_task_options(
            id=id,
            retry=retry,
            queue=queue,
            machine=machine,
            max_duration=max_duration,
            ttl=ttl,
            description=description,
            keep_process=keep_process,
        )
        return ScheduledTaskDecorator(options.with_schedule(_read_cron(cron), ScheduledPayload))


class ScheduleNamespace(_ScheduledTasks, Schedules):
    """Define scheduled tasks; create and change schedules.

    Example:
        >>> from runwell import ScheduledPayload, schedules
        >>> @schedules.task(id="reminder")
        ... async def remind(payload: ScheduledPayload) -> None:
        ...     print(payload.external_id, payload.timezone)
        >>> async def remind_daily(user_id: str) -> None:
        ...     await schedules.create(
        ...         task=remind, cron="0 8 * * *", external_id=user_id, deduplication_key=user_id
        ...     )
    """

    @cached_property
    def with_raw_response(self) -> RawSchedules:
        """The same methods, whose results have the status and the headers of the answer."""
        return RawSchedules(self._client)


class BlockingScheduleNamespace(_ScheduledTasks, BlockingSchedules):
    """Define scheduled tasks; create and change schedules, blocking the caller.

    Example:
        >>> from runwell.sync import schedules
        >>> def count() -> int:
        ...     return sum(1 for schedule in schedules.list())
    """

    @cached_property
    def with_raw_response(self) -> RawBlockingSchedules:
        """The same methods, whose results have the status and the headers of the answer."""
        return RawBlockingSchedules(self._client)


schedules: Final = ScheduleNamespace(default_client)
blocking_schedules: Final = BlockingScheduleNamespace(default_client)


def _read_cron(cron: object) -> ScheduleManifest | None:
    match cron:
        case None:
            return None
        case Cron():
            return cron.to_manifest()
        case str():
            return Cron(cron).to_manifest()
        case _:
            raise ValueError(f"cron={cron!r}: it takes a text like '0 9 * * *', or Cron(...)")


def _read_environments(
    environments: Sequence[EnvironmentType] | None,
) -> list[EnvironmentType] | None:
    if environments is None:
        return None
    named = [environments] if isinstance(environments, str) else list(environments)
    for name in named:
        if name not in _ENVIRONMENT_TYPES:
            known = ", ".join(repr(one) for one in _ENVIRONMENT_TYPES)
            raise ValueError(f"environments={environments!r}: it takes a list of {known}")
    return cast("list[Literal['DEVELOPMENT', 'STAGING', 'PRODUCTION']]", named)
