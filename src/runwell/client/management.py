"""`tasks`: trigger a task by its id, without importing its code."""

import importlib
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TypeVar, Unpack, cast

from runwell.client.api import ApiClient, parse_answer
from runwell.client.batching import (
    BatchHandle,
    BatchOptions,
    batch_flow,
    entry_of_id,
    read_entries,
)
from runwell.client.packets import is_large, upload_payload_flow
from runwell.client.public_tokens import token_of_answer
from runwell.client.runs import PollOptions, Run, RunFlows, RunHandle
from runwell.client.transport import Flow
from runwell.client.triggering import TriggerOptions, trigger_call
from runwell.core.payloads import MAX_PAYLOAD_BYTES, STORE_TYPE, Json, encode_value
from runwell.core.schemas import TriggerAnswer

OutputT = TypeVar("OutputT")


class TriggerPollOptions(TriggerOptions, PollOptions, total=False):
    """The options of a trigger, and how its run is polled then."""


def trigger_flow(
    client: ApiClient,
    task_id: str,
    payload: str | None,
    options: TriggerOptions,
    parse_output: Callable[[Json], OutputT] | None = None,
    *,
    is_awaited: bool = False,
) -> Flow[RunHandle[OutputT]]:
    """Trigger a run of a task with a payload that is JSON text; perhaps the current run waits."""
    # Made before an upload as well: one that no trigger follows is of use to nobody.
    call = trigger_call(task_id, payload, options, client.settings, is_awaited=is_awaited)
    if payload is not None and is_large(payload):
        path = yield from upload_payload_flow(client, payload, options.get("request_options"))
        call = trigger_call(
            task_id,
            path,
            options,
            client.settings,
            payload_type=STORE_TYPE,
            is_awaited=is_awaited,
        )
    settings = client.settings
    response = yield from client.request(call)
    answer = parse_answer(call, response, TriggerAnswer)
    return RunHandle(
        answer.id,
        token_of_answer(response, settings, call.options, f"read:runs:{answer.id}"),
        is_cached=answer.is_cached,
        parse_output=parse_output,
    )


class _TaskFlows:
    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def _trigger(
        self, task_id: str, payload: object, options: TriggerOptions
    ) -> Flow[RunHandle[Json]]:
        text = None
        if payload is not None:
            text = encode_value(payload, what="the payload", limit=MAX_PAYLOAD_BYTES)
        return trigger_flow(self._client, task_id, text, options)

    def _batch_trigger(
        self, task_id: str, items: Iterable[object], options: BatchOptions
    ) -> Flow[BatchHandle[Json]]:
        entries = read_entries(items, lambda given: entry_of_id(task_id, given))
        return cast("Flow[BatchHandle[Json]]", batch_flow(self._client, entries, options))

    def _trigger_and_poll(
        self, task_id: str, payload: object, options: TriggerPollOptions
    ) -> Flow[Run[Json]]:
        poll = cast("PollOptions", {k: v for k, v in options.items() if k in _POLL})
        rest = {k: v for k, v in options.items() if k not in _POLL or k == "request_options"}
        handle = yield from self._trigger(task_id, payload, cast("TriggerOptions", rest))
        return cast("Run[Json]", (yield from RunFlows(self._client).poll_flow(handle, poll)))


_POLL = frozenset(PollOptions.__annotations__)


