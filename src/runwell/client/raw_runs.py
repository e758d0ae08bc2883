"""`runs.with_raw_response`: the methods of `runs`, whose results have the answer."""

from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import TypeVar, Unpack, cast, overload

from runwell.client.api import ApiClient
from runwell.client.recording import RawResponse, blocking_raw, raw
from runwell.client.run_handles import Run, RunHandle, RunReference
from runwell.client.runs import BlockingRuns, PollOptions, Runs
from runwell.client.transport import RequestOptions
from runwell.core.payloads import Json
from runwell.core.schemas import RunSummary

OutputT = TypeVar("OutputT")

# Type checkers can't take what has overloads for one function: those are written out below.
_Overloaded = Callable[..., Awaitable[object]]
_BlockingOverloaded = Callable[..., object]


class RawRuns:
    """Methods for runs whose results come with the server's answer."""

    def __init__(self, client: ApiClient) -> None:
        made = Runs
        self._retrieve = raw(made, client, cast("_Overloaded", made.retrieve))
        self._poll = raw(made, client, cast("_Overloaded", made.poll))
        self.list = raw(made, client, made.list)
        self.logs = raw(made, client, made.logs)
        self.cancel = raw(made, client, made.cancel)
        self.replay = raw(made, client, made.replay)
        self.reschedule = raw(made, client, made.reschedule)
        self.add_tags = raw(made, client, made.add_tags)
        self.update_metadata = raw(made, client, made.update_metadata)
        self.bulk_cancel = raw(made, client, made.bulk_cancel)
        self.bulk_replay = raw(made, client, made.bulk_replay)

    @overload
    async def retrieve(
        self, run: RunHandle[OutputT], *, request_options: RequestOptions | None = None
    ) -> RawResponse[Run[OutputT]]: ...
    @overload
    async def retrieve(
        self, run: str | RunSummary, *, request_options: RequestOptions | None = None
    ) -> RawResponse[Run[Json]]: ...
    async def retrieve(
        self, run: RunReference, *, request_options: RequestOptions | None = None
    ) -> object:
        """Fetch a run, with the answer."""
        return await self._retrieve(run, request_options=request_options)

    @overload
    async def poll(
        self, run: RunHandle[OutputT], **options: Unpack[PollOptions]
    ) -> RawResponse[Run[OutputT]]: ...
    @overload
    async def poll(
        self, run: str | RunSummary, **options: Unpack[PollOptions]
    ) -> RawResponse[Run[Json]]: ...
    async def poll(self, run: RunReference, **options: Unpack[PollOptions]) -> object:
        """Fetch a run until it has ended, with the last answer."""
        return await self._poll(run, **options)


class RunsWithRaw(Runs):  # noqa: D101 (the docstring of its base)
    @cached_property
    def with_raw_response(self) -> RawRuns:
        """The same methods, whose results have the status and the headers of the answer."""
        return RawRuns(self._client)


class RawBlockingRuns:
    """Methods for runs whose results come with the server's answer, blocking."""

    def __init__(self, client: ApiClient) -> None:
        made = BlockingRuns
        self._retrieve = blocking_raw(made, client, cast("_BlockingOverloaded", made.retrieve))
        self._poll = blocking_raw(made, client, cast("_BlockingOverloaded", made.poll))
        self.list = blocking_raw(made, client, made.list)
        self.logs = blocking_raw(made, client, made.logs)
        self.cancel = blocking_raw(made, client, made.cancel)
        self.replay = blocking_raw(made, client, made.replay)
        self.reschedule = blocking_raw(made, client, made.reschedule)
        self.add_tags = blocking_raw(made, client, made.add_tags)
        self.update_metadata = blocking_raw(made, client, made.update_metadata)
        self.bulk_cancel = blocking_raw(made, client, made.bulk_cancel)
        self.bulk_replay = blocking_raw(made, client, made.bulk_replay)

    @overload
    def retrieve(
        self, run: RunHandle[OutputT], *, request_options: RequestOptions | None = None
    ) -> RawResponse[Run[OutputT]]: ...
    @overload
    def retrieve(
        self, run: str | RunSummary, *, request_options: RequestOptions | None = None
    ) -> RawResponse[Run[Json]]: ...
    def retrieve(
        self, run: RunReference, *, request_options: RequestOptions | None = None
    ) -> object:
        """Fetch a run, with the answer."""
        return self._retrieve(run, request_options=request_options)

    @overload
    def poll(
        self, run: RunHandle[OutputT], **options: Unpack[PollOptions]
    ) -> RawResponse[Run[OutputT]]: ...
    @overload
    def poll(
        self, run: str | RunSummary, **options: Unpack[PollOptions]
    ) -> RawResponse[Run[Json]]: ...
    def poll(self, run: RunReference, **options: Unpack[PollOptions]) -> object:
        """Fetch a run until it has ended, with the last answer."""
        return self._poll(run, **options)


class BlockingRunsWithRaw(BlockingRuns):  # noqa: D101 (the docstring of its base)
    @cached_property
    def with_raw_response(self) -> RawBlockingRuns:
        """The same methods, whose results have the status and the headers of the answer."""
        return RawBlockingRuns(self._client)
