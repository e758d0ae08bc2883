"""Schedules: create, retrieve, list, update, activate, deactivate, delete; time zones."""

from starlette.requests import Request

from runwell.core.cron import DEFAULT_TIMEZONE, list_timezones
from runwell.core.errors import InvalidPayloadError, RequestError
from runwell.core.payloads import check_text
from runwell.core.schedules import (
    MAX_SCHEDULES_PER_PAGE,
    CreateScheduleBody,
    DeletedSchedule,
    ScheduleBody,
    ScheduleList,
    ScheduleObject,
    SchedulePagination,
    Timezones,
)
from runwell.engine import schedules
from runwell.engine.db import Transaction
from runwell.engine.schedules import Schedule, ScheduleRule
from runwell.server.backend import Backend
from runwell.server.http import Answer, answer, integer_parameter, path_text, read_model
from runwell.server.operations import Operation, Parameter
from runwell.server.schedule_objects import schedule_object

_PER_PAGE = 20
_MAX_PAGE = 1_000_000
_NO_SCHEDULE = (404, "There is no such schedule in the key's environment.")
_REFUSED = (422, "The pattern, time zone or task can't be, or the schedule is declared in code.")


async def create(request: Request, backend: Backend) -> Answer:
    """Create a schedule, or change the one that has the deduplication key."""
    environment = await backend.authenticate(request)
    body = await read_model(request, CreateScheduleBody)
    rule, now = _rule(body), backend.now()

    async def act(tx: Transaction) -> Schedule:
        key = body.deduplication_key
        return await schedules.create_schedule(
            tx, environment, rule, deduplication_key=key, now=now
        )

    return answer(schedule_object(await backend.db.run(act), environment))


async def update(request: Request, backend: Backend) -> Answer:
    """Give a schedule another rule."""
    environment = await backend.authenticate(request)
    schedule_id = path_text(request, "scheduleId")
    body = await read_model(request, ScheduleBody)
    rule, now = _rule(body), backend.now()

    async def act(tx: Transaction) -> Schedule:
        key = body.deduplication_key
        return await schedules.update_schedule(
            tx, environment, schedule_id, rule, deduplication_key=key, now=now
        )

    return answer(schedule_object(await backend.db.run(act), environment))


async def activate(request: Request, backend: Backend) -> Answer:
    """Let a schedule tick, from its next tick on."""
    return await _set_active(request, backend, is_active=True)


async def deactivate(request: Request, backend: Backend) -> Answer:
    """Stop a schedule."""
    return await _set_active(request, backend, is_active=False)


async def delete(request: Request, backend: Backend) -> Answer:
    """Forget a schedule."""
    environment = await backend.authenticate(request)
    schedule_id = path_text(request, "scheduleId")
    await backend.db.run(lambda tx: schedules.delete_schedule(tx, environment, schedule_id))
    return answer(DeletedSchedule(id=schedule_id))


async def retrieve(request: Request, backend: Backend) -> Answer:
    """Show a schedule."""
    environment = await backend.authenticate(request)
    async with backend.db.connection() as tx:
        found = await schedules.get_schedule(tx, environment, path_text(request, "scheduleId"))
    return answer(schedule_object(found, environment))


