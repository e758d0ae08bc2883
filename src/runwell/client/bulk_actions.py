"""Bulk actions: cancel or replay many runs, and see how far that is."""

import time
from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict, Unpack
from urllib.parse import quote

from runwell.client.api import ApiClient
from runwell.client.options import read_duration
from runwell.client.run_handles import RunReference, id_of
from runwell.client.run_pages import RunFilters, list_call
from runwell.client.transport import Call, Flow, Pause, RequestOptions, json_body
from runwell.core.bulk_schemas import BulkActionList, BulkActionObject
from runwell.core.ids import make_request_key
from runwell.core.payloads import Json
from runwell.core.timing import Duration

Act = Literal["cancel", "replay"]

_PATH = "/api/v1/bulk-actions"
_LEAST_POLL_SECONDS = 0.02


class BulkAction(BulkActionObject):
    """A bulk action as far as it was when it was asked for.

    `status` is PENDING, COMPLETED or ABORTED. Of the `total` runs that there were when it began,
    `succeeded` are canceled or replayed, `skipped` had ended by themselves, and for those that
    `failed`, `failures` has some reasons.

    Example:
        >>> from runwell import BulkAction, bulk_actions
        >>> async def finish(begun: BulkAction) -> int:
        ...     return (await bulk_actions.poll(begun)).succeeded
    """


class BulkPollOptions(TypedDict, total=False):
    """How a bulk action is polled. `timeout`: how long at most; without it, until it is over."""

    poll_interval: Duration
    timeout: Duration | None


class BulkFlows:
    """The beginning of bulk actions, as flows."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def create_flow(
        self, action: Act, run_ids: Sequence[RunReference] | None, filters: RunFilters
    ) -> Flow[BulkAction]:
        """Begin a bulk action."""
        call = Call(
            method="POST",
            path=_PATH,
            body=json_body(bulk_body(action, run_ids, filters)),
            headers={"x-trigger-request-idempotency-key": make_request_key()},
            options=filters.get("request_options"),
        )
        return self._client.ask(call, BulkAction)


class _ActionFlows:
    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def _retrieve(
        self, action: "str | BulkActionObject", options: RequestOptions | None
    ) -> Flow[BulkAction]:
        call = Call(method="GET", path=f"{_PATH}/{_path_id(action)}", options=options)
        return self._client.ask(call, BulkAction)

    def _abort(
        self, action: "str | BulkActionObject", options: RequestOptions | None
    ) -> Flow[BulkAction]:
        call = Call(method="POST", path=f"{_PATH}/{_path_id(action)}/abort", options=options)
        return self._client.ask(call, BulkAction)

    def _list(self, options: RequestOptions | None) -> Flow[list[BulkActionObject]]:
        call = Call(method="GET", path=_PATH, options=options)
        return (yield from self._client.ask(call, BulkActionList)).data

    def _poll(self, action: "str | BulkActionObject", options: BulkPollOptions) -> Flow[BulkAction]:
        timeout = options.get("timeout")
        interval = read_duration("poll_interval", options.get("poll_interval", 1))
        seconds = interval.total_seconds()
        deadline = None
        if timeout is not None:
            deadline = time.monotonic() + read_duration("timeout", timeout).total_seconds()
        while True:
            found = yield from self._retrieve(action, None)
            if found.status != "PENDING":
                return found
            if deadline is not None and time.monotonic() + seconds > deadline:
                raise TimeoutError(f"bulk action {found.id} is not done after {timeout}")
            yield Pause(max(_LEAST_POLL_SECONDS, seconds))


class BulkActions(_ActionFlows):
    """Bulk actions, which `runs.bulk_cancel` and `runs.bulk_replay` begin.

    Example:
        >>> from runwell import bulk_actions, runs
        >>> async def run_again() -> None:
        ...     begun = await runs.bulk_replay(status="FAILED", period="1d")
        ...     done = await bulk_actions.poll(begun, timeout="5m")
        ...     print(done.succeeded, "of", done.total)
    """

    async def retrieve(
        self, action: str | BulkActionObject, *, request_options: RequestOptions | None = None
    ) -> BulkAction:
        """How far a bulk action is; NotFoundError without one."""
        return await self._client.run(self._retrieve(action, request_options))

    async def list(
        self, *, request_options: RequestOptions | None = None
    ) -> "list[BulkActionObject]":
        """The newest hundred."""
        return await self._client.run(self._list(request_options))

    async def abort(
        self, action: str | BulkActionObject, *, request_options: RequestOptions | None = None
    ) -> BulkAction:
        """Leave alone the runs that it hasn't come to yet; one that is over stays as it is."""
        return await self._client.run(self._abort(action, request_options))

    async def poll(
        self, action: str | BulkActionObject, **options: Unpack[BulkPollOptions]
    ) -> BulkAction:
        """Ask again and again until it is over; TimeoutError when that takes longer."""
        return await self._client.run(self._poll(action, options))


