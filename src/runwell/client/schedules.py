"""`schedules`: create, retrieve, list, update, activate, deactivate and delete schedules."""

from typing import Literal, Protocol, Required, TypedDict, Unpack
from urllib.parse import quote

from runwell.client.api import ApiClient
from runwell.client.options import read_whole_seconds
from runwell.client.pages import Listing
from runwell.client.schedule_pages import (
    BlockingSchedulePage,
    SchedulePage,
    list_call,
)
from runwell.client.transport import Call, Flow, RequestOptions, json_body
from runwell.core.schedules import (
    MAX_SPREAD_SECONDS,
    DeletedSchedule,
    MissedTicks,
    ScheduleList,
    ScheduleObject,
    Timezones,
)
from runwell.core.timing import Duration

_PATH = "/api/v1/schedules"

#: What `missed_ticks=` takes.
MissedTicksOption = MissedTicks | Literal["skip", "catch-up"]


class _Identified(Protocol):
    @property
    def id(self) -> str: ...


class ScheduleRule(TypedDict, total=False):
    """What a schedule does and when.

    `task` is the id of a scheduled task, or the task. `timezone` is an IANA name, UTC without one.
    `missed_ticks`: what becomes of ticks at which no server ran, skipped or, with "catch-up", made
    up for by one run. `spread`: each tick's run comes at a moment of the schedule's own within this
    time, up to a day.
    """

    task: Required["str | _Identified"]
    cron: Required[str]
    timezone: str | None
    external_id: str | None
    missed_ticks: MissedTicksOption
    spread: Duration
    request_options: RequestOptions | None


class NewSchedule(ScheduleRule, total=False):
    """A rule, and the key of which there is one schedule only."""

    deduplication_key: Required[str]


class ScheduleChange(ScheduleRule, total=False):
    """A rule, and another deduplication key if one is given."""

    deduplication_key: str | None


#: How a schedule is named: its id, or the schedule.
ScheduleReference = str | ScheduleObject


