"""`runs`: retrieve, list and poll runs, and read what they logged; `run_changes` has the rest."""

import time
from typing import TypedDict, TypeVar, Unpack, cast, overload

from runwell.client.bulk_actions import BlockingBulkRuns, BulkFlows, BulkRuns
from runwell.client.options import read_duration, read_whole
from runwell.client.packets import load_flow
from runwell.client.pages import Listing
from runwell.client.realtime import RunSubscriptions
from runwell.client.run_changes import BlockingRunChanges, RunChangeFlows, RunChanges
from runwell.client.run_handles import Run, RunHandle, RunReference, path_id
from runwell.client.run_pages import BlockingRunPage, RunFilters, RunPage, list_call
from runwell.client.transport import Call, Flow, Pause, RequestOptions
from runwell.core.errors import InvalidPayloadError
from runwell.core.payloads import Json
from runwell.core.schemas import LogPage, RunList, RunListItem, RunSummary
from runwell.core.timing import Duration

OutputT = TypeVar("OutputT")

MAX_LOG_LINES = 1_000
_LEAST_POLL_SECONDS = 0.02


class PollOptions(TypedDict, total=False):
    """How a run is polled. `timeout`: how long at most; without it, until the run has ended."""

    poll_interval: Duration
    timeout: Duration | None
    request_options: RequestOptions | None


class RunFlows(RunChangeFlows, BulkFlows):
    """What both kinds of caller do, as flows."""

    def _retrieve(self, run: RunReference, options: RequestOptions | None) -> Flow[Run[object]]:
        return (yield from self._load(run, (yield from self._ask(run, options)), options))

    def _ask(self, run: RunReference, options: RequestOptions | None) -> Flow[Run[object]]:
        call = Call(method="GET", path=f"/api/v3/runs/{path_id(run)}", options=options)
        return cast("Run[object]", (yield from self._client.ask(call, Run)))

    def _load(
        self, run: RunReference, found: Run[object], options: RequestOptions | None
    ) -> Flow[Run[object]]:
        """Fetch what is too large for the answer, and read the output as what it is."""
        yield from load_flow(self._client, found, options)
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
            found = yield from self._ask(run, options.get("request_options"))
            if found.is_completed:
                return (yield from self._load(run, found, options.get("request_options")))
            if deadline is not None and time.monotonic() + pause.seconds > deadline:
                raise TimeoutError(f"run {found.id} is {found.status} after {timeout}")
            yield pause

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
        path = f"/api/v1/runs/{path_id(run)}/logs"
        call = Call(method="GET", path=path, query=query, options=options)
        return self._client.ask(call, LogPage)


class Runs(RunFlows, RunChanges, BulkRuns, RunSubscriptions):
    """Retrieve, list, poll and change runs. A run is named by its id, or by any object of it.

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

    def list(self, **filters: Unpack[RunFilters]) -> Listing[RunListItem, RunPage]:
        """The runs that match all filters, newest first: `await` a page, or `async for` over all.

        Example:
            >>> from runwell import runs
            >>> async def newest() -> list[str]:
            ...     page = await runs.list(limit=10, task_identifier="hello-world")
            ...     return [run.id for run in page.data]
        """
        return Listing(lambda: self._list_page(filters))

    async def _list_page(self, filters: RunFilters) -> RunPage:
        found = await self._client.run(self._client.ask(list_call(filters), RunList))
        return RunPage(found, filters, self._list_page)

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


class BlockingRuns(RunFlows, BlockingRunChanges, BlockingBulkRuns, RunSubscriptions):
    """Retrieve, list, poll and change runs, blocking the caller.

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


def _seconds(option: str, value: Duration) -> float:
    return read_duration(option, value).total_seconds()
