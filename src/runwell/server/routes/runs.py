"""Runs: trigger, retrieve, list, cancel, and their captured lines."""

from starlette.requests import Request

from runwell.core.batch_schemas import RunResultObject
from runwell.core.errors import RequestError
from runwell.core.payloads import MAX_PAYLOAD_BYTES, MIN_STORED_BYTES, STORE_TYPE
from runwell.core.schemas import (
    CanceledRun,
    LogPage,
    Pagination,
    RunList,
    RunObject,
    TriggerAnswer,
    TriggerBody,
)
from runwell.core.scopes import Resource
from runwell.engine import canceling, explanations, logs, pending_triggers, results, runs
from runwell.engine.environments import Environment
from runwell.engine.trigger_options import TriggerRequest
from runwell.engine.triggering import create_run, trigger_run
from runwell.server import auth, run_filters
from runwell.server.admission import admit_run
from runwell.server.allowed_runs import get_allowed_run
from runwell.server.backend import Backend
from runwell.server.http import (
    MEGABYTE,
    REQUEST_KEY_HEADER,
    Answer,
    answer,
    integer_parameter,
    parse_model,
    path_text,
    read_body,
    request_key,
)
from runwell.server.large_payloads import settle_payload
from runwell.server.operations import Operation, Parameter
from runwell.server.public_triggers import check_options
from runwell.server.run_objects import is_4x, result_object, run_list_item, run_object

#: A payload is a text within the body's JSON, which may take twice its size there.
MAX_TRIGGER_BYTES = 2 * MAX_PAYLOAD_BYTES + MEGABYTE
_DEFAULT_LINES = 500
_KEY_CHARACTERS = 2_048
_NO_RUN = (404, "There is no such run in the key's environment.")


async def trigger(request: Request, backend: Backend) -> Answer:
    """Create a run; when this answers, it survives any crash."""
    environment = await backend.authenticate(request)
    raw = await read_body(request, limit=MAX_TRIGGER_BYTES)
    body = parse_model(raw, TriggerBody)
    headers, options = request.headers, body.options
    check_options(request, options)
    _apply_headers(body, headers.get("idempotency-key"), headers.get("idempotency-key-ttl"))
    task_id: str = request.path_params["taskId"]
    named = request_key(request)
    await admit_run(
        backend,
        environment,
        task_id,
        request_key=named,
        idempotency_key=options.idempotency_key,
    )
    if len(raw) >= MIN_STORED_BYTES or options.payload_type == STORE_TYPE:
        body.payload, options.payload_type = await settle_payload(
            backend, environment, body.payload, options.payload_type
        )
    wanted = TriggerRequest(
        task_id=task_id,
        body=body,
        request_key=named,
        traceparent=headers.get("traceparent"),
    )
    credential = auth.credential_of(request)
    if credential.one_time_hash is None:
        triggered = await trigger_run(backend.db, environment, wanted, now=backend.now())
    else:
        triggered = await backend.use_once(
            credential,
            named,
            lambda tx: create_run(tx, environment, wanted, now=backend.now()),
        )
    if not triggered.is_cached:
        backend.wake_dequeuers((environment.id,))
    return answer(
        TriggerAnswer.model_construct(id=triggered.run_id, is_cached=triggered.is_cached),
        headers=backend.trigger_headers(credential, [f"read:runs:{triggered.run_id}"]),
    )


async def retrieve(request: Request, backend: Backend) -> Answer:
    """Show a run with its attempts and relatives."""
    environment = await backend.authenticate(request)
    try:
        return await _retrieve(request, backend, environment)
    except RequestError as error:
        if error.status != 404:
            raise
        # One that an application's transaction has committed just now is made at once.
        run_id = path_text(request, "runId")
        made = await pending_triggers.settle_run(backend.db, environment, run_id, now=backend.now())
        if not made:
            raise
    backend.wake_dequeuers(tuple(made))
    return await _retrieve(request, backend, environment)


async def _retrieve(request: Request, backend: Backend, environment: Environment) -> Answer:
    # No transaction: it would show no other state, and cost two more round trips.
    async with backend.db.connection() as tx:
        run = await get_allowed_run(request, tx, environment, path_text(request, "runId"))
        why = await explanations.explain_run(tx, environment, run, now=backend.now())
    return answer(
        run_object(
            run,
            is_4x=is_4x(request),
            explanation=why,
            download_url=lambda path: backend.download_url(request, environment, path),
        )
    )


async def retrieve_result(request: Request, backend: Backend) -> Answer:
    """Show what a run came to; 404 until it has ended."""
    environment = await backend.authenticate(request)
    async with backend.db.connection() as tx:
        found = await results.get_result(tx, environment, path_text(request, "runId"))
    return answer(result_object(found))


