"""Batches: trigger many runs in one request, and see whether they have ended."""

from collections.abc import AsyncGenerator
from datetime import timedelta

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import ASGIApp

from runwell.core.batch_schemas import (
    BatchAnswer,
    BatchBody,
    BatchItemBody,
    BatchItemError,
    BatchObject,
    BatchProcessing,
    BatchResults,
    BatchRunAnswer,
    TaskBatchAnswer,
    TaskBatchBody,
)
from runwell.core.errors import RequestError
from runwell.core.payloads import MIN_STORED_BYTES, STORE_TYPE, encode_json
from runwell.core.schemas import TriggerOptions
from runwell.core.scopes import Resource
from runwell.core.timing import parse_duration
from runwell.engine import results
from runwell.engine.batches import (
    Batch,
    BatchRequest,
    BatchStatus,
    TriggeredBatch,
    create_batch,
    get_batch,
    trigger_batch,
)
from runwell.engine.environments import Environment
from runwell.engine.trigger_options import DEFAULT_KEY_LIFETIME, TriggerRequest
from runwell.engine.triggering import name_item
from runwell.server import auth
from runwell.server.admission import admit_batch
from runwell.server.backend import Backend
from runwell.server.http import (
    MEGABYTE,
    REQUEST_KEY_HEADER,
    Answer,
    answer,
    key_header,
    parse_model,
    path_text,
    read_body,
    request_key,
)
from runwell.server.large_payloads import settle_payload
from runwell.server.operations import Operation, Parameter
from runwell.server.public_triggers import check_options
from runwell.server.run_objects import result_object

#: All payloads of a batch together (docs `limits.md`).
MAX_BATCH_PAYLOAD_BYTES = 5 * MEGABYTE
# Texts within JSON may take twice their size, and there are a thousand items with their options.
_MAX_BATCH_BYTES = 2 * MAX_BATCH_PAYLOAD_BYTES + 2 * MEGABYTE
KEY_CHARACTERS = 2_048
_MOST_ITEMS_OF_TASK = 100
_NO_BATCH = (404, "There is no such batch in the key's environment.")


async def trigger(request: Request, backend: Backend) -> Answer:
    """Create a batch and its runs; when this answers, they survive any crash."""
    environment = await backend.authenticate(request)
    raw = await read_body(request, limit=_MAX_BATCH_BYTES)
    body = parse_model(raw, BatchBody)
    # 3.x servers ask for any of the tasks only; whoever may trigger one may not trigger the others.
    auth.require(request, *(Resource("tasks", item.task) for item in body.items), of_all=True)
    ties = TriggerOptions.model_construct(
        parent_run_id=body.parent_run_id,
        dependent_attempt=body.dependent_attempt,
        resume_parent_on_completion=body.resume_parent_on_completion,
    )
    check_options(request, ties, *(item.options for item in body.items))
    triggered = await _trigger(request, backend, environment, body, len(raw))
    credential = auth.credential_of(request)
    return answer(
        BatchAnswer.model_construct(
            id=triggered.id,
            is_cached=triggered.is_cached,
            run_count=len(triggered.items),
            idempotency_key=triggered.idempotency_key,
            runs=[
                BatchRunAnswer.model_construct(
                    id=item.run_id,
                    task_identifier=item.task_id,
                    is_cached=item.is_cached,
                    idempotency_key=item.idempotency_key,
                )
                for item in triggered.items
            ],
        ),
        status=202,
        headers=backend.trigger_headers(credential, [f"read:batch:{triggered.id}"]),
    )


async def trigger_of_task(request: Request, backend: Backend) -> Answer:
    """Create a batch of one task, in the oldest form."""
    environment = await backend.authenticate(request)
    raw = await read_body(request, limit=_MAX_BATCH_BYTES)
    given = parse_model(raw, TaskBatchBody)
    if len(given.items) > _MOST_ITEMS_OF_TASK:
        raise RequestError(
            400,
            f"items: this form takes up to {_MOST_ITEMS_OF_TASK} items, and {len(given.items)} "
            "were given: POST /api/v1/tasks/batch takes more",
        )
    task_id: str = request.path_params["taskId"]
    for item in given.items:
        item.options.parent_attempt = item.options.parent_attempt or given.parent_attempt
    body = BatchBody.model_construct(
        items=[
            BatchItemBody.model_construct(
                task=task_id, payload=item.payload, context=item.context, options=item.options
            )
            for item in given.items
        ],
        dependent_attempt=given.dependent_attempt,
    )
    triggered = await _trigger(request, backend, environment, body, len(raw))
    return answer(
        TaskBatchAnswer(batch_id=triggered.id, runs=[item.run_id for item in triggered.items])
    )


