"""Bulk actions: begin, count before that, retrieve, list, abort."""

from starlette.requests import Request

from runwell.core.bulk_schemas import (
    BulkActionBody,
    BulkActionList,
    BulkActionObject,
    BulkFailure,
    RunCount,
)
from runwell.core.errors import RequestError
from runwell.core.payloads import Json, encode_json
from runwell.engine import bulk_actions
from runwell.engine.bulk_actions import BulkAct, BulkAction, Selection
from runwell.engine.environments import Environment
from runwell.engine.runs import RunFilters
from runwell.server import run_filters
from runwell.server.backend import Backend
from runwell.server.http import (
    REQUEST_KEY_HEADER,
    Answer,
    answer,
    path_text,
    read_model,
    request_key,
)
from runwell.server.operations import Operation, Parameter

_NO_ACTION = (404, "There is no such bulk action in the key's environment.")
_NO_RUNS = (404, "An id names no run in the key's environment.")
_REQUEST_KEY = Parameter(
    name=REQUEST_KEY_HEADER,
    place="header",
    description="A text that is the same when this request is sent again",
)


async def create(request: Request, backend: Backend) -> Answer:
    """Begin a bulk action."""
    environment = await backend.authenticate(request)
    body = await read_model(request, BulkActionBody)
    selection = _selection(body, backend)
    if _act(body) is BulkAct.REPLAY:
        await _check_room(backend, environment, selection)
    made = await bulk_actions.create_bulk_action(
        backend.db,
        environment,
        _act(body),
        selection,
        request_key=request_key(request),
        now=backend.now(),
    )
    backend.note_bulk_action()
    return answer(_object(made))


async def count(request: Request, backend: Backend) -> Answer:
    """Count the runs that a bulk action would be about."""
    environment = await backend.authenticate(request)
    body = await read_model(request, BulkActionBody)
    async with backend.db.transaction() as tx:
        number = await bulk_actions.count_runs(
            tx, environment, _act(body), _selection(body, backend), now=backend.now()
        )
    return answer(RunCount(count=number))


async def retrieve(request: Request, backend: Backend) -> Answer:
    """Show how far a bulk action is."""
    environment = await backend.authenticate(request)
    async with backend.db.transaction() as tx:
        found = await bulk_actions.get_bulk_action(
            tx, environment, path_text(request, "bulkActionId")
        )
    return answer(_object(found))


async def list_all(request: Request, backend: Backend) -> Answer:
    """List the newest bulk actions."""
    environment = await backend.authenticate(request)
    async with backend.db.connection() as tx:
        found = await bulk_actions.list_bulk_actions(tx, environment)
    return answer(BulkActionList(data=[_object(one) for one in found]))


async def abort(request: Request, backend: Backend) -> Answer:
    """Leave alone the runs that a bulk action hasn't come to yet."""
    environment = await backend.authenticate(request)
    found = await bulk_actions.abort_bulk_action(
        backend.db, environment, path_text(request, "bulkActionId"), now=backend.now()
    )
    return answer(_object(found))


async def _check_room(backend: Backend, environment: Environment, selection: Selection) -> None:
    """Refuse what would make more runs wait than may."""
    async with backend.db.transaction() as tx:
        number = await bulk_actions.count_runs(
            tx, environment, BulkAct.REPLAY, selection, now=backend.now()
        )
    if number and not backend.backlogs.has_room(environment, number):
        raise backend.backlogs.refusal(environment, number)


def _act(body: BulkActionBody) -> BulkAct:
    return BulkAct.CANCEL if body.action == "cancel" else BulkAct.REPLAY


def _selection(body: BulkActionBody, backend: Backend) -> Selection:
    if (body.run_ids is None) == (body.filter is None):
        raise RequestError(
            400, "name the runs either by runIds or by filter (which is {} for all runs)"
        )
    if body.filter is None:
        ids = sorted(set(body.run_ids or ()))
        return Selection(filters=RunFilters(), run_ids=ids)
    filters = run_filters.read_filters(_flatten(body.filter), now=backend.now())
    return Selection(filters=filters)


def _flatten(given: dict[str, Json]) -> dict[str, str]:
    """The filters as the list has them in its query."""
    flat: dict[str, str] = {}
    for name, value in given.items():
        if name == "createdAt" and isinstance(value, dict):
            flat |= {f"filter[createdAt][{part}]": _text(one) for part, one in value.items()}
        elif value is not None:
            flat[f"filter[{name}]"] = _text(value)
    return flat


def _text(value: Json) -> str:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case list():
            return ",".join(_text(one) for one in value)
        case _:
            return encode_json(value)


def _object(found: BulkAction) -> BulkActionObject:
    return BulkActionObject.model_construct(
        id=found.id,
        action=found.action.value.lower(),
        status=found.status,
        total=found.total,
        succeeded=found.succeeded,
        skipped=found.skipped,
        failed=found.failed,
        created_at=found.created_at,
        completed_at=found.completed_at,
        failures=[BulkFailure(run_id=run_id, error=error) for run_id, error in found.failures],
    )


operations: list[Operation] = [
    Operation(
        method="POST",
        path="/api/v1/bulk-actions",
        endpoint=create,
        name="createBulkAction",
        summary="Cancel or replay many runs",
        tag="bulk actions",
        body=BulkActionBody,
        answer=BulkActionObject,
        answer_description="The bulk action, which goes on by itself.",
        parameters=(_REQUEST_KEY,),
        refusals=(_NO_RUNS, (422, "More runs would wait than may.")),
    ),
    Operation(
        method="GET",
        path="/api/v1/bulk-actions",
        endpoint=list_all,
        name="listBulkActions",
        summary="List bulk actions, newest first",
        tag="bulk actions",
        answer=BulkActionList,
        answer_description="The newest hundred.",
    ),
    Operation(
        method="POST",
        path="/api/v1/bulk-actions/count",
        endpoint=count,
        name="countBulkAction",
        summary="Count the runs that a bulk action would be about",
        tag="bulk actions",
        body=BulkActionBody,
        answer=RunCount,
        answer_description="How many there are now.",
        refusals=(_NO_RUNS,),
    ),
    Operation(
        method="GET",
        path="/api/v1/bulk-actions/{bulkActionId}",
        endpoint=retrieve,
        name="retrieveBulkAction",
        summary="Retrieve a bulk action",
        tag="bulk actions",
        answer=BulkActionObject,
        answer_description="How far it is.",
        refusals=(_NO_ACTION,),
    ),
    Operation(
        method="POST",
        path="/api/v1/bulk-actions/{bulkActionId}/abort",
        endpoint=abort,
        name="abortBulkAction",
        summary="Abort a bulk action",
        tag="bulk actions",
        answer=BulkActionObject,
        answer_description="How far it got.",
        refusals=(_NO_ACTION,),
    ),
]
