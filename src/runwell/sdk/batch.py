"""`batch`: trigger runs of several tasks in one step, and see whether they have ended."""

from collections.abc import Iterable
from functools import cached_property
from typing import TypeVar, Unpack, cast

from runwell.client.api import ApiClient
from runwell.client.batching import (
    BatchHandle,
    BatchItem,
    BatchOptions,
    batch_flow,
    entry_of_id,
    read_entries,
    retrieve_flow,
)
from runwell.client.recording import blocking_raw, raw
from runwell.client.transport import Flow, RequestOptions
from runwell.client.triggering import TriggerOptions
from runwell.core.batch_schemas import BatchObject
from runwell.core.payloads import Json
from runwell.sdk.and_wait import BatchResult, batch_and_block, batch_and_wait
from runwell.sdk.client import default_client
from runwell.sdk.task import AnyTask

PayloadT = TypeVar("PayloadT")


def item(payload: PayloadT = None, **options: Unpack[TriggerOptions]) -> BatchItem[PayloadT]:
    """An item of a batch with options of its own; an item without is the payload itself.

    Example:
        >>> from runwell import item, task
        >>> @task(id="remind")
        ... async def remind(address: str) -> None: ...
        >>> async def remind_both() -> str:
        ...     handle = await remind.batch_trigger(["a@x.org", item("b@x.org", delay="1h")])
        ...     return handle.batch_id
    """
    return BatchItem(payload, options)


class _BatchFlows:
    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def _trigger(
        self, items: Iterable[tuple[str, object]], options: BatchOptions
    ) -> Flow[BatchHandle[Json]]:
        entries = read_entries(items, lambda pair: entry_of_id(*pair))
        return cast("Flow[BatchHandle[Json]]", batch_flow(self._client, entries, options))

    def _trigger_by_task(
        self, items: Iterable[tuple[AnyTask, object]], options: BatchOptions
    ) -> Flow[BatchHandle[object]]:
        entries = read_entries(items, lambda pair: pair[0].batch_entry(pair[1]))
        return batch_flow(self._client, entries, options)


class Batches(_BatchFlows):
    """Trigger runs of several tasks in one step: all of them are stored, or none.

    Example:
        >>> from runwell import batch, item
        >>> async def welcome(address: str) -> list[str]:
        ...     handle = await batch.trigger(
        ...         [("send-welcome", {"to": address}), ("ask-later", item(address, delay="7d"))]
        ...     )
        ...     return [run.id for run in handle.runs]
    """

    async def trigger(
        self, items: Iterable[tuple[str, object]], **options: Unpack[BatchOptions]
    ) -> BatchHandle[Json]:
        """Trigger up to 1,000 runs, each a task's id and a payload or `item(payload, ...)`."""
        return await self._client.run(self._trigger(items, options))

    async def trigger_by_task(
        self, items: Iterable[tuple[AnyTask, object]], **options: Unpack[BatchOptions]
    ) -> BatchHandle[object]:
        """Trigger up to 1,000 runs, each a task and a payload, which is checked before."""
        return await self._client.run(self._trigger_by_task(items, options))

    async def trigger_and_wait(
        self, items: Iterable[tuple[str, object]], **options: Unpack[BatchOptions]
    ) -> BatchResult[Json]:
        """Trigger a batch and let the current run wait for all of it; see `Task`'s."""
        entries = read_entries(items, lambda pair: entry_of_id(*pair))
        return cast("BatchResult[Json]", await batch_and_wait(entries, options))

    async def trigger_by_task_and_wait(
        self, items: Iterable[tuple[AnyTask, object]], **options: Unpack[BatchOptions]
    ) -> BatchResult[object]:
        """Trigger a batch of tasks and let the current run wait for all of it."""
        entries = read_entries(items, lambda pair: pair[0].batch_entry(pair[1]))
        return await batch_and_wait(entries, options)

    async def retrieve(
        self,
        batch: str | BatchHandle[object],
        *,
        request_options: RequestOptions | None = None,
    ) -> BatchObject:
        """Fetch a batch: `status` is "COMPLETED" once all of its runs have ended."""
        return await self._client.run(retrieve_flow(self._client, batch, request_options))

    @cached_property
    def with_raw_response(self) -> "RawBatches":
        """What doesn't wait, with results that have the status and the headers of the answer."""
        return RawBatches(self._client)


class BlockingBatches(_BatchFlows):
    """Trigger runs of several tasks in one step, blocking the caller.

    Example:
        >>> from runwell.sync import batch
        >>> def welcome(address: str) -> str:
        ...     return batch.trigger([("send-welcome", {"to": address})]).batch_id
    """

    def trigger(
        self, items: Iterable[tuple[str, object]], **options: Unpack[BatchOptions]
    ) -> BatchHandle[Json]:
        """Trigger up to 1,000 runs, each a task's id and a payload or `item(payload, ...)`."""
        return self._client.run_blocking(self._trigger(items, options))

    def trigger_by_task(
        self, items: Iterable[tuple[AnyTask, object]], **options: Unpack[BatchOptions]
    ) -> BatchHandle[object]:
        """Trigger up to 1,000 runs, each a task and a payload, which is checked before."""
        return self._client.run_blocking(self._trigger_by_task(items, options))

    def trigger_and_wait(
        self, items: Iterable[tuple[str, object]], **options: Unpack[BatchOptions]
    ) -> BatchResult[Json]:
        """Trigger a batch and let the current run wait for all of it, blocking the caller."""
        entries = read_entries(items, lambda pair: entry_of_id(*pair))
        return cast("BatchResult[Json]", batch_and_block(entries, options))

    def trigger_by_task_and_wait(
        self, items: Iterable[tuple[AnyTask, object]], **options: Unpack[BatchOptions]
    ) -> BatchResult[object]:
        """Trigger a batch of tasks and let the current run wait for all of it, blocking."""
        entries = read_entries(items, lambda pair: pair[0].batch_entry(pair[1]))
        return batch_and_block(entries, options)

    def retrieve(
        self,
        batch: str | BatchHandle[object],
        *,
        request_options: RequestOptions | None = None,
    ) -> BatchObject:
        """Fetch a batch: `status` is "COMPLETED" once all of its runs have ended."""
        return self._client.run_blocking(retrieve_flow(self._client, batch, request_options))

    @cached_property
    def with_raw_response(self) -> "RawBlockingBatches":
        """What doesn't wait, with results that have the status and the headers of the answer."""
        return RawBlockingBatches(self._client)


class RawBatches:
    """Methods for batches whose results come with the server's answer."""

    def __init__(self, client: ApiClient) -> None:
        self.trigger = raw(Batches, client, Batches.trigger)
        self.trigger_by_task = raw(Batches, client, Batches.trigger_by_task)
        self.retrieve = raw(Batches, client, Batches.retrieve)


class RawBlockingBatches:
    """Methods for batches whose results come with the server's answer, blocking."""

    def __init__(self, client: ApiClient) -> None:
        made = BlockingBatches
        self.trigger = blocking_raw(made, client, made.trigger)
        self.trigger_by_task = blocking_raw(made, client, made.trigger_by_task)
        self.retrieve = blocking_raw(made, client, made.retrieve)


batch = Batches(default_client)
blocking_batch = BlockingBatches(default_client)
