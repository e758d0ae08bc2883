"""Batches in two steps, as clients of 4.x make them: open one, then stream its items."""

from collections.abc import Sequence

from starlette.requests import Request

from runwell.core.batch_schemas import (
    AddedItemsAnswer,
    BatchOpeningBody,
    NumberedItemBody,
    OpenedBatchAnswer,
)
from runwell.core.errors import InvalidPayloadError, RequestError
from runwell.core.payloads import MAX_PAYLOAD_BYTES, MIN_STORED_BYTES, STORE_TYPE
from runwell.engine.batch_streams import (
    AddedItems,
    BatchOpening,
    NumberedItem,
    add_items,
    open_batch,
)
from runwell.engine.environments import Environment
from runwell.engine.trigger_options import TriggerRequest
from runwell.server import auth
from runwell.server.admission import admit_batch
from runwell.server.backend import Backend
from runwell.server.http import (
    MEGABYTE,
    REQUEST_KEY_HEADER,
    Answer,
    BadBodyError,
    answer,
    parse_model,
    path_text,
    read_model,
    request_key,
)
from runwell.server.large_payloads import settle_payload
from runwell.server.line_bodies import read_lines
from runwell.server.operations import Operation, Parameter

# A payload is a text within the line's JSON, which may take twice its size there.
_MAX_LINE_BYTES = 2 * MAX_PAYLOAD_BYTES + MEGABYTE
# So many items, or bytes of them, are triggered in one step.
_STEP_ITEMS, _STEP_BYTES = 100, 2 * MEGABYTE


async def open_one(request: Request, backend: Backend) -> Answer:
    """Make a batch to which items are to be sent."""
    environment = await backend.authenticate(request)
    body = await read_model(request, BatchOpeningBody)
    named = request_key(request)
    await admit_batch(
        backend,
        environment,
        max(0, body.run_count),
        request_key=named,
        idempotency_key=body.idempotency_key,
    )
    opened = await open_batch(
        backend.db,
        environment,
        BatchOpening(
            run_count=body.run_count,
            parent_run_id=body.parent_run_id,
            is_awaited=bool(body.resume_parent_on_completion),
            request_key=named,
            idempotency_key=body.idempotency_key,
        ),
        now=backend.now(),
    )
    return answer(
        OpenedBatchAnswer(
            id=opened.id,
            run_count=opened.run_count,
            is_cached=opened.is_cached,
            idempotency_key=body.idempotency_key,
        ),
        status=202,
        headers=backend.trigger_headers(auth.credential_of(request), [f"read:batch:{opened.id}"]),
    )


async def add(request: Request, backend: Backend) -> Answer:
    """Trigger the runs of items while they come in; those that are there already stay."""
    environment = await backend.authenticate(request)
    stream = _Stream(request, backend, environment)
    async for number, line in read_lines(request, limit=_MAX_LINE_BYTES):
        await stream.take(number, line)
    added = await stream.flush()
    return answer(
        AddedItemsAnswer(
            id=stream.batch_id,
            items_accepted=stream.accepted,
            items_deduplicated=stream.deduplicated,
            sealed=added.is_sealed,
            enqueued_count=added.enqueued,
            expected_count=added.expected,
        )
    )


class _Stream:
    """The items of one request, triggered in steps."""

    def __init__(self, request: Request, backend: Backend, environment: Environment) -> None:
        self._backend, self._environment = backend, environment
        self._traceparent = request.headers.get("traceparent")
        self._items: list[NumberedItem] = []
        self._bytes = 0
        self.batch_id = path_text(request, "batchId")
        self.accepted = self.deduplicated = 0

    async def take(self, number: int, line: bytes) -> None:
        """Take an item, and trigger those that are there when there are many."""
        item = _parse(number, line)
        if len(line) >= MIN_STORED_BYTES or item.options.payload_type == STORE_TYPE:
            try:
                item.payload, item.options.payload_type = await settle_payload(
                    self._backend, self._environment, item.payload, item.options.payload_type
                )
            except RequestError as error:
                raise RequestError(error.status, f"line {number}: {error}") from None
        request = TriggerRequest(task_id=item.task, body=item, traceparent=self._traceparent)
        self._items.append(NumberedItem(index=item.index, request=request))
        self._bytes += len(line)
        if len(self._items) >= _STEP_ITEMS or self._bytes >= _STEP_BYTES:
            await self.flush()

    async def flush(self) -> AddedItems:
        """Trigger what was taken; says also how far the batch is."""
        items: Sequence[NumberedItem] = self._items
        self._items, self._bytes = [], 0
        added = await add_items(
            self._backend.db, self._environment, self.batch_id, items, now=self._backend.now()
        )
        self.accepted += added.accepted
        self.deduplicated += added.deduplicated
        if added.accepted:
            self._backend.wake_dequeuers((self._environment.id,))
        return added


def _parse(number: int, line: bytes) -> NumberedItemBody:
    try:
        return parse_model(line, NumberedItemBody)
    except BadBodyError as error:
        raise BadBodyError(f"line {number}: {error}", error.details) from None
    except InvalidPayloadError as error:
        raise RequestError(400, f"line {number}: {error}") from None


operations: list[Operation] = [
    Operation(
        method="POST",
        path="/api/v3/batches",
        endpoint=open_one,
        name="openBatch",
        summary="Open a batch of up to 1,000 runs, whose items are sent then",
        tag="batches",
        body=BatchOpeningBody,
        answer=OpenedBatchAnswer,
        answer_status=202,
        answer_description="The batch; with `isCached` it has its items already.",
        parameters=(
            Parameter(
                name=REQUEST_KEY_HEADER,
                place="header",
                description="A text that is the same when this request is sent again",
            ),
        ),
        refusals=((422, "The parent has ended, or too many runs wait."),),
    ),
    Operation(
        method="POST",
        path="/api/v3/batches/{batchId}/items",
        endpoint=add,
        name="addBatchItems",
        summary="Send the items of a batch, one JSON object a line",
        tag="batches",
        body=NumberedItemBody,
        body_type="application/x-ndjson",
        answer=AddedItemsAnswer,
        answer_description="What was new; `sealed` when all items are there.",
        refusals=((404, "There is no such batch in the key's environment."),),
    ),
]
