"""`queues`: list, retrieve, pause and resume queues, and put other limits over theirs."""

from collections.abc import Callable, Coroutine
from typing import Literal, Self
from urllib.parse import quote

from runwell.client.api import ApiClient
from runwell.client.options import MAX_CONCURRENCY_LIMIT, Queue, read_whole
from runwell.client.pages import BlockingPage, Listing, Page, around_number, number_query
from runwell.client.transport import Call, Flow, RequestOptions, json_body
from runwell.core.queue_schemas import QueueList, QueueObject

#: A queue is named by its id, by its name, or by an object of it.
QueueReference = str | Queue | QueueObject
#: What a text names: an id, a custom queue, or the task whose own queue is meant.
QueueKind = Literal["id", "task", "custom"]

MAX_PAGE_SIZE = 100
_PATH = "/api/v1/queues"


class QueueFlows:
    """What both kinds of caller do, as flows."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def list_flow(
        self, page: int, per_page: int | None, options: RequestOptions | None
    ) -> Flow[QueueList]:
        """Ask for a page."""
        query = number_query(page, per_page, MAX_PAGE_SIZE)
        return self._client.ask(
            Call(method="GET", path=_PATH, query=query, options=options), QueueList
        )

    def retrieve_flow(
        self, queue: QueueReference, kind: QueueKind | None, options: RequestOptions | None
    ) -> Flow[QueueObject]:
        """Ask for a queue."""
        name, kind = _read_reference(queue, kind)
        call = Call(method="GET", path=f"{_PATH}/{name}", query={"type": kind}, options=options)
        return self._client.ask(call, QueueObject)

    def pause_flow(
        self,
        queue: QueueReference,
        kind: QueueKind | None,
        action: Literal["pause", "resume"],
        options: RequestOptions | None,
    ) -> Flow[QueueObject]:
        """Pause or resume."""
        name, kind = _read_reference(queue, kind)
        return self._post(f"{name}/pause", {"type": kind, "action": action}, options)

    def override_flow(
        self,
        queue: QueueReference,
        kind: QueueKind | None,
        limit: int,
        options: RequestOptions | None,
    ) -> Flow[QueueObject]:
        """Put a limit over the queue's own."""
        name, kind = _read_reference(queue, kind)
        limit = read_whole("limit", limit, 0, MAX_CONCURRENCY_LIMIT)
        body: dict[str, object] = {"type": kind, "concurrencyLimit": limit}
        return self._post(f"{name}/concurrency/override", body, options)

    def reset_flow(
        self, queue: QueueReference, kind: QueueKind | None, options: RequestOptions | None
    ) -> Flow[QueueObject]:
        """Let the queue's own limit hold again."""
        name, kind = _read_reference(queue, kind)
        return self._post(f"{name}/concurrency/reset", {"type": kind}, options)

    def _post(
        self, rest: str, body: dict[str, object], options: RequestOptions | None
    ) -> Flow[QueueObject]:
        # Each may be sent again: doing it twice is doing it once.
        call = Call(method="POST", path=f"{_PATH}/{rest}", body=json_body(body), options=options)
        return self._client.ask(call, QueueObject)


class QueuePage(Page[QueueObject, int]):
    """A page of queues by their names. `async for` goes on from it to the last queue.

    Example:
        >>> from runwell import queues
        >>> async def paused() -> list[str]:
        ...     return [queue.name async for queue in queues.list() if queue.paused]
    """

    def __init__(
        self, found: QueueList, ask: Callable[[int], Coroutine[object, None, Self]]
    ) -> None:
        at = found.pagination
        super().__init__(found.data, around_number(at.current_page, at.total_pages), ask)
        self.pagination = at


class BlockingQueuePage(BlockingPage[QueueObject, int]):
    """A page of queues by their names. `for` goes on from it to the last queue.

    Example:
        >>> from runwell.sync import queues
        >>> def paused() -> list[str]:
        ...     return [queue.name for queue in queues.list() if queue.paused]
    """

    def __init__(self, found: QueueList, ask: Callable[[int], Self]) -> None:
        at = found.pagination
        super().__init__(found.data, around_number(at.current_page, at.total_pages), ask)
        self.pagination = at


