"""`runs`: retrieve, list, cancel and poll runs, and read what they logged."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypedDict, TypeVar, Unpack, cast, overload
from urllib.parse import quote

from runwell.client.api import ApiClient
from runwell.client.options import read_duration, read_whole
from runwell.client.run_pages import BlockingRunPage, RunFilters, RunListing, RunPage, list_call
from runwell.client.transport import Call, Flow, Pause, RequestOptions
from runwell.core.errors import InvalidPayloadError
from runwell.core.payloads import Json
from runwell.core.schemas import CanceledRun, LogPage, RunList, RunObject, RunSummary
from runwell.core.timing import Duration

OutputT = TypeVar("OutputT")
OutputT_co = TypeVar("OutputT_co", covariant=True)

MAX_LOG_LINES = 1_000
_LEAST_POLL_SECONDS = 0.02


class Run(RunObject, Generic[OutputT]):
    """A run as it was when it was retrieved.

    `output` is what the task returned, once the run `is_success`: as the type that the task's
    function returns when the run was asked for by the handle of that task's trigger, and as plain
    JSON values when it was asked for by its id.

    Example:
        >>> from runwell import Run, runs
        >>> async def show(run_id: str) -> None:
        ...     run = await runs.retrieve(run_id)
        ...     print(run.status, run.output, run.error)
    """

    # A task's own type in place of JSON: the reading of it is `RunHandle.parse_output`.
    output: OutputT | None = None  # pyright: ignore[reportIncompatibleVariableOverride]


# No slots: `RunHandle[int](...)` sets an attribute, which a frozen class with slots can't take.
@dataclass(frozen=True)
class RunHandle(Generic[OutputT_co]):
    """A run that was triggered: what `.trigger()` returns, and what `runs.*` take.

    `is_cached`: the run was there before, with the same idempotency key. `public_access_token` is
    None: Runwell makes no such tokens yet.

    Example:
        >>> from runwell import RunHandle, runs
        >>> async def wait_for(handle: RunHandle[str]) -> str | None:
        ...     return (await runs.poll(handle)).output
    """

    id: str
    public_access_token: str | None = None
    is_cached: bool = False
    parse_output: Callable[[Json], OutputT_co] | None = field(
        default=None, repr=False, compare=False, kw_only=True
    )


#: How a run is named: its id, the handle of its trigger, or the run from a retrieve or a list.
RunReference = str | RunSummary | RunHandle[object]


class PollOptions(TypedDict, total=False):
    """How a run is polled. `timeout`: how long at most; without it, until the run has ended."""

    poll_interval: Duration
    timeout: Duration | None
    request_options: RequestOptions | None


class RunFlows:
    """What both kinds of caller do, as flows."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def _retrieve(self, run: RunReference, options: RequestOptions | None) -> Flow[Run[object]]:
        call = Call(method="GET", path=f"/api/v3/runs/{_path_id(run)}", options=options)
        found = cast("Run[object]", (yield from self._client.ask(call, Run)))
        parse = run.parse_output if isinstance(run, RunHandle) else None
        if parse is not None and found.is_success:
            try:
                found.output = parse(cast("Json", found.output))
            except InvalidPayloadError as error:
                raise InvalidPayloadError(f"run {found.id}: {error}") from None
        return found

    def poll_flow(self, run: RunReference, options: PollOptions) -> Flow[Run[object]]:
        """Fetch a run again and again until it has ended."""
        timeout, interval = options.get("timeout"), options.get("poll_interval", 1)
        pause = Pause(max(_LEAST_POLL_SECONDS, _seconds("poll_interval", interval)))
        deadline = None if timeout is None else time.monotonic() + _seconds("timeout", timeout)
        while True:
            found = yield from self._retrieve(run, options.get("request_options"))
            if found.is_completed:
                return found
            if deadline is not None and time.monotonic() + pause.seconds > deadline:
                raise TimeoutError(f"run {found.id} is {found.status} after {timeout}")
            yield pause

    def _cancel(self, run: RunReference, options: RequestOptions | None) -> Flow[CanceledRun]:
        path = f"/api/v2/runs/{_path_id(run)}/cancel"
        return self._client.ask(Call(method="POST", path=path, options=options), CanceledRun)

    def _logs(
        self,
        run: RunReference,
        after: str | None,
        limit: int | None,
        options: RequestOptions | None,
    ) -> Flow[LogPage]:
        query = {} if after is None else {"after": after}
        if limit is not None:
            query["limit"] = str(read_whole("limit", limit, 1, MAX_LOG_LINES))
        path = f"/api/v1/runs/{_path_id(run)}/logs"
        call = Call(method="GET", path=path, query=query, options=options)
        return self._client.ask(call, LogPage)


