"""Subscriptions to a run, to the runs with some tags, and to those of a batch."""

from starlette.requests import Request

from runwell.core.errors import RequestError
from runwell.core.payloads import check_text
from runwell.core.scopes import Resource
from runwell.engine.shapes import Shape
from runwell.server import auth
from runwell.server.allowed_runs import get_allowed_run
from runwell.server.backend import Backend
from runwell.server.following import follow
from runwell.server.http import Answer, path_text
from runwell.server.operations import Operation, Parameter

#: More tags than a run can have.
_MAX_TAGS = 20


async def follow_run(request: Request, backend: Backend) -> Answer:
    """Answer a subscription to one run."""
    environment = await backend.authenticate(request)
    run_id = path_text(request, "runId")
    if auth.may(request, Resource("runs", run_id)):
        auth.require(request, Resource("runs", run_id))
    else:
        async with backend.db.transaction() as tx:
            await get_allowed_run(request, tx, environment, run_id)
    shape = Shape(kind="run", environment_id=environment.id, of=run_id)
    return await follow(request, backend, environment, shape)


async def follow_tags(request: Request, backend: Backend) -> Answer:
    """Answer a subscription to the runs that have all of some tags."""
    environment = await backend.authenticate(request)
    text = request.query_params.get("tags", "")
    check_text(text, what="tags in the URL")
    tags = tuple(sorted({tag for tag in text.split(",") if tag}))
    if not 1 <= len(tags) <= _MAX_TAGS:
        raise RequestError(
            400, f"tags: give 1 to {_MAX_TAGS} tags with commas between, as in ?tags=user_1,paid"
        )
    auth.require(request, *(Resource("tags", tag) for tag in tags))
    shape = Shape(kind="tags", environment_id=environment.id, of=tags)
    return await follow(request, backend, environment, shape)


async def follow_batch(request: Request, backend: Backend) -> Answer:
    """Answer a subscription to the runs of a batch."""
    environment = await backend.authenticate(request)
    shape = Shape(kind="batch", environment_id=environment.id, of=path_text(request, "batchId"))
    return await follow(request, backend, environment, shape)


_DESCRIPTION = (
    "Rows of runs as a JSON array, in the shape protocol of Electric; a live request is held until "
    "something changes, for 20 seconds at most."
)
_REFETCH = (409, "The handle is of another shape or database: begin anew with offset=-1.")
_PARAMETERS = (
    Parameter(name="offset", description="-1 to begin, then `electric-offset` of the last answer"),
    Parameter(name="handle", description="`electric-handle` of the last answer"),
    Parameter(name="live", description="Wait for a change", type="boolean"),
    Parameter(name="cursor", description="`electric-cursor` of the last answer; not read"),
    Parameter(name="skipColumns", description="Columns to leave out, with commas between"),
)

operations: list[Operation] = [
    Operation(
        method="GET",
        path="/realtime/v1/runs/{runId}",
        endpoint=follow_run,
        name="followRun",
        summary="Follow a run live",
        tag="realtime",
        answer_description=_DESCRIPTION,
        parameters=_PARAMETERS,
        refusals=((404, "There is no such run in the environment of the key."), _REFETCH),
    ),
    Operation(
        method="GET",
        path="/realtime/v1/runs",
        endpoint=follow_tags,
        name="followTags",
        summary="Follow the runs that have all of some tags",
        tag="realtime",
        answer_description=_DESCRIPTION,
        parameters=(
            Parameter(name="tags", description="Tags with commas between"),
            Parameter(name="createdAt", description="Only runs created so long before: `1h`, `7d`"),
            *_PARAMETERS,
        ),
        refusals=(_REFETCH,),
    ),
    Operation(
        method="GET",
        path="/realtime/v1/batches/{batchId}",
        endpoint=follow_batch,
        name="followBatch",
        summary="Follow the runs of a batch",
        tag="realtime",
        answer_description=_DESCRIPTION,
        parameters=_PARAMETERS,
        refusals=((404, "There is no such batch in the environment of the key."), _REFETCH),
    ),
]
