"""What a worker says and asks about the waits of its runs."""

from starlette.requests import Request

from runwell.core.waits import (
    CompletedWait,
    DateWait,
    ResumeAnswer,
    ResumeBody,
    RunsWait,
    WaitAnswer,
    WaitBody,
)
from runwell.engine import waiting, waitpoints
from runwell.server.backend import Backend, resume_topic
from runwell.server.http import MEGABYTE, Answer, answer, read_model
from runwell.server.operations import Operation

_PREFIX = "/engine/v1/worker-actions"


async def wait(request: Request, backend: Backend) -> Answer:
    """A run begins waits, and may be blocked by them."""
    environment = await backend.authenticate(request)
    body = await read_model(request, WaitBody, limit=4 * MEGABYTE)
    begun = await waiting.begin_waits(backend.db, environment, body, now=backend.now())
    if begun.is_blocked or any(isinstance(wait, RunsWait) for wait in body.waits):
        # Slots are free; and runs that were locked for a moment may have been passed over.
        backend.wake_dequeuers([environment.id])
    if any(isinstance(wait, DateWait) for wait in body.waits):
        backend.note_dates()
    # A wait may be complete already, and a slot that was given back may let another run go on.
    backend.wake_waiting()
    if not begun.is_blocked:
        backend.signals.wake(resume_topic(body.worker_id))
    return answer(begun)


async def resume(request: Request, backend: Backend) -> Answer:
    """The results of complete waits, at once or as soon as there are some."""
    environment = await backend.authenticate(request)
    body = await read_model(request, ResumeBody, limit=4 * MEGABYTE)

    async def look() -> list[CompletedWait] | None:
        found = await waitpoints.list_results(backend.db, environment, body)
        body.received = []
        return found or None

    found = await backend.polls.find(request, resume_topic(body.worker_id), look, body.wait_ms)
    return answer(ResumeAnswer.model_construct(waits=found or []))


operations: list[Operation] = [
    Operation(
        method="POST",
        path=f"{_PREFIX}/wait",
        endpoint=wait,
        name="wait",
        summary="Begin waits of a run, and block it when it can do nothing else",
        tag="workers",
        body=WaitBody,
        answer=WaitAnswer,
        answer_description="Whether the run is blocked now, and the waits that can't be.",
    ),
    Operation(
        method="POST",
        path=f"{_PREFIX}/resume",
        endpoint=resume,
        name="resume",
        summary="Ask for the results of waits; waits up to `waitMs` for the first one",
        tag="workers",
        body=ResumeBody,
        answer=ResumeAnswer,
        answer_description="The waits that are complete, of runs that may go on.",
    ),
]