async def _trigger(
    request: Request, backend: Backend, environment: Environment, body: BatchBody, size: int
) -> TriggeredBatch:
    if size >= MIN_STORED_BYTES:
        _check_size(body)
    named = request_key(request)
    idempotency_key = key_header(request, "idempotency-key", KEY_CHARACTERS)
    await admit_batch(
        backend,
        environment,
        len(body.items),
        request_key=named,
        idempotency_key=idempotency_key,
    )
    for index, item in enumerate(body.items):
        if size >= MIN_STORED_BYTES or item.options.payload_type == STORE_TYPE:
            await _settle(backend, environment, index, item)
    traceparent = request.headers.get("traceparent")
    for item in body.items:
        _note_parent(body, item)
    wanted = BatchRequest(
        items=[
            TriggerRequest(task_id=item.task, body=item, traceparent=traceparent)
            for item in body.items
        ],
        request_key=named,
        idempotency_key=idempotency_key,
        key_lifetime=_key_lifetime(request),
    )
    credential = auth.credential_of(request)
    if credential.one_time_hash is None:
        triggered = await trigger_batch(backend.db, environment, wanted, now=backend.now())
    else:
        triggered = await backend.use_once(
            credential,
            named,
            lambda tx: create_batch(tx, environment, wanted, now=backend.now()),
        )
    if not triggered.is_cached:
        backend.wake_dequeuers((environment.id,))
    return triggered


def _note_parent(body: BatchBody, item: BatchItemBody) -> None:
    options = item.options
    options.parent_run_id = options.parent_run_id or body.parent_run_id
    options.dependent_attempt = options.dependent_attempt or body.dependent_attempt
    if body.resume_parent_on_completion:
        options.resume_parent_on_completion = True


async def retrieve(request: Request, backend: Backend) -> Answer:
    """Show a batch with the ids of its runs."""
    batch = await _get(request, backend)
    # All that clients of 3.x know.
    is_open = batch.status in ("PENDING", "PROCESSING")
    return answer(_batch_object(batch, "PENDING" if is_open else "COMPLETED"))


async def retrieve_for_4x(request: Request, backend: Backend) -> Answer:
    """Show a batch as 4.x clients want it."""
    batch = await _get(request, backend)
    found = _batch_object(batch, batch.status)
    found.processing = BatchProcessing(
        completed_at=batch.sealed_at,
        errors=[
            BatchItemError(
                index=failure.index,
                task_identifier=failure.task_id,
                error=failure.message,
                error_code=str(failure.status),
            )
            for failure in batch.failures
        ],
    )
    return answer(found)


async def list_results(request: Request, backend: Backend) -> ASGIApp:
    """Show what the runs of a batch came to, read and sent some at a time."""
    environment = await backend.authenticate(request)
    batch_id = path_text(request, "batchId")

    async def read(after: int) -> list[results.RunResult]:
        async with backend.db.transaction() as tx:
            return await results.list_results(tx, environment, batch_id, after=after)

    async def send(page: list[results.RunResult]) -> AsyncGenerator[bytes]:
        yield f'{{"id":"{batch_id}","items":['.encode()
        between = b""
        while page:
            for found in page:
                yield between + to_json(result_object(found), by_alias=True, exclude_none=True)
                between = b","
            page = await read(page[-1].index)
        yield b"]}"

    # The first page before the answer begins: from then on an error can't be told.
    return StreamingResponse(send(await read(-1)), media_type="application/json")


async def _get(request: Request, backend: Backend) -> Batch:
    environment = await backend.authenticate(request)
    async with backend.db.transaction() as tx:
        return await get_batch(tx, environment, path_text(request, "batchId"))


