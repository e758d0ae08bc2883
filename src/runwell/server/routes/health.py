"""Whether the server lives and is ready."""

from pydantic import BaseModel
from starlette.requests import Request

from runwell._version import __version__
from runwell.engine import migrations
from runwell.server.backend import Backend
from runwell.server.http import Answer, answer, error_answer
from runwell.server.operations import Operation


class Health(BaseModel):
    """The server answers."""

    status: str = "ok"
    version: str = __version__


async def healthz(_request: Request, _backend: Backend) -> Answer:
    """Say that the process lives, whatever the database does."""
    return answer(Health())


async def readyz(_request: Request, backend: Backend) -> Answer:
    """Say that the database answers and has the schema of this version."""
    if not await migrations.is_current(backend.db):
        return error_answer(
            503, "the database is not at this server's schema: a migration is missing or running"
        )
    return answer(Health(status="ready"))


operations: list[Operation] = [
    Operation(
        method="GET",
        path="/healthz",
        endpoint=healthz,
        name="health",
        summary="Whether the process lives",
        tag="server",
        answer=Health,
    ),
    Operation(
        method="GET",
        path="/readyz",
        endpoint=readyz,
        name="readiness",
        summary="Whether requests can be served: the database answers and is migrated",
        tag="server",
        answer=Health,
    ),
]
