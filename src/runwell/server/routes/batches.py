"""Batches: trigger many runs in one request, and see whether they have ended."""

from datetime import timedelta

from starlette.requests import Request

from runwell.core.errors import RequestError
from runwell.core.payloads import MIN_STORED_BYTES, STORE_TYPE, check_text, encode_json
from runwell.core.schemas import (
    BatchAnswer,
    BatchBody,
    BatchItemBody,
    BatchObject,
    BatchProcessing,
    BatchRunAnswer,
)
from runwell.core.scopes import Resource
from runwell.core.timing import parse_duration
from runwell.engine.batches import Batch, BatchRequest, create_batch, get_batch, trigger_batch
from runwell.engine.environments import Environment
from runwell.engine.trigger_options import DEFAULT_KEY_LIFETIME, TriggerRequest
from runwell.engine.triggering import name_item
from runwell.server import auth
from runwell.server.admission import admit_batch
from runwell.server.backend import Backend
from runwell.server.http import MEGABYTE, Answer, answer, parse_model, path_text, read_body
from runwell.server.large_payloads import settle_payload
from runwell.server.operations import Operation, Parameter

#: All payloads of a batch together (docs `limits.md`).
MAX_BATCH_PAYLOAD_BYTES = 5 * MEGABYTE
# Texts within JSON may take twice their size, and there are a thousand items with their options.
_MAX_BATCH_BYTES = 2 * MAX_BATCH_PAYLOAD_BYTES + 2 * MEGABYTE
_KEY_CHARACTERS = 2_048
_REQUEST_KEY_CHARACTERS = 256
_NO_BATCH = (404, "There is no such batch in the key's environment.")


async def trigger(request: Request, backend: Backend) -> Answer:
    """Create a batch and its runs; when this answers, they survive any crash."""
    environment = await backend.authenticate(request)
    raw = await read_body(request, limit=_MAX_BATCH_BYTES)
    body = parse_model(raw, BatchBody)
    # 3.x servers ask for any of the tasks only; whoever may trigger one may not trigger the others.
    auth.require(request, *(Resource("tasks", item.task) for item in body.items), of_all=True)
    _refuse_waiting(body)
    if len(raw) >= MIN_STORED_BYTES:
        _check_size(body)
    request_key = _key(request, "x-trigger-request-idempotency-key", _REQUEST_KEY_CHARACTERS)
    idempotency_key = _key(request, "idempotency-key", _KEY_CHARACTERS)
    await admit_batch(
        backend,
        environment,
        len(body.items),
        request_key=request_key,
        idempotency_key=idempotency_key,
    )
    for index, item in enumerate(body.items):
        if len(raw) >= MIN_STORED_BYTES or item.options.payload_type == STORE_TYPE:
            await _settle(backend, environment, index, item)
    headers = request.headers
    traceparent = headers.get("traceparent")
    if body.parent_run_id is not None:
        for item in body.items:
            item.options.parent_run_id = item.options.parent_run_id or body.parent_run_id
    wanted = BatchRequest(
        items=[
            TriggerRequest(task_id=item.task, body=item, traceparent=traceparent)
            for item in body.items
        ],
        request_key=request_key,
        idempotency_key=idempotency_key,
        key_lifetime=_key_lifetime(request),
    )
    credential = auth.credential_of(request)
    if credential.one_time_hash is None:
        triggered = await trigger_batch(backend.db, environment, wanted, now=backend.now())
    else:
        triggered = await backend.use_once(
            credential,
            request_key,
            lambda tx: create_batch(tx, environment, wanted, now=backend.now()),
        )
    if not triggered.is_cached:
        backend.wake_dequeuers((environment.id,))
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


async def retrieve(request: Request, backend: Backend) -> Answer:
    """Show a batch with the ids of its runs."""
    return answer(_batch_object(await _get(request, backend)))


async def retrieve_for_4x(request: Request, backend: Backend) -> Answer:
    """Show a batch as 4.x clients want it."""
    batch = await _get(request, backend)
    found = _batch_object(batch)
    found.processing = BatchProcessing(completed_at=batch.created_at)
    return answer(found)


async def _get(request: Request, backend: Backend) -> Batch:
    environment = await backend.authenticate(request)
    async with backend.db.transaction() as tx:
        return await get_batch(tx, environment, path_text(request, "batchId"))


def _batch_object(batch: Batch) -> BatchObject:
    return BatchObject(
        id=batch.id,
        status=batch.status,
        run_count=batch.run_count,
        idempotency_key=batch.idempotency_key,
        created_at=batch.created_at,
        updated_at=batch.updated_at,
        runs=[item.run_id for item in batch.items],
    )


def _refuse_waiting(body: BatchBody) -> None:
    if body.dependent_attempt or body.resume_parent_on_completion:
        raise RequestError(422, "waiting for a batch can't be honoured: it isn't built yet")


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


def _key(request: Request, header: str, most: int) -> str | None:
    key = request.headers.get(header)
    if key is None:
        return None
    if not 1 <= len(key) <= most:
        raise RequestError(400, f"the header {header} must have 1 to {most:,} characters")
    check_text(key, what=f"the header {header}")
    return key


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
        name="x-trigger-request-idempotency-key",
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
