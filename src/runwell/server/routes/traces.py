"""Traces of runs: the whole tree, or parts of it."""

from starlette.requests import Request

from runwell.core.trace_schemas import EventPage, SpanPage, TraceAnswer, TraceSpan
from runwell.engine import traces
from runwell.server.backend import Backend
from runwell.server.http import Answer, answer, integer_parameter, path_text
from runwell.server.operations import Operation, Parameter

_DEFAULT_TREE = 1_000
_DEFAULT_PAGE = 200
_NO_RUN = (404, "There is no such run in the key's environment.")
_NO_SPAN = (404, "There is no such run in the key's environment, or no such span in its trace.")
_PAGE = (
    Parameter(name="after", description="The `next` of a page"),
    Parameter(name="limit", description=f"1 to {traces.MAX_PAGE} spans", type="integer"),
)


async def read_trace(request: Request, backend: Backend) -> Answer:
    """The tree of a run."""
    environment = await backend.authenticate(request)
    run_id = path_text(request, "runId")
    limit = integer_parameter(
        request, "limit", default=_DEFAULT_TREE, least=1, most=traces.MAX_TREE
    )
    async with backend.db.transaction() as tx:
        return answer(await traces.read_trace(tx, environment, run_id, limit=limit))


async def list_events(request: Request, backend: Backend) -> Answer:
    """The spans and lines of a run, flat."""
    environment = await backend.authenticate(request)
    run_id, (after, limit) = path_text(request, "runId"), _read_page(request)
    async with backend.db.transaction() as tx:
        return answer(await traces.list_events(tx, environment, run_id, after=after, limit=limit))


async def list_children(request: Request, backend: Backend) -> Answer:
    """What is right under a span."""
    environment = await backend.authenticate(request)
    run_id, span_id = path_text(request, "runId"), path_text(request, "spanId")
    after, limit = _read_page(request)
    async with backend.db.transaction() as tx:
        page = await traces.list_children(
            tx, environment, run_id, span_id, after=after, limit=limit
        )
    return answer(page)


async def retrieve_span(request: Request, backend: Backend) -> Answer:
    """One span."""
    environment = await backend.authenticate(request)
    run_id, span_id = path_text(request, "runId"), path_text(request, "spanId")
    async with backend.db.transaction() as tx:
        return answer(await traces.get_span(tx, environment, run_id, span_id))


def _read_page(request: Request) -> tuple[str | None, int]:
    limit = integer_parameter(
        request, "limit", default=_DEFAULT_PAGE, least=1, most=traces.MAX_PAGE
    )
    return request.query_params.get("after") or None, limit


operations: list[Operation] = [
    Operation(
        method="GET",
        path="/api/v1/runs/{runId}/trace",
        endpoint=read_trace,
        name="retrieveRunTrace",
        summary="The trace of a run, as a tree of spans and lines",
        tag="traces",
        answer=TraceAnswer,
        answer_description="The tree; `isTruncated` when there is more than `limit`.",
        parameters=(
            Parameter(
                name="limit",
                description=f"1 to {traces.MAX_TREE} spans and lines",
                type="integer",
            ),
        ),
        refusals=(_NO_RUN,),
    ),
    Operation(
        method="GET",
        path="/api/v1/runs/{runId}/events",
        endpoint=list_events,
        name="listRunEvents",
        summary="The spans and lines of a run in the order of time",
        tag="traces",
        answer=EventPage,
        answer_description="A page, with the cursor to read on from.",
        parameters=_PAGE,
        refusals=(_NO_RUN,),
    ),
    Operation(
        method="GET",
        path="/api/v1/runs/{runId}/spans/{spanId}",
        endpoint=retrieve_span,
        name="retrieveSpan",
        summary="One span of a run, with all of its attributes and events",
        tag="traces",
        answer=TraceSpan,
        answer_description="The span, without what is under it.",
        refusals=(_NO_SPAN,),
    ),
    Operation(
        method="GET",
        path="/api/v1/runs/{runId}/spans/{spanId}/children",
        endpoint=list_children,
        name="listSpanChildren",
        summary="What is right under a span of a run, in parts",
        tag="traces",
        answer=SpanPage,
        answer_description="A page in the order of time, with the cursor to read on from.",
        parameters=_PAGE,
        refusals=(_NO_RUN,),
    ),
]
