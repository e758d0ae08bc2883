"""Versions of a project's tasks."""

from starlette.requests import Request

from runwell.core.errors import RequestError
from runwell.core.protocol import RegisterAnswer, RegisterBody
from runwell.engine import deployments
from runwell.engine.db import Transaction
from runwell.server.backend import Backend
from runwell.server.http import MEGABYTE, Answer, answer, path_text, read_model
from runwell.server.operations import Operation

MAX_MANIFEST_BYTES = 16 * MEGABYTE
#: Stands for the project of the key.
OWN_PROJECT = "~"


async def register(request: Request, backend: Backend) -> Answer:
    """Register a version, and let the runs go that waited for its tasks."""
    environment = await backend.authenticate(request)
    ref = path_text(request, "ref")
    if ref not in (OWN_PROJECT, environment.project.ref):
        raise RequestError(
            404,
            f"this key belongs to the project {environment.project.ref}, not to {ref[:64]!r}: use "
            f"the key of that project, or {OWN_PROJECT!r} for the key's own",
        )
    body = await read_model(request, RegisterBody, limit=MAX_MANIFEST_BYTES)
    now = backend.now()

    async def act(tx: Transaction) -> RegisterAnswer:
        return await deployments.register(tx, environment, body, now=now)

    registered = await backend.db.run(act)
    # Some of the runs that waited for it; a loop does the rest, and again should this fail.
    await backend.db.run(
        lambda tx: deployments.release_waiting_runs(tx, environment.id, now=backend.now())
    )
    backend.wake_dequeuers([environment.id])
    return answer(registered)


operations: list[Operation] = [
    Operation(
        method="POST",
        path="/api/v1/projects/{ref}/background-workers",
        endpoint=register,
        name="registerBackgroundWorker",
        summary="Register a version of a project's tasks and make it current",
        tag="deployments",
        body=RegisterBody,
        answer=RegisterAnswer,
        answer_description="The version; unchanged contents give the version that has them.",
        refusals=((404, "The key is not of this project."),),
    ),
]