class Tasks(_TaskFlows):
    """Trigger tasks by their id.

    The payload may be anything that has a JSON form; whether it fits the task is found when the run
    starts. To have it checked before, import the task and call its `.trigger()`.

    Example:
        >>> from runwell import tasks
        >>> async def send_welcome(address: str) -> str:
        ...     handle = await tasks.trigger("send-welcome", {"to": address}, delay="10m")
        ...     return handle.id
    """

    async def trigger(
        self, task_id: str, payload: object = None, **options: Unpack[TriggerOptions]
    ) -> RunHandle[Json]:
        """Trigger a run; when this returns, the run is stored and will start."""
        return await self._client.run(self._trigger(task_id, payload, options))

    async def batch_trigger(
        self, task_id: str, items: Iterable[object], **options: Unpack[BatchOptions]
    ) -> BatchHandle[Json]:
        """Trigger up to 1,000 runs in one step, each by a payload or `item(payload, ...)`."""
        return await self._client.run(self._batch_trigger(task_id, items, options))

    async def trigger_and_poll(
        self, task_id: str, payload: object = None, **options: Unpack[TriggerPollOptions]
    ) -> Run[Json]:
        """Trigger a run and fetch it until it has ended; TimeoutError when that takes longer."""
        return await self._client.run(self._trigger_and_poll(task_id, payload, options))

    def in_transaction(self, connection: object) -> AbstractAsyncContextManager[None]:
        """Trigger in the application's own transaction: there are runs if and only if it commits.

        `connection` is one to the database that Runwell uses, with a transaction that you have
        begun: of psycopg or asyncpg, or a session or connection of SQLAlchemy; the async kind.
        Within the block every `.trigger()` and `.batch_trigger()`, of `tasks` or a task, writes
        down through it what is to be triggered; a server makes runs of it as soon as it is
        committed. The block neither commits nor rolls back. It holds for this asyncio task and
        what it starts.

        Raises TypeError for what is no such connection, ValueError for one without a transaction.
        Within the block: ConfigurationError when Runwell isn't in that database, ValueError for
        `debounce`, RunwellError when the current run would wait, and what a trigger raises.

        Example:
            >>> import asyncpg
            >>> from runwell import tasks
            >>> async def sign_up(connection: asyncpg.Connection, address: str) -> None:
            ...     async with connection.transaction(), tasks.in_transaction(connection):
            ...         await connection.execute("INSERT INTO users VALUES ($1)", address)
            ...         await tasks.trigger("send-welcome", {"to": address})
        """
        module = importlib.import_module("runwell.client.transactions")
        return cast("AbstractAsyncContextManager[None]", module.join(connection))


class BlockingTasks(_TaskFlows):
    """Trigger tasks by their id, blocking the caller.

    Example:
        >>> from runwell.sync import tasks
        >>> def send_welcome(address: str) -> str:
        ...     return tasks.trigger("send-welcome", {"to": address}, tags=["welcome"]).id
    """

    def trigger(
        self, task_id: str, payload: object = None, **options: Unpack[TriggerOptions]
    ) -> RunHandle[Json]:
        """Trigger a run; when this returns, the run is stored and will start."""
        return self._client.run_blocking(self._trigger(task_id, payload, options))

    def batch_trigger(
        self, task_id: str, items: Iterable[object], **options: Unpack[BatchOptions]
    ) -> BatchHandle[Json]:
        """Trigger up to 1,000 runs in one step, each by a payload or `item(payload, ...)`."""
        return self._client.run_blocking(self._batch_trigger(task_id, items, options))

    def trigger_and_poll(
        self, task_id: str, payload: object = None, **options: Unpack[TriggerPollOptions]
    ) -> Run[Json]:
        """Trigger a run and fetch it until it has ended; TimeoutError when that takes longer."""
        return self._client.run_blocking(self._trigger_and_poll(task_id, payload, options))

    def in_transaction(self, connection: object) -> AbstractContextManager[None]:
        """Trigger in the application's own transaction: there are runs if and only if it commits.

        `connection` is one to the database that Runwell uses, with a transaction that you have
        begun: of psycopg or Django, or a session or connection of SQLAlchemy. Else as the
        `in_transaction` of `runwell.tasks`; it holds for this thread.

        Example:
            >>> import psycopg
            >>> from runwell.sync import tasks
            >>> def sign_up(connection: psycopg.Connection, address: str) -> None:
            ...     with connection.transaction(), tasks.in_transaction(connection):
            ...         connection.execute("INSERT INTO users VALUES (%s)", [address])
            ...         tasks.trigger("send-welcome", {"to": address})
        """
        module = importlib.import_module("runwell.client.transactions")
        return cast("AbstractContextManager[None]", module.join_blocking(connection))