def _batch_object(batch: Batch, status: BatchStatus) -> BatchObject:
    return BatchObject(
        id=batch.id,
        status=status,
        run_count=batch.run_count,
        idempotency_key=batch.idempotency_key,
        created_at=batch.created_at,
        updated_at=batch.updated_at,
        runs=[item.run_id for item in batch.items],
    )


def _check_size(body: BatchBody) -> None:
    total = sum(
        len((item.payload if isinstance(item.payload, str) else encode_json(item.payload)).encode())
        for item in body.items
    )
    if total > MAX_BATCH_PAYLOAD_BYTES:
        raise RequestError(
            413,
            f"the payloads of this batch are {total:,} bytes together, and at most "
            f"{MAX_BATCH_PAYLOAD_BYTES:,} are accepted: make several batches of it",
        )


async def _settle(
    backend: Backend, environment: Environment, index: int, item: BatchItemBody
) -> None:
    try:
        item.payload, item.options.payload_type = await settle_payload(
            backend, environment, item.payload, item.options.payload_type
        )
    except RequestError as error:
        raise RequestError(error.status, name_item(index, str(error))) from None


def _key_lifetime(request: Request) -> timedelta:
    ttl = request.headers.get("idempotency-key-ttl")
    if ttl is None:
        return DEFAULT_KEY_LIFETIME
    try:
        return parse_duration(ttl)
    except ValueError as error:
        raise RequestError(400, f"the header idempotency-key-ttl: {error}") from None


_TRIGGER_PARAMETERS = (
    Parameter(
        name="idempotency-key",
        place="header",
        description="One batch of the environment for this key",
    ),
    Parameter(
        name="idempotency-key-ttl",
        place="header",
        description="How long that key holds: a duration, 30 days without",
    ),
    Parameter(
        name=REQUEST_KEY_HEADER,
        place="header",
        description="A text that is the same when this request is sent again",
    ),
)

operations: list[Operation] = [
    Operation(
        method="POST",
        path=path,
        endpoint=trigger,
        name=name,
        summary=summary,
        tag="batches",
        body=BatchBody,
        answer=BatchAnswer,
        answer_status=202,
        answer_description="The batch: a new one, or the one that had the idempotency key.",
        parameters=_TRIGGER_PARAMETERS,
        refusals=((422, "An item can't be honoured; nothing was triggered."),),
    )
    for path, name, summary in (
        ("/api/v1/tasks/batch", "triggerBatch", "Trigger up to 1,000 runs, all or none"),
        ("/api/v2/tasks/batch", "triggerBatch4x", "The same for clients of 4.x"),
    )
]
operations += [
    Operation(
        method="POST",
        path="/api/v1/tasks/{taskId:path}/batch",
        endpoint=trigger_of_task,
        name="triggerTaskBatch",
        summary="Trigger up to 100 runs of one task, all or none; the oldest form",
        tag="batches",
        body=TaskBatchBody,
        answer=TaskBatchAnswer,
        answer_description="The batch and its runs.",
        parameters=_TRIGGER_PARAMETERS,
        refusals=((422, "An item can't be honoured; nothing was triggered."),),
    ),
    Operation(
        method="GET",
        path="/api/v1/batches/{batchId}/results",
        endpoint=list_results,
        name="listBatchResults",
        summary="What the runs of a batch came to",
        tag="batches",
        answer=BatchResults,
        answer_description="The results of the runs that have ended, in the order of their items.",
        refusals=(_NO_BATCH,),
    ),
    Operation(
        method="GET",
        path="/api/v1/batches/{batchId}",
        endpoint=retrieve,
        name="retrieveBatch",
        summary="Retrieve a batch",
        tag="batches",
        answer=BatchObject,
        answer_description="The batch; it is completed when all of its runs have ended.",
        refusals=(_NO_BATCH,),
    ),
    Operation(
        method="GET",
        path="/api/v2/batches/{batchId}",
        endpoint=retrieve_for_4x,
        name="retrieveBatch4x",
        summary="Retrieve a batch, for clients of 4.x",
        tag="batches",
        answer=BatchObject,
        answer_description="The batch, with how its making went.",
        refusals=(_NO_BATCH,),
    ),
]
