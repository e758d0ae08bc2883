"""What is done to runs after their trigger: replay, reschedule, tags, metadata."""

import json

from starlette.requests import Request

from runwell.core.payloads import MAX_PAYLOAD_BYTES
from runwell.core.schemas import (
    MessageAnswer,
    MetadataAnswer,
    MetadataBody,
    ReplayBody,
    ReplayedRun,
    RescheduleBody,
    RunObject,
    TagsBody,
)
from runwell.engine import replays, rescheduling, run_metadata, run_tags
from runwell.server.admission import admit_run
from runwell.server.backend import Backend
from runwell.server.http import (
    MEGABYTE,
    REQUEST_KEY_HEADER,
    Answer,
    answer,
    parse_model,
    path_text,
    read_body,
    read_model,
    request_key,
)
from runwell.server.large_payloads import settle_payload
from runwell.server.operations import Operation, Parameter
from runwell.server.run_objects import is_4x, run_object

_NO_RUN = (404, "There is no such run in the key's environment.")
REQUEST_KEY = Parameter(
    name=REQUEST_KEY_HEADER,
    place="header",
    description="A text that is the same when this request is sent again",
)


async def replay(request: Request, backend: Backend) -> Answer:
    """Trigger a copy of a run; the body says what is to differ, if anything."""
    environment = await backend.authenticate(request)
    run_id = path_text(request, "runId")
    raw = await read_body(request, limit=2 * MAX_PAYLOAD_BYTES + MEGABYTE)
    changed = None
    # Clients that send no body send a content type all the same.
    body = parse_model(raw, ReplayBody) if raw.strip() else ReplayBody()
    named = request_key(request)
    await admit_run(backend, environment, "", request_key=named)
    if "payload" in body.model_fields_set:
        payload, payload_type = await settle_payload(
            backend, environment, body.payload, body.payload_type
        )
        changed = replays.ChangedPayload(payload=payload, payload_type=payload_type)
    replayed = await replays.replay_run(
        backend.db,
        environment,
        run_id,
        changed=changed,
        request_key=named,
        now=backend.now(),
    )
    backend.wake_dequeuers((environment.id,))
    return answer(ReplayedRun(id=replayed.run_id))


async def reschedule(request: Request, backend: Backend) -> Answer:
    """Give a delayed run another delay."""
    environment = await backend.authenticate(request)
    run_id = path_text(request, "runId")
    body = await read_model(request, RescheduleBody)
    run = await rescheduling.reschedule_run(
        backend.db, environment, run_id, body.delay, now=backend.now()
    )
    return answer(
        run_object(
            run,
            is_4x=is_4x(request),
            download_url=lambda path: backend.download_url(request, environment, path),
        )
    )


async def add_tags(request: Request, backend: Backend) -> Answer:
    """Add tags that a run doesn't have yet."""
    environment = await backend.authenticate(request)
    run_id = path_text(request, "runId")
    body = await read_model(request, TagsBody)
    added = await run_tags.add_tags(backend.db, environment, run_id, body.tags, now=backend.now())
    message = f"Successfully set {added} new tags." if added else "No new tags to add"
    return answer(MessageAnswer(message=message))


async def change_metadata(request: Request, backend: Backend) -> Answer:
    """Change the metadata of a run, its parent and its root."""
    environment = await backend.authenticate(request)
    run_id = path_text(request, "runId")
    body = await read_model(request, MetadataBody, limit=MEGABYTE)
    changed = await run_metadata.change_metadata(
        backend.db,
        environment,
        run_id,
        body,
        request_key=request_key(request),
        now=backend.now(),
    )
    return answer(MetadataAnswer(metadata=changed))


async def read_metadata(request: Request, backend: Backend) -> Answer:
    """Read the metadata of a run."""
    environment = await backend.authenticate(request)
    async with backend.db.connection() as tx:
        row = await run_metadata.read_metadata(tx, environment, path_text(request, "runId"))
    flushed = f"{row['lease_id']}.{row['seq']}"
    return answer(MetadataAnswer(metadata=json.loads(row["metadata"] or "{}"), flushed=flushed))


operations: list[Operation] = [
    Operation(
        method="POST",
        path="/api/v1/runs/{runId}/replay",
        endpoint=replay,
        name="replayRun",
        summary="Trigger a copy of a run on the latest version",
        tag="runs",
        body=ReplayBody,
        needs_body=False,
        answer=ReplayedRun,
        answer_description="The new run.",
        parameters=(REQUEST_KEY,),
        refusals=(_NO_RUN, (422, "The run can't be triggered again.")),
    ),
    Operation(
        method="POST",
        path="/api/v1/runs/{runId}/reschedule",
        endpoint=reschedule,
        name="rescheduleRun",
        summary="Give a delayed run another delay",
        tag="runs",
        body=RescheduleBody,
        answer=RunObject,
        answer_description="The run, with its new delay.",
        refusals=((400, "The run isn't delayed, or the delay is unreadable or over."), _NO_RUN),
    ),
    Operation(
        method="POST",
        path="/api/v1/runs/{runId}/tags",
        endpoint=add_tags,
        name="addTags",
        summary="Add tags to a run",
        tag="runs",
        body=TagsBody,
        answer=MessageAnswer,
        answer_description="How many tags are new.",
        refusals=(_NO_RUN, (422, "The run would have more than ten tags.")),
    ),
    Operation(
        method="PUT",
        path="/api/v1/runs/{runId}/metadata",
        endpoint=change_metadata,
        name="updateMetadata",
        summary="Change the metadata of a run, its parent and its root",
        tag="runs",
        body=MetadataBody,
        answer=MetadataAnswer,
        answer_description="The run's metadata as it is then.",
        parameters=(REQUEST_KEY,),
        refusals=(_NO_RUN, (422, "The run has ended, or metadata would be too large.")),
    ),
    Operation(
        method="GET",
        path="/api/v1/runs/{runId}/metadata",
        endpoint=read_metadata,
        name="readMetadata",
        summary="Read the metadata of a run",
        tag="runs",
        answer=MetadataAnswer,
        answer_description="The run's metadata.",
        refusals=(_NO_RUN,),
    ),
]