class Queues(QueueFlows):
    """List, retrieve, pause and resume queues, and put other limits over theirs.

    A queue is named by its id (`queue_...`), by its name, or by any object of it. `type="task"`
    says that the name is a task's id, and means the queue that is the task's own.

    Example:
        >>> from runwell import queues
        >>> async def stop_sending() -> int:
        ...     queue = await queues.pause("send-mail", type="task")
        ...     return queue.running
    """

    def list(
        self,
        *,
        page: int = 1,
        per_page: int | None = None,
        request_options: RequestOptions | None = None,
    ) -> Listing[QueueObject, QueuePage]:
        """The queues by their names: `await` a page, or `async for` over all.

        A page has 25 queues unless told otherwise, up to 100. `queued` counts up to 10,000.
        """

        async def ask(number: int) -> QueuePage:
            flow = self.list_flow(number, per_page, request_options)
            return QueuePage(await self._client.run(flow), ask)

        return Listing(lambda: ask(page))

    async def retrieve(
        self,
        queue: QueueReference,
        *,
        type: QueueKind | None = None,  # noqa: A002 (the name of the platform's documentation)
        request_options: RequestOptions | None = None,
    ) -> QueueObject:
        """Fetch a queue with what runs and waits in it; NotFoundError without one."""
        return await self._client.run(self.retrieve_flow(queue, type, request_options))

    async def pause(
        self,
        queue: QueueReference,
        *,
        type: QueueKind | None = None,  # noqa: A002 (the name of the platform's documentation)
        request_options: RequestOptions | None = None,
    ) -> QueueObject:
        """Let no more runs of a queue start; those that execute go on."""
        return await self._client.run(self.pause_flow(queue, type, "pause", request_options))

    async def resume(
        self,
        queue: QueueReference,
        *,
        type: QueueKind | None = None,  # noqa: A002 (the name of the platform's documentation)
        request_options: RequestOptions | None = None,
    ) -> QueueObject:
        """Let runs of a paused queue start again."""
        return await self._client.run(self.pause_flow(queue, type, "resume", request_options))

    async def override_concurrency_limit(
        self,
        queue: QueueReference,
        limit: int,
        *,
        type: QueueKind | None = None,  # noqa: A002 (the name of the platform's documentation)
        request_options: RequestOptions | None = None,
    ) -> QueueObject:
        """Put another concurrency limit over the code's, through deploys, until it is reset."""
        return await self._client.run(self.override_flow(queue, type, limit, request_options))

    async def reset_concurrency_limit(
        self,
        queue: QueueReference,
        *,
        type: QueueKind | None = None,  # noqa: A002 (the name of the platform's documentation)
        request_options: RequestOptions | None = None,
    ) -> QueueObject:
        """Let the concurrency limit of the code hold again."""
        return await self._client.run(self.reset_flow(queue, type, request_options))


class BlockingQueues(QueueFlows):
    """List, retrieve, pause and resume queues, and put other limits over theirs, blocking.

    Example:
        >>> from runwell.sync import queues
        >>> def slow_down() -> None:
        ...     queues.override_concurrency_limit("reports", 1)
    """

    def list(
        self,
        *,
        page: int = 1,
        per_page: int | None = None,
        request_options: RequestOptions | None = None,
    ) -> BlockingQueuePage:
        """A page of the queues by their names; `for` goes on to the last."""

        def ask(number: int) -> BlockingQueuePage:
            flow = self.list_flow(number, per_page, request_options)
            return BlockingQueuePage(self._client.run_blocking(flow), ask)

        return ask(page)

    def retrieve(
        self,
        queue: QueueReference,
        *,
        type: QueueKind | None = None,  # noqa: A002 (the name of the platform's documentation)
        request_options: RequestOptions | None = None,
    ) -> QueueObject:
        """Fetch a queue with what runs and waits in it; NotFoundError without one."""
        return self._client.run_blocking(self.retrieve_flow(queue, type, request_options))

    def pause(
        self,
        queue: QueueReference,
        *,
        type: QueueKind | None = None,  # noqa: A002 (the name of the platform's documentation)
        request_options: RequestOptions | None = None,
    ) -> QueueObject:
        """Let no more runs of a queue start; those that execute go on."""
        return self._client.run_blocking(self.pause_flow(queue, type, "pause", request_options))

    def resume(
        self,
        queue: QueueReference,
        *,
        type: QueueKind | None = None,  # noqa: A002 (the name of the platform's documentation)
        request_options: RequestOptions | None = None,
    ) -> QueueObject:
        """Let runs of a paused queue start again."""
        return self._client.run_blocking(self.pause_flow(queue, type, "resume", request_options))

    def override_concurrency_limit(
        self,
        queue: QueueReference,
        limit: int,
        *,
        type: QueueKind | None = None,  # noqa: A002 (the name of the platform's documentation)
        request_options: RequestOptions | None = None,
    ) -> QueueObject:
        """Put another concurrency limit over the code's, through deploys, until it is reset."""
        return self._client.run_blocking(self.override_flow(queue, type, limit, request_options))

    def reset_concurrency_limit(
        self,
        queue: QueueReference,
        *,
        type: QueueKind | None = None,  # noqa: A002 (the name of the platform's documentation)
        request_options: RequestOptions | None = None,
    ) -> QueueObject:
        """Let the concurrency limit of the code hold again."""
        return self._client.run_blocking(self.reset_flow(queue, type, request_options))


def _read_reference(queue: QueueReference, kind: QueueKind | None) -> tuple[str, QueueKind]:
    if isinstance(queue, QueueObject):
        queue, kind = queue.id, "id"
    elif isinstance(queue, Queue):
        queue, kind = queue.name or "", "custom"
    if not isinstance(queue, str) or not queue.strip("./"):  # pyright: ignore[reportUnnecessaryIsInstance] (what a user may give)
        raise ValueError(
            f"{queue!r} names no queue: give its id ('queue_...') or its name; the queue of a task "
            "is named by the task's id and type='task'"
        )
    if kind is None:
        kind = "id" if queue.startswith("queue_") else "custom"
    elif kind not in ("id", "task", "custom"):
        raise ValueError(f"type={kind!r}: it takes 'id', 'task' or 'custom'")
    # A slash is encoded twice, so that no proxy takes it for one of the path.
    return quote(queue.replace("/", "%2F"), safe=""), kind
