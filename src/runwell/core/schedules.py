"""Schedules on the wire: what code declares, what calls create, what a scheduled run is given.

Sources: docs `tasks/scheduled.md`, `management/schedules/`; `protocol.md` sections 7.1 and 7.6.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

#: How many of the next ticks a scheduled run is told.
UPCOMING_TICKS = 5
MAX_SPREAD_SECONDS = 24 * 3600
MAX_SCHEDULES_PER_PAGE = 100

EnvironmentType = Literal["DEVELOPMENT", "STAGING", "PRODUCTION"]
_Text = Annotated[str, StringConstraints(min_length=1, max_length=1_024)]


class ScheduleType(StrEnum):
    """Where a schedule comes from."""

    # The code of its task; who changes the code changes it.
    DECLARATIVE = "DECLARATIVE"
    # A call, or the dashboard.
    IMPERATIVE = "IMPERATIVE"


class MissedTicks(StrEnum):
    """What becomes of ticks at which no server ran."""

    # Nothing.
    SKIP = "skip"
    # One run for the last of them.
    CATCH_UP = "catch-up"


class _WireModel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


class ScheduleManifest(_WireModel):
    """The schedule that a task's code declares; `environments` of None means all of them."""

    cron: str
    timezone: str = "UTC"
    environments: list[EnvironmentType] | None = None
    missed_ticks: MissedTicks = MissedTicks.SKIP
    spread_seconds: int = Field(default=0, ge=0, le=MAX_SPREAD_SECONDS)


class ScheduledPayload(BaseModel):
    """What a scheduled run is given.

    `timestamp` is the instant at which it was planned, `last_timestamp` that of the run before it,
    None for the first; `upcoming` the next five, all of them aware, in UTC. `timezone` is the zone
    that the schedule is in: `payload.timestamp.astimezone(ZoneInfo(payload.timezone))` is the time
    there.

    Example:
        >>> from datetime import UTC, datetime
        >>> from runwell import ScheduledPayload
        >>> midnight = datetime(2026, 3, 1, tzinfo=UTC)
        >>> ScheduledPayload(timestamp=midnight, schedule_id="sched_1234").timezone
        'UTC'
    """

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True
    )

    timestamp: datetime
    last_timestamp: datetime | None = None
    timezone: str = "UTC"
    schedule_id: str
    external_id: str | None = None
    upcoming: list[datetime] = []
    type: ScheduleType = ScheduleType.IMPERATIVE


class ScheduleBody(_WireModel):
    """`PUT /api/v1/schedules/{id}`: the whole rule; what is left out is reset.

    `missedTicks` and `spread` (seconds) are Runwell's own.
    """

    task: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    cron: Annotated[str, StringConstraints(min_length=1)]
    external_id: _Text | None = None
    timezone: str | None = None
    deduplication_key: _Text | None = None
    missed_ticks: MissedTicks = MissedTicks.SKIP
    spread: int = Field(default=0, ge=0, le=MAX_SPREAD_SECONDS)


class CreateScheduleBody(ScheduleBody):
    """`POST /api/v1/schedules`: a known deduplication key changes the schedule that has it."""

    deduplication_key: _Text  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues] - required here


class ScheduleGenerator(_WireModel):
    """What makes the ticks of a schedule, as text for programs and for people."""

    type: Literal["CRON"] = "CRON"
    expression: str
    description: str


class ScheduleEnvironment(_WireModel):
    """The environment that a schedule triggers runs in."""

    id: str
    type: str
    user_name: str | None = None


class ScheduleObject(_WireModel):
    """A schedule; what has no value is left out. `next_run` is when a run is triggered next.

    Example:
        >>> from runwell import ScheduleObject
        >>> def show(schedule: ScheduleObject) -> None:
        ...     print(schedule.task, schedule.generator.description, schedule.next_run)
    """

    id: str
    type: ScheduleType
    task: str
    active: bool
    deduplication_key: str | None = None
    external_id: str | None = None
    generator: ScheduleGenerator
    timezone: str
    next_run: datetime | None = None
    environments: list[ScheduleEnvironment]
    missed_ticks: MissedTicks = MissedTicks.SKIP
    spread: int = 0


class SchedulePagination(_WireModel):
    """Which page, counted from 1, of how many, and how many schedules there are in all."""

    current_page: int
    total_pages: int
    count: int


class ScheduleList(_WireModel):
    """`GET /api/v1/schedules`."""

    data: list[ScheduleObject]
    pagination: SchedulePagination


class DeletedSchedule(_WireModel):
    """What the deletion of a schedule answers."""

    id: str


class Timezones(_WireModel):
    """`GET /api/v1/timezones`."""

    timezones: list[str]


class RunSchedule(_WireModel):
    """The schedule that triggered a run."""

    id: str
    external_id: str | None = None
    deduplication_key: str | None = None
    generator: ScheduleGenerator
