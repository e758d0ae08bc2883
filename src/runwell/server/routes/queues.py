"""Queues: list, retrieve, pause, resume, other limits; and the same for the key's environment."""

from typing import Literal

from pydantic import BaseModel
from pydantic_core import to_json
from starlette.requests import Request

from runwell.core.errors import RequestError
from runwell.core.queue_schemas import (
    EnvironmentLimitBody,
    EnvironmentObject,
    EnvironmentPauseBody,
    NumberedPagination,
    OverrideBody,
    PauseBody,
    QueueConcurrency,
    QueueList,
    QueueObject,
    RateLimitObject,
    ResetBody,
)
from runwell.engine import environments, queue_settings
from runwell.engine.environments import Environment
from runwell.engine.queue_settings import Queue, QueueReference
from runwell.server.backend import Backend
from runwell.server.http import Answer, answer, integer_parameter, path_text, read_model
from runwell.server.operations import Operation, Parameter

_DEFAULT_PAGE_SIZE = 25
_MAX_PAGE_SIZE = 100
_MAX_PAGE = 1_000_000
_TYPES = ("id", "task", "custom")
_NO_QUEUE = (404, "There is no such queue in the key's environment.")


async def list_queues(request: Request, backend: Backend) -> Answer:
    """List queues by their names."""
    environment = await backend.authenticate(request)
    number = integer_parameter(request, "page", default=1, least=1, most=_MAX_PAGE)
    size = integer_parameter(
        request, "perPage", default=_DEFAULT_PAGE_SIZE, least=1, most=_MAX_PAGE_SIZE
    )
    async with backend.db.transaction() as tx:
        page = await queue_settings.list_queues(tx, environment, page=number, page_size=size)
    return _answer(
        QueueList(
            data=[_queue_object(queue) for queue in page.queues],
            pagination=NumberedPagination(
                current_page=number, total_pages=max(1, -(-page.count // size)), count=page.count
            ),
        )
    )


async def retrieve(request: Request, backend: Backend) -> Answer:
    """Show a queue."""
    environment = await backend.authenticate(request)
    kind = request.query_params.get("type", "id")
    if kind not in _TYPES:
        raise RequestError(400, f"type must be id, task or custom, not {kind[:32]!r}")
    reference = _reference(request, kind)
    async with backend.db.transaction() as tx:
        queue = await queue_settings.get_queue(tx, environment, reference)
    return _answer(_queue_object(queue))


async def pause(request: Request, backend: Backend) -> Answer:
    """Hold new starts of a queue, or go on with it."""
    environment = await backend.authenticate(request)
    body = await read_model(request, PauseBody)
    queue = await queue_settings.set_paused(
        backend.db,
        environment,
        _reference(request, body.type),
        is_paused=body.action == "pause",
    )
    backend.wake_dequeuers([environment.id])
    return _answer(_queue_object(queue))


async def override(request: Request, backend: Backend) -> Answer:
    """Put another limit over the code's."""
    environment = await backend.authenticate(request)
    body = await read_model(request, OverrideBody)
    queue = await queue_settings.override_limit(
        backend.db,
        environment,
        _reference(request, body.type),
        body.concurrency_limit,
        now=backend.now(),
    )
    backend.wake_dequeuers([environment.id])
    return _answer(_queue_object(queue))


async def reset(request: Request, backend: Backend) -> Answer:
    """Let the code's limit hold again."""
    environment = await backend.authenticate(request)
    body = await read_model(request, ResetBody)
    queue = await queue_settings.reset_limit(
        backend.db, environment, _reference(request, body.type)
    )
    backend.wake_dequeuers([environment.id])
    return _answer(_queue_object(queue))


async def show_environment(request: Request, backend: Backend) -> Answer:
    """Show the key's environment."""
    environment = await backend.authenticate(request)
    return await _answer_environment(backend, environment)


async def pause_environment(request: Request, backend: Backend) -> Answer:
    """Hold new starts of the whole environment, or go on with it."""
    environment = await backend.authenticate(request)
    body = await read_model(request, EnvironmentPauseBody)
    await environments.set_paused(backend.db, environment, is_paused=body.action == "pause")
    backend.wake_dequeuers([environment.id])
    return await _answer_environment(backend, environment)


async def limit_environment(request: Request, backend: Backend) -> Answer:
    """Set how many runs of the environment may execute at once."""
    environment = await backend.authenticate(request)
    body = await read_model(request, EnvironmentLimitBody)
    await environments.set_concurrency_limit(backend.db, environment, body.concurrency_limit)
    backend.wake_dequeuers([environment.id])
    return await _answer_environment(backend, environment)


def _reference(request: Request, kind: Literal["id", "task", "custom"]) -> QueueReference:
    # Clients encode a slash twice, so that no proxy takes it for one of the path.
    value = path_text(request, "queue").replace("%2F", "/").replace("%2f", "/")
    return QueueReference(type=kind, value=value)


def _answer(model: BaseModel) -> Answer:
    # Of a queue, clients want null where there is no limit.
    return Answer(to_json(model, by_alias=True))


async def _answer_environment(backend: Backend, environment: Environment) -> Answer:
    async with backend.db.connection() as tx:
        load = await environments.get_load(tx, environment)
    return answer(
        EnvironmentObject(
            id=environment.public_id,
            name=environment.slug,
            type=environment.type,
            running=load.running,
            queued=load.queued,
            has_more_queued=load.has_more_queued,
            paused=load.is_paused,
            concurrency_limit=load.concurrency_limit,
        )
    )


def _queue_object(queue: Queue) -> QueueObject:
    return QueueObject(
        id=queue.id,
        name=queue.task_id or queue.name,
        type="custom" if queue.task_id is None else "task",
        running=queue.running,
        queued=queue.queued,
        has_more_queued=queue.has_more_queued,
        paused=queue.is_paused,
        concurrency_limit=queue.concurrency_limit,
        concurrency=QueueConcurrency(
            current=queue.concurrency_limit,
            base=queue.base_limit,
            override=queue.limit_override,
            overridden_at=queue.overridden_at,
        ),
        rate_limits=[
            RateLimitObject(limit=rate.limit, window_seconds=rate.window_seconds, per=rate.per)
            for rate in queue.rate_limits
        ],
    )


operations: list[Operation] = [
    Operation(
        method="GET",
        path="/api/v1/queues",
        endpoint=list_queues,
        name="listQueues",
        summary="List queues by their names",
        tag="queues",
        answer=QueueList,
        answer_description="A page of queues. `queued` counts up to 10,000.",
        parameters=(
            Parameter(name="page", description="The number of the page, from 1", type="integer"),
            Parameter(name="perPage", description=f"1 to {_MAX_PAGE_SIZE} queues", type="integer"),
        ),
    ),
    Operation(
        method="POST",
        path="/api/v1/queues/{queue:path}/pause",
        endpoint=pause,
        name="pauseQueue",
        summary="Pause a queue, or resume it",
        tag="queues",
        body=PauseBody,
        answer=QueueObject,
        answer_description="The queue as it is now. What executes goes on.",
        refusals=(_NO_QUEUE,),
    ),
    Operation(
        method="POST",
        path="/api/v1/queues/{queue:path}/concurrency/override",
        endpoint=override,
        name="overrideQueueConcurrency",
        summary="Put another concurrency limit over a queue's own",
        tag="queues",
        body=OverrideBody,
        answer=QueueObject,
        answer_description="The queue as it is now.",
        refusals=(_NO_QUEUE, (422, "The limit is more than that of the environment.")),
    ),
    Operation(
        method="POST",
        path="/api/v1/queues/{queue:path}/concurrency/reset",
        endpoint=reset,
        name="resetQueueConcurrency",
        summary="Let a queue's own concurrency limit hold again",
        tag="queues",
        body=ResetBody,
        answer=QueueObject,
        answer_description="The queue as it is now.",
        refusals=(_NO_QUEUE,),
    ),
    Operation(
        method="GET",
        path="/api/v1/queues/{queue:path}",
        endpoint=retrieve,
        name="retrieveQueue",
        summary="Retrieve a queue by its id, its name, or the task whose own it is",
        tag="queues",
        answer=QueueObject,
        answer_description="The queue.",
        parameters=(
            Parameter(name="type", description="What the URL names: `id`, `task` or `custom`"),
        ),
        refusals=(_NO_QUEUE,),
    ),
    Operation(
        method="GET",
        path="/api/v1/environment",
        endpoint=show_environment,
        name="retrieveEnvironment",
        summary="Show the key's environment: what it runs, and may run",
        tag="queues",
        answer=EnvironmentObject,
        answer_description="The environment.",
    ),
    Operation(
        method="POST",
        path="/api/v1/environment/pause",
        endpoint=pause_environment,
        name="pauseEnvironment",
        summary="Pause the whole environment, or resume it",
        tag="queues",
        body=EnvironmentPauseBody,
        answer=EnvironmentObject,
        answer_description="The environment as it is now. What executes goes on.",
    ),
    Operation(
        method="POST",
        path="/api/v1/environment/concurrency",
        endpoint=limit_environment,
        name="limitEnvironment",
        summary="Set how many runs of the environment may execute at once",
        tag="queues",
        body=EnvironmentLimitBody,
        answer=EnvironmentObject,
        answer_description="The environment as it is now.",
    ),
]
