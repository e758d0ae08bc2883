"""Batches as the API takes them: items with their options, and what comes back."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypedDict, TypeVar, cast
from urllib.parse import quote

from runwell.client.api import ApiClient, parse_answer
from runwell.client.public_tokens import token_of_answer
from runwell.client.runs import RunHandle
from runwell.client.transport import Call, Flow, RequestOptions, json_body
from runwell.client.triggering import (
    TriggerOptions,
    check_names,
    read_key,
    read_key_ttl,
    trigger_body,
)
from runwell.core.batch_schemas import BatchAnswer, BatchObject
from runwell.core.errors import InvalidPayloadError, TaskPayloadParsedError
from runwell.core.ids import make_request_key
from runwell.core.payloads import MAX_PAYLOAD_BYTES, Json, encode_value
from runwell.core.timing import Duration

T = TypeVar("T")
PayloadT_co = TypeVar("PayloadT_co", covariant=True)
OutputT_co = TypeVar("OutputT_co", covariant=True)

MAX_ITEMS: Final = 1_000


class BatchOptions(TypedDict, total=False):
    """What every batch function takes by name, for the batch as a whole.

    With an `idempotency_key` there is one batch of the environment while `idempotency_key_ttl`
    lasts (30 days); the items may have keys of their own besides.
    """

    idempotency_key: str | Sequence[str] | None
    idempotency_key_ttl: Duration | None
    request_options: RequestOptions | None


# No slots: `BatchHandle[int](...)` sets an attribute, which a frozen class with slots can't take.
@dataclass(frozen=True)
class BatchHandle(Generic[OutputT_co]):
    """A batch that was triggered; `runs` are in the order of the items.

    `is_cached`: the batch was there before, with the same idempotency key. `public_access_token`
    lets a browser read the batch, for an hour.

    Example:
        >>> from runwell import BatchHandle, runs
        >>> async def wait_for_all(handle: BatchHandle[str]) -> list[str | None]:
        ...     return [(await runs.poll(run)).output for run in handle.runs]
    """

    batch_id: str
    runs: Sequence[RunHandle[OutputT_co]]
    public_access_token: str | None = field(default=None, repr=False, compare=False)
    is_cached: bool = False
    idempotency_key: str | None = None


class BatchItem(Generic[PayloadT_co]):
    """A payload with options of its own; `item` makes one."""

    __slots__ = ("options", "payload")

    def __init__(self, payload: PayloadT_co, options: TriggerOptions) -> None:
        self.payload = payload
        self.options = options


@dataclass(frozen=True, kw_only=True)
class BatchEntry:
    """One item as it is sent: its task's id, its payload as JSON text, its options."""

    task_id: str
    payload: str | None
    options: TriggerOptions = field(default_factory=TriggerOptions)
    parse_output: Callable[[Json], object] | None = None


def entry_of_id(task_id: str, given: object) -> BatchEntry:
    """An item of a task that is known by its id only."""
    payload, options = split_item(given)
    text = None
    if payload is not None:
        text = encode_value(payload, what="the payload", limit=MAX_PAYLOAD_BYTES)
    return BatchEntry(task_id=task_id, payload=text, options=options)


def read_entries(items: Iterable[T], read: Callable[[T], BatchEntry]) -> list[BatchEntry]:
    """Every item as it is sent; an error about one names its place."""
    entries: list[BatchEntry] = []
    for index, given in enumerate(items):
        try:
            entries.append(read(given))
        except (InvalidPayloadError, TaskPayloadParsedError, TypeError, ValueError) as error:
            raise type(error)(f"item {index}: {error}") from None
    return entries


def batch_flow(
    client: ApiClient,
    entries: Sequence[BatchEntry],
    options: BatchOptions,
    *,
    is_awaited: bool = False,
) -> Flow[BatchHandle[object]]:
    """Trigger a batch; the same request sent again is the same batch. The current run may wait."""
    for name in options:
        if name not in BatchOptions.__annotations__:
            _refuse_option(name)
    if not 1 <= len(entries) <= MAX_ITEMS:
        raise ValueError(f"a batch takes 1 to {MAX_ITEMS:,} items, and {len(entries):,} were given")
    settings = client.settings
    items: list[dict[str, object]] = []
    for index, entry in enumerate(entries):
        try:
            body = trigger_body(entry.payload, entry.options, settings, is_awaited=is_awaited)
        except (TypeError, ValueError) as error:
            raise type(error)(f"item {index}: {error}") from None
        items.append({"task": entry.task_id, **body})
    headers = {"x-trigger-request-idempotency-key": make_request_key()}
    key, ttl = options.get("idempotency_key"), options.get("idempotency_key_ttl")
    if key is not None:
        headers["idempotency-key"] = read_key(key)
    if ttl is not None:
        headers["idempotency-key-ttl"] = read_key_ttl(ttl)
    call = Call(
        method="POST",
        path="/api/v1/tasks/batch",
        body=json_body({"items": items}),
        headers=headers,
        options=options.get("request_options"),
    )
    response = yield from client.request(call)
    answer = parse_answer(call, response, BatchAnswer)
    runs = [
        RunHandle(
            run.id,
            is_cached=run.is_cached,
            # A batch that was there already may have had other items.
            parse_output=entry.parse_output if entry.task_id == run.task_identifier else None,
        )
        for entry, run in zip(entries, answer.runs, strict=False)
    ]
    runs += [RunHandle(run.id, is_cached=run.is_cached) for run in answer.runs[len(runs) :]]
    return BatchHandle(
        answer.id,
        runs,
        token_of_answer(response, settings, call.options, f"read:batch:{answer.id}"),
        is_cached=answer.is_cached,
        idempotency_key=answer.idempotency_key,
    )


def retrieve_flow(
    client: ApiClient, batch: "str | BatchHandle[object]", options: RequestOptions | None
) -> Flow[BatchObject]:
    """Fetch a batch."""
    batch_id: object = batch if isinstance(batch, str) else getattr(batch, "batch_id", None)
    if not isinstance(batch_id, str) or not batch_id.strip("."):
        raise ValueError(f"{batch!r} names no batch: give its id ('batch_...'), or its handle")
    path = f"/api/v1/batches/{quote(batch_id, safe='')}"
    return client.ask(Call(method="GET", path=path, options=options), BatchObject)


def split_item(given: object) -> tuple[object, TriggerOptions]:
    """The payload and the options of what was given as an item."""
    if isinstance(given, BatchItem):
        found = cast("BatchItem[object]", given)
        return found.payload, found.options
    return given, {}


def _refuse_option(name: str) -> None:
    if name in TriggerOptions.__annotations__:
        raise TypeError(f"'{name}' is an option of an item: item(payload, {name}=...)")
    check_names({name: None})
