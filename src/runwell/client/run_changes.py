"""What is done to runs from outside: cancel, replay, reschedule, tags, metadata. Part of `runs`."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TypeVar, cast

from runwell.client.api import ApiClient
from runwell.client.metadata_changes import MetadataChanges
from runwell.client.run_handles import Run, RunHandle, RunReference, path_id
from runwell.client.transport import Call, Flow, RequestOptions, json_body
from runwell.client.triggering import read_delay, read_tags
from runwell.core.ids import make_request_key
from runwell.core.payloads import JSON_TYPE, MAX_PAYLOAD_BYTES, Json, encode_value
from runwell.core.schemas import CanceledRun, MessageAnswer, MetadataAnswer, ReplayedRun
from runwell.core.timing import Duration

OutputT = TypeVar("OutputT")


class RunChangeFlows:
    """What both kinds of caller do, as flows."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def _cancel(self, run: RunReference, options: RequestOptions | None) -> Flow[CanceledRun]:
        path = f"/api/v2/runs/{path_id(run)}/cancel"
        return self._client.ask(Call(method="POST", path=path, options=options), CanceledRun)

    def _replay(
        self, run: RunReference, payload: object, options: RequestOptions | None
    ) -> Flow[RunHandle[object]]:
        body = None
        if payload is not ...:
            text = encode_value(payload, what="the payload", limit=MAX_PAYLOAD_BYTES)
            body = json_body({"payload": text, "payloadType": JSON_TYPE})
        call = Call(
            method="POST",
            path=f"/api/v1/runs/{path_id(run)}/replay",
            body=body,
            headers={"x-trigger-request-idempotency-key": make_request_key()},
            options=options,
        )
        answer = yield from self._client.ask(call, ReplayedRun)
        parse = run.parse_output if isinstance(run, RunHandle) else None
        return RunHandle(answer.id, parse_output=parse)

    def _reschedule(
        self, run: RunReference, delay: Duration | datetime, options: RequestOptions | None
    ) -> Flow[Run[object]]:
        call = Call(
            method="POST",
            path=f"/api/v1/runs/{path_id(run)}/reschedule",
            body=json_body({"delay": read_delay(delay)}),
            options=options,
        )
        return cast("Run[object]", (yield from self._client.ask(call, Run)))

    def _add_tags(
        self, run: RunReference, tags: str | Sequence[str], options: RequestOptions | None
    ) -> Flow[MessageAnswer]:
        call = Call(
            method="POST",
            path=f"/api/v1/runs/{path_id(run)}/tags",
            body=json_body({"tags": read_tags(tags)}),
            options=options,
        )
        return self._client.ask(call, MessageAnswer)

    def _update_metadata(
        self,
        run: RunReference,
        changes: MetadataChanges | Mapping[str, object],
        options: RequestOptions | None,
    ) -> Flow[dict[str, Json]]:
        if not isinstance(changes, MetadataChanges):
            changes = MetadataChanges().replace(changes)
        call = Call(
            method="PUT",
            path=f"/api/v1/runs/{path_id(run)}/metadata",
            body=changes.to_body().model_dump_json(by_alias=True, exclude_unset=False).encode(),
            headers={"x-trigger-request-idempotency-key": make_request_key()},
            options=options,
        )
        return (yield from self._client.ask(call, MetadataAnswer)).metadata

    def read_metadata_flow(
        self, run: RunReference, options: RequestOptions | None = None
    ) -> Flow[MetadataAnswer]:
        """Fetch the metadata of a run, and which update of its worker was the last."""
        path = f"/api/v1/runs/{path_id(run)}/metadata"
        return self._client.ask(Call(method="GET", path=path, options=options), MetadataAnswer)


class RunChanges(RunChangeFlows):
    """Cancel, replay and reschedule runs, and add tags to them."""

    async def cancel(
        self, run: RunReference, *, request_options: RequestOptions | None = None
    ) -> CanceledRun:
        """Cancel a run and what it has triggered; one that has ended stays as it is."""
        return await self._client.run(self._cancel(run, request_options))

    async def replay(
        self,
        run: RunReference,
        *,
        payload: object = ...,
        request_options: RequestOptions | None = None,
    ) -> RunHandle[Json]:
        """Trigger a copy of a run on the latest version, with another payload if one is given.

        Example:
            >>> from runwell import runs
            >>> async def try_again(run_id: str) -> str:
            ...     return (await runs.replay(run_id, payload={"name": "Ada"})).id
        """
        replayed = await self._client.run(self._replay(run, payload, request_options))
        return cast("RunHandle[Json]", replayed)

    async def reschedule(
        self,
        run: RunReference,
        *,
        delay: Duration | datetime,
        request_options: RequestOptions | None = None,
    ) -> Run[Json]:
        """Give a delayed run another delay; BadRequestError when it isn't delayed any more."""
        found = await self._client.run(self._reschedule(run, delay, request_options))
        return cast("Run[Json]", found)

    async def add_tags(
        self,
        run: RunReference,
        tags: str | Sequence[str],
        *,
        request_options: RequestOptions | None = None,
    ) -> None:
        """Add tags to a run; UnprocessableEntityError when it would have more than ten."""
        await self._client.run(self._add_tags(run, tags, request_options))

    async def update_metadata(
        self,
        run: RunReference,
        changes: MetadataChanges | Mapping[str, object],
        *,
        request_options: RequestOptions | None = None,
    ) -> dict[str, Json]:
        """Change a run's metadata, or replace it when a dict is given; returns what it is then.

        UnprocessableEntityError when the run has ended, or the metadata would be too large.
        """
        return await self._client.run(self._update_metadata(run, changes, request_options))


class BlockingRunChanges(RunChangeFlows):
    """Cancel, replay and reschedule runs, and add tags to them, blocking the caller."""

    def cancel(
        self, run: RunReference, *, request_options: RequestOptions | None = None
    ) -> CanceledRun:
        """Cancel a run and what it has triggered; one that has ended stays as it is."""
        return self._client.run_blocking(self._cancel(run, request_options))

    def replay(
        self,
        run: RunReference,
        *,
        payload: object = ...,
        request_options: RequestOptions | None = None,
    ) -> RunHandle[Json]:
        """Trigger a copy of a run on the latest version, with another payload if one is given."""
        replayed = self._client.run_blocking(self._replay(run, payload, request_options))
        return cast("RunHandle[Json]", replayed)

    def reschedule(
        self,
        run: RunReference,
        *,
        delay: Duration | datetime,
        request_options: RequestOptions | None = None,
    ) -> Run[Json]:
        """Give a delayed run another delay; BadRequestError when it isn't delayed any more."""
        found = self._client.run_blocking(self._reschedule(run, delay, request_options))
        return cast("Run[Json]", found)

    def add_tags(
        self,
        run: RunReference,
        tags: str | Sequence[str],
        *,
        request_options: RequestOptions | None = None,
    ) -> None:
        """Add tags to a run; UnprocessableEntityError when it would have more than ten."""
        self._client.run_blocking(self._add_tags(run, tags, request_options))

    def update_metadata(
        self,
        run: RunReference,
        changes: MetadataChanges | Mapping[str, object],
        *,
        request_options: RequestOptions | None = None,
    ) -> dict[str, Json]:
        """Change a run's metadata, or replace it when a dict is given; returns what it is then.

        UnprocessableEntityError when the run has ended, or the metadata would be too large.
        """
        return self._client.run_blocking(self._update_metadata(run, changes, request_options))