async def list_runs(request: Request, backend: Backend) -> Answer:
    """List runs, newest first."""
    environment = await backend.authenticate(request)
    query = request.query_params
    filters = run_filters.read_filters(query, now=backend.now())
    # Of several tasks each must be allowed: runs of all of them are shown.
    tasks = [Resource("tasks", task_id) for task_id in filters.task_ids or ()]
    auth.require(request, *tasks or (Resource("tasks"),), of_all=True)
    page = run_filters.read_page(query)
    async with backend.db.transaction() as tx:
        found = await runs.list_runs(tx, environment, filters, page)
    items = [run_list_item(run, environment, is_4x=is_4x(request)) for run in found.runs]
    pagination = Pagination(next=found.next, previous=found.previous)
    return answer(RunList.model_construct(data=items, pagination=pagination))


async def cancel(request: Request, backend: Backend) -> Answer:
    """Cancel a run and what it has triggered; one that has ended stays as it is."""
    environment = await backend.authenticate(request)
    run_id = path_text(request, "runId")
    now = backend.now()
    canceled = await canceling.cancel_run(backend.db, environment, run_id, now=now)
    # The first of its children too; a loop goes on with the rest.
    children = await canceling.cancel_descendants(backend.db, now=now)
    backend.wake_waiting()
    backend.wake_stopping(canceled, *children)
    return answer(CanceledRun(id=canceled.run_id))


async def read_log(request: Request, backend: Backend) -> Answer:
    """Show what a run's attempts wrote, from a cursor on."""
    environment = await backend.authenticate(request)
    run_id = path_text(request, "runId")
    limit = integer_parameter(request, "limit", default=_DEFAULT_LINES, least=1, most=logs.MAX_PAGE)
    after = request.query_params.get("after") or None
    async with backend.db.transaction() as tx:
        page = await runs.read_logs(tx, environment, run_id, after=after, limit=limit)
    return answer(page)


def _apply_headers(body: TriggerBody, key: str | None, ttl: str | None) -> None:
    if key is not None:
        if not 1 <= len(key) <= _KEY_CHARACTERS:
            raise RequestError(
                400, f"the header idempotency-key must have 1 to {_KEY_CHARACTERS} characters"
            )
        body.options.idempotency_key = key
    if ttl is not None:
        body.options.idempotency_key_ttl = ttl


operations: list[Operation] = [
    Operation(
        method="POST",
        path="/api/v1/tasks/{taskId:path}/trigger",
        endpoint=trigger,
        name="triggerTask",
        summary="Trigger a run of a task",
        tag="runs",
        body=TriggerBody,
        answer=TriggerAnswer,
        answer_description="The run: a new one, or the one that had the idempotency key.",
        parameters=(
            Parameter(
                name="idempotency-key",
                place="header",
                description="Wins over `options.idempotencyKey`",
            ),
            Parameter(
                name="idempotency-key-ttl",
                place="header",
                description="Wins over `options.idempotencyKeyTTL`",
            ),
            Parameter(
                name=REQUEST_KEY_HEADER,
                place="header",
                description=(
                    "A text that is the same when this request is sent again; a UUID version 7 "
                    "costs least"
                ),
            ),
        ),
        refusals=((422, "An option can't be honoured, or a limit is exceeded."),),
    ),
    Operation(
        method="GET",
        path="/api/v3/runs/{runId}",
        endpoint=retrieve,
        name="retrieveRun",
        summary="Retrieve a run",
        tag="runs",
        answer=RunObject,
        answer_description="The run. With `x-trigger-api-version` the statuses have 4.x names.",
        parameters=(
            Parameter(
                name="x-trigger-api-version",
                place="header",
                description="Sent by 4.x clients: status names of that generation",
            ),
        ),
        refusals=(_NO_RUN,),
    ),
    Operation(
        method="GET",
        path="/api/v1/runs/{runId}/result",
        endpoint=retrieve_result,
        name="retrieveRunResult",
        summary="What a run came to",
        tag="runs",
        answer=RunResultObject,
        answer_description="The output or the error.",
        refusals=((404, "There is no such run in the key's environment, or it has not ended."),),
    ),
    Operation(
        method="GET",
        path="/api/v1/runs",
        endpoint=list_runs,
        name="listRuns",
        summary="List runs, newest first",
        tag="runs",
        answer=RunList,
        answer_description="A page of runs.",
        parameters=run_filters.PARAMETERS,
    ),
    Operation(
        method="POST",
        path="/api/v2/runs/{runId}/cancel",
        endpoint=cancel,
        name="cancelRun",
        summary="Cancel a run",
        tag="runs",
        answer=CanceledRun,
        answer_description="Canceled, or ended before.",
        refusals=(_NO_RUN,),
    ),
    Operation(
        method="GET",
        path="/api/v1/runs/{runId}/logs",
        endpoint=read_log,
        name="readRunLog",
        summary="Read the captured lines of a run",
        tag="runs",
        answer=LogPage,
        answer_description="Lines in their order, with the cursor to read on from.",
        parameters=(
            Parameter(name="after", description="The `next` of a page"),
            Parameter(name="limit", description=f"1 to {logs.MAX_PAGE} lines", type="integer"),
        ),
        refusals=(_NO_RUN,),
    ),
]