class _ScheduleFlows:
    """What both kinds of caller do, as flows."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def _create(self, rule: NewSchedule) -> Flow[ScheduleObject]:
        return self._send("POST", _PATH, rule)

    def _update(self, schedule: ScheduleReference, rule: ScheduleChange) -> Flow[ScheduleObject]:
        return self._send("PUT", _path(schedule), rule)

    def _send(
        self, method: str, path: str, rule: NewSchedule | ScheduleChange
    ) -> Flow[ScheduleObject]:
        options = rule.get("request_options")
        call = Call(method=method, path=path, body=json_body(_body(rule)), options=options)
        return self._client.ask(call, ScheduleObject)

    def _retrieve(
        self, schedule: ScheduleReference, options: RequestOptions | None
    ) -> Flow[ScheduleObject]:
        call = Call(method="GET", path=_path(schedule), options=options)
        return self._client.ask(call, ScheduleObject)

    def _switch(
        self, schedule: ScheduleReference, how: str, options: RequestOptions | None
    ) -> Flow[ScheduleObject]:
        call = Call(method="POST", path=f"{_path(schedule)}/{how}", options=options)
        return self._client.ask(call, ScheduleObject)

    def _delete(
        self, schedule: ScheduleReference, options: RequestOptions | None
    ) -> Flow[DeletedSchedule]:
        call = Call(method="DELETE", path=_path(schedule), options=options)
        return self._client.ask(call, DeletedSchedule)

    def _timezones(self, exclude_utc: bool, options: RequestOptions | None) -> Flow[list[str]]:
        query = {"excludeUtc": "true"} if exclude_utc else {}
        call = Call(method="GET", path="/api/v1/timezones", query=query, options=options)
        return (yield from self._client.ask(call, Timezones)).timezones

    def _page(
        self, page: int, per_page: int | None, options: RequestOptions | None
    ) -> Flow[ScheduleList]:
        return self._client.ask(list_call(page, per_page, options), ScheduleList)


class Schedules(_ScheduleFlows):
    """Create and change schedules. One is named by its id, or by itself.

    Example:
        >>> from runwell import schedules
        >>> async def remind_daily(user_id: str, timezone: str) -> str:
        ...     schedule = await schedules.create(
        ...         task="reminder",
        ...         cron="0 8 * * *",
        ...         timezone=timezone,
        ...         external_id=user_id,
        ...         deduplication_key=f"{user_id}-reminder",
        ...     )
        ...     return schedule.id
    """

    async def create(self, **rule: Unpack[NewSchedule]) -> ScheduleObject:
        """Create a schedule, or change the one that has the deduplication key.

        Raises UnprocessableEntityError for a pattern, time zone or task that can't be.
        """
        return await self._client.run(self._create(rule))

    async def update(
        self, schedule: ScheduleReference, **rule: Unpack[ScheduleChange]
    ) -> ScheduleObject:
        """Give a schedule another rule: all of it, what is left out is reset."""
        return await self._client.run(self._update(schedule, rule))

    async def retrieve(
        self, schedule: ScheduleReference, *, request_options: RequestOptions | None = None
    ) -> ScheduleObject:
        """Fetch a schedule; NotFoundError without one."""
        return await self._client.run(self._retrieve(schedule, request_options))

    async def activate(
        self, schedule: ScheduleReference, *, request_options: RequestOptions | None = None
    ) -> ScheduleObject:
        """Let a schedule tick, from its next tick on."""
        return await self._client.run(self._switch(schedule, "activate", request_options))

    async def deactivate(
        self, schedule: ScheduleReference, *, request_options: RequestOptions | None = None
    ) -> ScheduleObject:
        """Stop a schedule."""
        return await self._client.run(self._switch(schedule, "deactivate", request_options))

    async def delete(
        self, schedule: ScheduleReference, *, request_options: RequestOptions | None = None
    ) -> DeletedSchedule:
        """Forget a schedule; its runs stay."""
        return await self._client.run(self._delete(schedule, request_options))

    async def timezones(
        self, *, exclude_utc: bool = False, request_options: RequestOptions | None = None
    ) -> list[str]:
        """The time zones that a schedule can be in: UTC, then the others in their order."""
        return await self._client.run(self._timezones(exclude_utc, request_options))

    # The last one: within the class, the name hides the type.
    def list(
        self,
        *,
        page: int = 1,
        per_page: int | None = None,
        request_options: RequestOptions | None = None,
    ) -> Listing[ScheduleObject, SchedulePage]:
        """The schedules of the environment, newest first: `await` a page, or `async for` over all.

        Example:
            >>> from runwell import schedules
            >>> async def newest() -> list[str]:
            ...     return [one.id for one in (await schedules.list(per_page=10)).data]
        """

        async def ask(number: int) -> SchedulePage:
            found = await self._client.run(self._page(number, per_page, request_options))
            return SchedulePage(found, ask)

        return Listing(lambda: ask(page))


class BlockingSchedules(_ScheduleFlows):
    """Create and change schedules, blocking the caller.

    Example:
        >>> from runwell.sync import schedules
        >>> def stop_all() -> None:
        ...     for schedule in schedules.list():
        ...         schedules.deactivate(schedule)
    """

    def create(self, **rule: Unpack[NewSchedule]) -> ScheduleObject:
        """Create a schedule, or change the one that has the deduplication key.

        Raises UnprocessableEntityError for a pattern, time zone or task that can't be.
        """
        return self._client.run_blocking(self._create(rule))

    def update(self, schedule: ScheduleReference, **rule: Unpack[ScheduleChange]) -> ScheduleObject:
        """Give a schedule another rule: all of it, what is left out is reset."""
        return self._client.run_blocking(self._update(schedule, rule))

    def retrieve(
        self, schedule: ScheduleReference, *, request_options: RequestOptions | None = None
    ) -> ScheduleObject:
        """Fetch a schedule; NotFoundError without one."""
        return self._client.run_blocking(self._retrieve(schedule, request_options))

    def activate(
        self, schedule: ScheduleReference, *, request_options: RequestOptions | None = None
    ) -> ScheduleObject:
        """Let a schedule tick, from its next tick on."""
        return self._client.run_blocking(self._switch(schedule, "activate", request_options))

    def deactivate(
        self, schedule: ScheduleReference, *, request_options: RequestOptions | None = None
    ) -> ScheduleObject:
        """Stop a schedule."""
        return self._client.run_blocking(self._switch(schedule, "deactivate", request_options))

    def delete(
        self, schedule: ScheduleReference, *, request_options: RequestOptions | None = None
    ) -> DeletedSchedule:
        """Forget a schedule; its runs stay."""
        return self._client.run_blocking(self._delete(schedule, request_options))

    def timezones(
        self, *, exclude_utc: bool = False, request_options: RequestOptions | None = None
    ) -> list[str]:
        """The time zones that a schedule can be in: UTC, then the others in their order."""
        return self._client.run_blocking(self._timezones(exclude_utc, request_options))

    # The last one: within the class, the name hides the type.
    def list(
        self,
        *,
        page: int = 1,
        per_page: int | None = None,
        request_options: RequestOptions | None = None,
    ) -> BlockingSchedulePage:
        """A page of the environment's schedules, newest first; `for` goes on to the last."""

        def ask(number: int) -> BlockingSchedulePage:
            found = self._client.run_blocking(self._page(number, per_page, request_options))
            return BlockingSchedulePage(found, ask)

        return ask(page)


def read_spread(value: Duration) -> int:
    """A spread in seconds; raises ValueError for more than a day."""
    seconds = read_whole_seconds("spread", value)
    if seconds > MAX_SPREAD_SECONDS:
        raise ValueError(f"spread={value!r}: it takes up to a day ('24h')")
    return seconds


def read_missed_ticks(value: object) -> MissedTicks:
    """What becomes of missed ticks; raises ValueError that lists the choices."""
    if isinstance(value, str) and value in set(MissedTicks):
        return MissedTicks(value)
    choices = " or ".join(repr(choice.value) for choice in MissedTicks)
    raise ValueError(f"missed_ticks={value!r}: it takes {choices}")


def _body(rule: NewSchedule | ScheduleChange) -> dict[str, object]:
    unknown = rule.keys() - ScheduleChange.__annotations__.keys()
    if unknown:
        known = ", ".join(name for name in ScheduleChange.__annotations__)
        raise TypeError(f"a schedule has no option {min(unknown)!r}: there are {known}")
    task = rule["task"]
    body: dict[str, object] = {
        "task": task if isinstance(task, str) else task.id,
        "cron": rule["cron"],
        "timezone": rule.get("timezone"),
        "externalId": rule.get("external_id"),
        "deduplicationKey": rule.get("deduplication_key"),
    }
    if "missed_ticks" in rule:
        body["missedTicks"] = read_missed_ticks(rule["missed_ticks"]).value
    if "spread" in rule:
        body["spread"] = read_spread(rule["spread"])
    return {name: value for name, value in body.items() if value is not None}


def _path(schedule: ScheduleReference) -> str:
    found: object = schedule if isinstance(schedule, str) else getattr(schedule, "id", None)
    if not isinstance(found, str) or not found.strip("."):
        raise ValueError(f"{schedule!r} names no schedule: give its id ('sched_...'), or itself")
    return f"{_PATH}/{quote(found, safe='')}"
