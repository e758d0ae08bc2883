"""Subscriptions: runs as they change, without a loss or a repeat whatever happens to the network.

Each step is one long request (`protocol.md` 5), so blocking and async callers share all rules. A
server that is away is asked again until it is back; what it refuses is raised.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Generic, Protocol, TypeVar, cast, overload
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from runwell.client.api import ApiClient
from runwell.client.options import Retry
from runwell.client.packets import fetch_flow
from runwell.client.run_handles import RunHandle, RunReference, path_id
from runwell.client.streams import StreamReader
from runwell.client.transport import (
    ApiConnectionError,
    Call,
    ConflictError,
    Flow,
    InternalServerError,
    Pause,
    RateLimitError,
    RequestOptions,
    Response,
    answer_error,
)
from runwell.core.errors import InvalidPayloadError, TaskRunError, serialize_error
from runwell.core.payloads import JSON_TYPE, STORE_TYPE, Json, decode_packet
from runwell.core.schemas import RunError, RunSummary
from runwell.core.shapes import read_array, read_stored_status
from runwell.core.statuses import FINAL_RUN_STATUSES, RunStatus, api_status

OutputT = TypeVar("OutputT")

# A live request is held for 20 seconds; the connection is given up well after that.
_OPTIONS: Final = RequestOptions(retry=Retry(max_attempts=1), timeout=60)
_FIRST_PAUSE_SECONDS, _PAUSE_FACTOR, _LONGEST_PAUSE_SECONDS = 0.1, 1.3, 10.0

_Row = dict[str, str | None]
_messages: TypeAdapter[list[dict[str, object]]] = TypeAdapter(list[dict[str, object]])
_error: TypeAdapter[TaskRunError] = TypeAdapter(TaskRunError)
_metadata: TypeAdapter[dict[str, Json]] = TypeAdapter(dict[str, Json])


class _HasBatchId(Protocol):
    @property
    def batch_id(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class LiveRun(Generic[OutputT]):
    """A run as it was when it last changed (docs `realtime/overview.md`).

    `number` is its place in the batch that is followed, from 1 on, and 0 elsewhere; `duration_ms`
    is in milliseconds. `output` is there once the run has completed.

    Example:
        >>> from runwell import LiveRun
        >>> def show(run: LiveRun) -> str:
        ...     return f"{run.id} is {run.status}"
    """

    id: str
    task_identifier: str
    status: str
    number: int
    payload: Json
    output: OutputT | None
    metadata: dict[str, Json] | None
    tags: list[str]
    error: RunError | None
    is_test: bool
    idempotency_key: str | None
    ttl: str | None
    duration_ms: int
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    queued_at: datetime | None
    delayed_until: datetime | None
    expired_at: datetime | None
    finished_at: datetime | None

    @property
    def is_completed(self) -> bool:
        """Whether the run has ended, in whatever way."""
        return self.status in {api_status(status) for status in FINAL_RUN_STATUSES}

    @property
    def is_success(self) -> bool:
        """Whether the task has returned."""
        return self.status == RunStatus.COMPLETED


class RunSubscription(Generic[OutputT]):
    """Runs as they change: `async for` over it, or `for` with `runwell.sync`.

    The first ones are the runs as they are. A subscription to one run ends with the run; leave the
    loop to end another one. Each loop begins anew. Raises ApiError for what the server refuses.

    Example:
        >>> from runwell import runs
        >>> async def follow(run_id: str) -> None:
        ...     async for run in runs.subscribe_to_run(run_id):
        ...         print(run.status, run.metadata)
    """

    def __init__(
        self,
        client: ApiClient,
        path: str,
        query: dict[str, str],
        *,
        ends: bool,
        parse_output: Callable[[Json], OutputT] | None = None,
    ) -> None:
        """Use `runs.subscribe_to_run` and its like."""
        self._client = client
        self._path = path
        self._query = query
        self._ends = ends
        self._parse_output = parse_output

    async def __aiter__(self) -> AsyncIterator[LiveRun[OutputT]]:
        """Follow without blocking the event loop."""
        reader = self._begin()
        while True:
            for run in await self._client.run(reader.next_flow()):
                yield run
                if self._ends and run.is_completed:
                    return

    def __iter__(self) -> Iterator[LiveRun[OutputT]]:
        """Follow, blocking the caller."""
        reader = self._begin()
        while True:
            for run in self._client.run_blocking(reader.next_flow()):
                yield run
                if self._ends and run.is_completed:
                    return

    def _begin(self) -> "_Reader[OutputT]":
        return _Reader(self._client, self._path, self._query, self._parse_output)


class RunSubscriptions:
    """Subscriptions, as `runs` has them."""

    _client: ApiClient

    @overload
    def subscribe_to_run(
        self, run: RunHandle[OutputT], *, stop_on_completion: bool = True
    ) -> RunSubscription[OutputT]: ...
    @overload
    def subscribe_to_run(
        self, run: str | RunSummary, *, stop_on_completion: bool = True
    ) -> RunSubscription[Json]: ...
    def subscribe_to_run(self, run: RunReference, *, stop_on_completion: bool = True) -> object:
        """Follow a run until it has ended, or for ever without `stop_on_completion`."""
        parse = run.parse_output if isinstance(run, RunHandle) else None
        return RunSubscription(
            self._client,
            f"/realtime/v1/runs/{path_id(run)}",
            {},
            ends=stop_on_completion,
            parse_output=parse,
        )

    def subscribe_to_runs_with_tag(self, tag: str | Sequence[str]) -> RunSubscription[Json]:
        """Follow all runs that have a tag, or all of several tags, those to come too."""
        tags = [tag] if isinstance(tag, str) else list(tag)
        if not tags or not all(tags):
            raise ValueError("give a tag, or several: 'user_1' or ['user_1', 'paid']")
        if any("," in one for one in tags):
            raise ValueError("a tag with a comma can't be followed: it would be taken for two")
        query = {"tags": ",".join(tags)}
        return RunSubscription(self._client, "/realtime/v1/runs", query, ends=False)

    def fetch_stream(self, run: RunReference, key: str) -> StreamReader:
        """Read what a task sends by `metadata.stream`, from the first value on."""
        return StreamReader(self._client, run, key)

    def subscribe_to_batch(self, batch: str | _HasBatchId) -> RunSubscription[Json]:
        """Follow all runs of a batch, named by its id or its handle."""
        batch_id = batch if isinstance(batch, str) else batch.batch_id
        path = f"/realtime/v1/batches/{quote(batch_id, safe='')}"
        return RunSubscription(self._client, path, {}, ends=False)


class _Reader(Generic[OutputT]):
    """Where a subscription is, and what it knows."""

    def __init__(
        self,
        client: ApiClient,
        path: str,
        query: dict[str, str],
        parse_output: Callable[[Json], OutputT] | None,
    ) -> None:
        self._client = client
        self._path = path
        self._query = query
        self._parse_output = parse_output
        self._offset, self._handle, self._cursor = "-1", "", ""
        self._is_up_to_date = False
        self._rows: dict[str, _Row] = {}

    def next_flow(self) -> Flow[list[LiveRun[OutputT]]]:
        """One answer: the runs that it changed."""
        call = self._call()
        try:
            response = yield from self._ask(call)
        except ConflictError as error:
            # The offset means nothing there. What is the same as before is not told again.
            self._handle = error.headers.get("electric-handle", "")
            self._offset, self._is_up_to_date = "-1", False
            return []
        changed = self._take(call, response)
        runs: list[LiveRun[OutputT]] = []
        for row in changed:
            try:
                runs.append((yield from self._read(row)))
            except (KeyError, ValueError) as error:
                if isinstance(error, InvalidPayloadError):
                    raise
                raise answer_error(call, response, f"a row: {error}") from None
        return runs

    def _call(self) -> Call:
        query = {**self._query, "offset": self._offset}
        if self._handle:
            query["handle"] = self._handle
        if self._is_up_to_date:
            query |= {"live": "true", "cursor": self._cursor}
        return Call(method="GET", path=self._path, query=query, options=_OPTIONS)

    def _ask(self, call: Call) -> Flow[Response]:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return (yield from self._client.request(call))
            except (ApiConnectionError, InternalServerError, RateLimitError):
                yield Pause(pause)
                pause = min(_LONGEST_PAUSE_SECONDS, pause * _PAUSE_FACTOR)

    def _take(self, call: Call, response: Response) -> list[_Row]:
        headers = response.headers
        try:
            messages = _messages.validate_json(response.body or b"[]")
            self._offset, self._handle = headers["electric-offset"], headers["electric-handle"]
        except (ValidationError, KeyError) as error:
            raise answer_error(call, response, f"{type(error).__name__}: {error}") from None
        self._cursor = headers.get("electric-cursor", "")
        self._is_up_to_date = "electric-up-to-date" in headers
        changed: dict[str, _Row] = {}
        for message in messages:
            key, value = message.get("key"), message.get("value")
            if not isinstance(key, str) or not isinstance(value, dict):
                continue
            known = self._rows.get(key)
            row = {**(known or {}), **cast("_Row", value)}
            if row != known:
                self._rows[key] = changed[key] = row
        return list(changed.values())

    def _read(self, row: _Row) -> Flow[LiveRun[OutputT]]:
        status = read_stored_status(_text(row, "status"))
        output: Json = None
        if status is RunStatus.COMPLETED:
            output = yield from self._value(row, "output")
        parsed = cast("OutputT", output)
        if self._parse_output is not None and status is RunStatus.COMPLETED:
            parsed = self._parse_output(output)
        error, metadata = row.get("error"), row.get("metadata")
        return LiveRun(
            id=_text(row, "friendlyId"),
            task_identifier=_text(row, "taskIdentifier"),
            status=api_status(status),
            number=int(row.get("number") or 0),
            payload=(yield from self._value(row, "payload")),
            output=parsed,
            metadata=None if metadata is None else _metadata.validate_json(metadata),
            tags=read_array(row.get("runTags") or "{}"),
            error=None
            if error is None
            else RunError(**serialize_error(_error.validate_json(error))),
            is_test=row.get("isTest") == "true",
            idempotency_key=row.get("idempotencyKey"),
            ttl=row.get("ttl"),
            duration_ms=int(row.get("usageDurationMs") or 0),
            created_at=_instant(_text(row, "createdAt")),
            updated_at=_instant(_text(row, "updatedAt")),
            started_at=_find_instant(row, "startedAt"),
            queued_at=_find_instant(row, "queuedAt"),
            delayed_until=_find_instant(row, "delayUntil"),
            expired_at=_find_instant(row, "expiredAt"),
            finished_at=_find_instant(row, "completedAt"),
        )

    def _value(self, row: _Row, column: str) -> Flow[Json]:
        data, data_type = row.get(column), row.get(f"{column}Type") or JSON_TYPE
        if data is not None and data_type == STORE_TYPE:
            return (yield from fetch_flow(self._client, data))
        return decode_packet(data, data_type)


def _text(row: _Row, column: str) -> str:
    text = row[column]
    if text is None:
        raise ValueError(f"{column} is null")
    return text


def _instant(text: str) -> datetime:
    """Rows have instants without a zone, in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _find_instant(row: _Row, column: str) -> datetime | None:
    text = row.get(column)
    return None if text is None else _instant(text)