async def list_schedules(request: Request, backend: Backend) -> Answer:
    """List schedules, newest first."""
    environment = await backend.authenticate(request)
    page = integer_parameter(request, "page", default=1, least=1, most=_MAX_PAGE)
    size = integer_parameter(
        request, "perPage", default=_PER_PAGE, least=1, most=MAX_SCHEDULES_PER_PAGE
    )
    async with backend.db.transaction() as tx:
        found, count = await schedules.list_schedules(tx, environment, page=page, page_size=size)
    pagination = SchedulePagination(
        current_page=page, total_pages=max(1, -(-count // size)), count=count
    )
    data = [schedule_object(schedule, environment) for schedule in found]
    return answer(ScheduleList(data=data, pagination=pagination))


async def show_timezones(request: Request, _backend: Backend) -> Answer:
    """List the time zones that a schedule can be in."""
    excludes_utc = request.query_params.get("excludeUtc", "false")
    if excludes_utc not in ("true", "false"):
        raise RequestError(400, f"excludeUtc must be 'true' or 'false', not {excludes_utc[:32]!r}")
    zones = list(list_timezones())
    if excludes_utc == "true":
        zones.remove(DEFAULT_TIMEZONE)
    return answer(Timezones(timezones=zones))


async def _set_active(request: Request, backend: Backend, *, is_active: bool) -> Answer:
    environment = await backend.authenticate(request)
    schedule_id, now = path_text(request, "scheduleId"), backend.now()

    async def act(tx: Transaction) -> Schedule:
        return await schedules.set_active(
            tx, environment, schedule_id, is_active=is_active, now=now
        )

    return answer(schedule_object(await backend.db.run(act), environment))


def _rule(body: ScheduleBody) -> ScheduleRule:
    for text in (body.task, body.cron, body.timezone, body.external_id, body.deduplication_key):
        if text is not None:
            try:
                check_text(text, what=f"{text[:64]!r}")
            except InvalidPayloadError as error:
                raise RequestError(400, str(error)) from None
    return ScheduleRule(
        task_id=body.task,
        cron=body.cron,
        timezone=DEFAULT_TIMEZONE if body.timezone is None else body.timezone,
        external_id=body.external_id,
        missed_ticks=body.missed_ticks,
        spread_seconds=body.spread,
    )


operations: list[Operation] = [
    Operation(
        method="POST",
        path="/api/v1/schedules",
        endpoint=create,
        name="createSchedule",
        summary="Create a schedule, or change the one with the deduplication key",
        tag="schedules",
        body=CreateScheduleBody,
        answer=ScheduleObject,
        answer_description="The schedule.",
        refusals=(_REFUSED,),
    ),
    Operation(
        method="GET",
        path="/api/v1/schedules",
        endpoint=list_schedules,
        name="listSchedules",
        summary="List schedules, newest first",
        tag="schedules",
        answer=ScheduleList,
        answer_description="A page of schedules.",
        parameters=(
            Parameter(name="page", description="Counted from 1", type="integer"),
            Parameter(
                name="perPage",
                description=f"1 to {MAX_SCHEDULES_PER_PAGE}; {_PER_PAGE} if absent",
                type="integer",
            ),
        ),
    ),
    Operation(
        method="GET",
        path="/api/v1/schedules/{scheduleId}",
        endpoint=retrieve,
        name="retrieveSchedule",
        summary="Retrieve a schedule",
        tag="schedules",
        answer=ScheduleObject,
        answer_description="The schedule.",
        refusals=(_NO_SCHEDULE,),
    ),
    Operation(
        method="PUT",
        path="/api/v1/schedules/{scheduleId}",
        endpoint=update,
        name="updateSchedule",
        summary="Give a schedule another rule",
        tag="schedules",
        body=ScheduleBody,
        answer=ScheduleObject,
        answer_description="The schedule.",
        refusals=(_NO_SCHEDULE, _REFUSED),
    ),
    Operation(
        method="DELETE",
        path="/api/v1/schedules/{scheduleId}",
        endpoint=delete,
        name="deleteSchedule",
        summary="Forget a schedule",
        tag="schedules",
        answer=DeletedSchedule,
        answer_description="The schedule is gone; its runs stay.",
        refusals=(_NO_SCHEDULE, _REFUSED),
    ),
    Operation(
        method="POST",
        path="/api/v1/schedules/{scheduleId}/activate",
        endpoint=activate,
        name="activateSchedule",
        summary="Let a schedule tick",
        tag="schedules",
        answer=ScheduleObject,
        answer_description="The schedule.",
        refusals=(_NO_SCHEDULE, _REFUSED),
    ),
    Operation(
        method="POST",
        path="/api/v1/schedules/{scheduleId}/deactivate",
        endpoint=deactivate,
        name="deactivateSchedule",
        summary="Stop a schedule",
        tag="schedules",
        answer=ScheduleObject,
        answer_description="The schedule.",
        refusals=(_NO_SCHEDULE, _REFUSED),
    ),
    Operation(
        method="GET",
        path="/api/v1/timezones",
        endpoint=show_timezones,
        name="listTimezones",
        summary="List the time zones that a schedule can be in",
        tag="schedules",
        answer=Timezones,
        answer_description="UTC, then the others in alphabetical order.",
        parameters=(Parameter(name="excludeUtc", description="Leave out UTC", type="boolean"),),
    ),
]