class BlockingBulkActions(_ActionFlows):
    """Bulk actions, which `runs.bulk_cancel` and `runs.bulk_replay` begin, blocking the caller.

    Example:
        >>> from runwell.sync import bulk_actions, runs
        >>> def run_again() -> None:
        ...     bulk_actions.poll(runs.bulk_replay(status="FAILED", period="1d"))
    """

    def retrieve(
        self, action: str | BulkActionObject, *, request_options: RequestOptions | None = None
    ) -> BulkAction:
        """How far a bulk action is; NotFoundError without one."""
        return self._client.run_blocking(self._retrieve(action, request_options))

    def list(self, *, request_options: RequestOptions | None = None) -> "list[BulkActionObject]":
        """The newest hundred."""
        return self._client.run_blocking(self._list(request_options))

    def abort(
        self, action: str | BulkActionObject, *, request_options: RequestOptions | None = None
    ) -> BulkAction:
        """Leave alone the runs that it hasn't come to yet; one that is over stays as it is."""
        return self._client.run_blocking(self._abort(action, request_options))

    def poll(
        self, action: str | BulkActionObject, **options: Unpack[BulkPollOptions]
    ) -> BulkAction:
        """Ask again and again until it is over; TimeoutError when that takes longer."""
        return self._client.run_blocking(self._poll(action, options))


class BulkRuns(BulkFlows):
    """The beginning of bulk actions. Part of `runs`."""

    async def bulk_cancel(
        self,
        run_ids: Sequence[RunReference] | None = None,
        **filters: Unpack[RunFilters],
    ) -> BulkAction:
        """Cancel all runs with these ids, or that pass these filters; `bulk_actions` goes on.

        Raises ValueError without either: `period="100w"` means all of them.
        """
        return await self._client.run(self.create_flow("cancel", run_ids, filters))

    async def bulk_replay(
        self,
        run_ids: Sequence[RunReference] | None = None,
        **filters: Unpack[RunFilters],
    ) -> BulkAction:
        """Replay all runs with these ids, or that pass these filters; `bulk_actions` goes on."""
        return await self._client.run(self.create_flow("replay", run_ids, filters))


class BlockingBulkRuns(BulkFlows):
    """The beginning of bulk actions, blocking the caller. Part of `runs`."""

    def bulk_cancel(
        self,
        run_ids: Sequence[RunReference] | None = None,
        **filters: Unpack[RunFilters],
    ) -> BulkAction:
        """Cancel all runs with these ids, or that pass these filters; `bulk_actions` goes on.

        Raises ValueError without either: `period="100w"` means all of them.
        """
        return self._client.run_blocking(self.create_flow("cancel", run_ids, filters))

    def bulk_replay(
        self,
        run_ids: Sequence[RunReference] | None = None,
        **filters: Unpack[RunFilters],
    ) -> BulkAction:
        """Replay all runs with these ids, or that pass these filters; `bulk_actions` goes on."""
        return self._client.run_blocking(self.create_flow("replay", run_ids, filters))


def bulk_body(
    action: Act, run_ids: Sequence[RunReference] | None, filters: RunFilters
) -> dict[str, object]:
    """The body of a bulk action; raises ValueError unless it says which runs are meant."""
    for name in ("limit", "after", "before"):
        if filters.get(name) is not None:
            raise ValueError(f"{name}: a bulk action is about all runs that pass, it has no pages")
    query = list_call(filters).query
    if run_ids is not None:
        if query:
            raise ValueError("name the runs by their ids or by filters, not by both")
        return {"action": action, "runIds": [id_of(run) for run in run_ids]}
    if not query:
        raise ValueError(
            f"runs.bulk_{action} needs ids or filters, so that all runs aren't meant by accident"
        )
    return {"action": action, "filter": bulk_filter(query)}


def bulk_filter(query: Mapping[str, str]) -> dict[str, Json]:
    """The filters of a list's query as a bulk action has them."""
    found: dict[str, Json] = {}
    created: dict[str, Json] = {}
    for name, value in query.items():
        parts = name.removeprefix("filter[").removesuffix("]").split("][")
        if len(parts) > 1:
            created[parts[1]] = value
            found[parts[0]] = created
        else:
            found[parts[0]] = value
    return found


def _path_id(action: str | BulkActionObject) -> str:
    public_id = action if isinstance(action, str) else action.id
    if not public_id.strip("."):
        raise ValueError(f"{action!r} names no bulk action: give its id ('bulk_...')")
    return quote(public_id, safe="")
