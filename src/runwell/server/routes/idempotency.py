"""Idempotency keys: giving one up before its time."""

from starlette.requests import Request

from runwell.core.payloads import check_text
from runwell.core.schemas import ResetKeyAnswer, ResetKeyBody
from runwell.engine.idempotency import reset_key
from runwell.server.backend import Backend
from runwell.server.http import Answer, answer, path_text, read_model
from runwell.server.operations import Operation


async def reset(request: Request, backend: Backend) -> Answer:
    """Give a key up; one that no run has is given up already."""
    environment = await backend.authenticate(request)
    body = await read_model(request, ResetKeyBody)
    check_text(body.task_identifier, what="taskIdentifier")
    key = path_text(request, "key")
    was_taken = await reset_key(backend.db, environment, body.task_identifier, key)
    return answer(ResetKeyAnswer(id=key, was_taken=was_taken))


operations: list[Operation] = [
    Operation(
        method="POST",
        path="/api/v1/idempotencyKeys/{key:path}/reset",
        endpoint=reset,
        name="resetIdempotencyKey",
        summary="Let the next trigger with this key make a new run",
        tag="runs",
        body=ResetKeyBody,
        answer=ResetKeyAnswer,
        answer_description="Done; `wasTaken` says whether a run had the key.",
    ),
]