class Runs(RunFlows):
    """Retrieve, list, cancel and poll runs. A run is named by its id, or by any object of it.

    Example:
        >>> from runwell import runs
        >>> async def cancel_queued() -> None:
        ...     async for run in runs.list(status="QUEUED", tag="user_1"):
        ...         await runs.cancel(run)
    """

    @overload
    async def retrieve(
        self, run: RunHandle[OutputT], *, request_options: RequestOptions | None = None
    ) -> Run[OutputT]: ...
    @overload
    async def retrieve(
        self, run: str | RunSummary, *, request_options: RequestOptions | None = None
    ) -> Run[Json]: ...
    async def retrieve(
        self, run: RunReference, *, request_options: RequestOptions | None = None
    ) -> object:
        """Fetch a run with its payload, output, error and attempts; NotFoundError without one."""
        return await self._client.run(self._retrieve(run, request_options))

    @overload
    async def poll(
        self,
        run: RunHandle[OutputT],
        **options: Unpack[PollOptions],
    ) -> Run[OutputT]: ...
    @overload
    async def poll(
        self,
        run: str | RunSummary,
        **options: Unpack[PollOptions],
    ) -> Run[Json]: ...
    async def poll(
        self,
        run: RunReference,
        **options: Unpack[PollOptions],
    ) -> object:
        """Fetch a run again and again until it has ended; TimeoutError when that takes longer."""
        return await self._client.run(self.poll_flow(run, options))

    def list(self, **filters: Unpack[RunFilters]) -> RunListing:
        """The runs that match all filters, newest first: `await` a page, or `async for` over all.

        Example:
            >>> from runwell import runs
            >>> async def newest() -> list[str]:
            ...     page = await runs.list(limit=10, task_identifier="hello-world")
            ...     return [run.id for run in page.data]
        """
        return RunListing(lambda: self._list_page(filters))

    async def _list_page(self, filters: RunFilters) -> RunPage:
        found = await self._client.run(self._client.ask(list_call(filters), RunList))
        return RunPage(found, filters, self._list_page)

    async def cancel(
        self, run: RunReference, *, request_options: RequestOptions | None = None
    ) -> CanceledRun:
        """Cancel a run; one that has ended stays as it is."""
        return await self._client.run(self._cancel(run, request_options))

    async def logs(
        self,
        run: RunReference,
        *,
        after: str | None = None,
        limit: int | None = None,
        request_options: RequestOptions | None = None,
    ) -> LogPage:
        """What the attempts of a run wrote; the `next` of one page is the `after` of the next."""
        return await self._client.run(self._logs(run, after, limit, request_options))


class BlockingRuns(RunFlows):
    """Retrieve, list, cancel and poll runs, blocking the caller.

    Example:
        >>> from runwell.sync import runs
        >>> def newest() -> list[str]:
        ...     return [run.id for run in runs.list(limit=10).data]
    """

    @overload
    def retrieve(
        self, run: RunHandle[OutputT], *, request_options: RequestOptions | None = None
    ) -> Run[OutputT]: ...
    @overload
    def retrieve(
        self, run: str | RunSummary, *, request_options: RequestOptions | None = None
    ) -> Run[Json]: ...
    def retrieve(
        self, run: RunReference, *, request_options: RequestOptions | None = None
    ) -> object:
        """Fetch a run with its payload, output, error and attempts; NotFoundError without one."""
        return self._client.run_blocking(self._retrieve(run, request_options))

    @overload
    def poll(
        self,
        run: RunHandle[OutputT],
        **options: Unpack[PollOptions],
    ) -> Run[OutputT]: ...
    @overload
    def poll(
        self,
        run: str | RunSummary,
        **options: Unpack[PollOptions],
    ) -> Run[Json]: ...
    def poll(
        self,
        run: RunReference,
        **options: Unpack[PollOptions],
    ) -> object:
        """Fetch a run again and again until it has ended; TimeoutError when that takes longer."""
        return self._client.run_blocking(self.poll_flow(run, options))

    def list(self, **filters: Unpack[RunFilters]) -> BlockingRunPage:
        """A page of the runs that match all filters, newest first; `for` goes on to the last."""
        return self._list_page(filters)

    def _list_page(self, filters: RunFilters) -> BlockingRunPage:
        found = self._client.run_blocking(self._client.ask(list_call(filters), RunList))
        return BlockingRunPage(found, filters, self._list_page)

    def cancel(
        self, run: RunReference, *, request_options: RequestOptions | None = None
    ) -> CanceledRun:
        """Cancel a run; one that has ended stays as it is."""
        return self._client.run_blocking(self._cancel(run, request_options))

    def logs(
        self,
        run: RunReference,
        *,
        after: str | None = None,
        limit: int | None = None,
        request_options: RequestOptions | None = None,
    ) -> LogPage:
        """What the attempts of a run wrote; the `next` of one page is the `after` of the next."""
        return self._client.run_blocking(self._logs(run, after, limit, request_options))


def _path_id(run: RunReference) -> str:
    run_id: object = run if isinstance(run, str) else getattr(run, "id", None)
    if not isinstance(run_id, str) or not run_id.strip("."):
        raise ValueError(f"{run!r} names no run: give its id ('run_...'), or a handle of it")
    return quote(run_id, safe="")


def _seconds(option: str, value: Duration) -> float:
    return read_duration(option, value).total_seconds()
