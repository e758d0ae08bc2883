"""What a worker says to the server: connect, dequeue, heartbeat, report, disconnect."""

from pydantic import BaseModel
from starlette.requests import Request

from runwell.core.errors import RequestError
from runwell.core.protocol import (
    ConnectBody,
    DequeueAnswer,
    DequeueBody,
    DequeuedRun,
    DisconnectBody,
    HeartbeatAnswer,
    HeartbeatBody,
    ReportAnswer,
    ReportBody,
)
from runwell.core.variable_schemas import AllVariables, ConnectedAnswer
from runwell.engine import attempts, queues, variables, workers
from runwell.server.backend import Backend, runs_topic, worker_topic
from runwell.server.http import MEGABYTE, Answer, answer, read_model
from runwell.server.operations import Operation

#: Outputs are up to 10 MB, and a text may grow when it is written as JSON within JSON.
MAX_REPORT_BYTES = 64 * MEGABYTE
_PREFIX = "/engine/v1/worker-actions"
_UNKNOWN = (409, "The worker's lease has ended, or it is unknown here: it must connect again.")


class Empty(BaseModel):
    """An object without fields."""


async def connect(request: Request, backend: Backend) -> Answer:
    """A supervisor starts."""
    environment = await backend.authenticate(request)
    body = await read_model(request, ConnectBody)
    now = backend.now()
    connected = await workers.connect(
        backend.db, environment, body, now=now, lease_seconds=backend.lease_seconds
    )
    # A previous worker of the same folder may have given runs back.
    backend.wake_dequeuers([environment.id])
    backend.wake_waiting()
    cipher = await backend.get_cipher()
    async with backend.db.transaction() as tx:
        found = await variables.read_all(tx, environment, cipher)
    told = AllVariables(variables=found.values, version=found.version)
    return answer(ConnectedAnswer(**dict(connected), variables=told))


async def dequeue(request: Request, backend: Backend) -> Answer:
    """Hand out runs, at once or as soon as there are some."""
    environment = await backend.authenticate(request)
    body = await read_model(request, DequeueBody)

    async def look() -> list[DequeuedRun] | None:
        found = await queues.dequeue_runs(backend.db, environment, body, now=backend.now())
        return found or None

    found = await backend.polls.find(request, runs_topic(environment.id), look, body.wait_ms)
    if not found:
        return answer(DequeueAnswer(runs=[]))
    changes = await backend.count_variable_changes(request)
    return answer(DequeueAnswer.model_construct(runs=found, variables_version=changes))


async def heartbeat(request: Request, backend: Backend) -> Answer:
    """Renew a lease, and answer when a run is to be stopped."""
    environment = await backend.authenticate(request)
    body = await read_model(request, HeartbeatBody, limit=4 * MEGABYTE)

    async def look() -> HeartbeatAnswer | None:
        found = await workers.heartbeat(backend.db, environment, body, now=backend.now())
        return found if found.canceled or found.lost else None

    # Each look renews the lease, which must not outlive a machine that is cut off by much.
    wait_ms = min(body.wait_ms, round(backend.lease_seconds * 1000 / 3))
    found = await backend.polls.find(request, worker_topic(body.worker_id), look, wait_ms)
    return answer(found or HeartbeatAnswer())


async def report(request: Request, backend: Backend) -> Answer:
    """Apply what happened to runs, in its order."""
    environment = await backend.authenticate(request)
    # A NUL in a log line or an output is the engine's to deal with: a refusal here would make the
    # worker send the same reports for ever.
    body = await read_model(request, ReportBody, limit=MAX_REPORT_BYTES, allows_nul=True)
    if any("\x00" in report.run_id for report in body.reports):
        raise RequestError(400, "reports: a runId has a NUL character, which no run's id has")
    applied = await attempts.apply_reports(backend.db, environment, body, now=backend.now())
    backend.wake_dequeuers(applied.environment_ids)
    if applied.lets_runs_continue:
        backend.wake_waiting()
    return answer(ReportAnswer.model_construct(results=applied.results))


async def disconnect(request: Request, backend: Backend) -> Answer:
    """A supervisor ends; what it holds goes back."""
    environment = await backend.authenticate(request)
    body = await read_model(request, DisconnectBody)
    await workers.disconnect(backend.db, environment, body.worker_id, now=backend.now())
    backend.wake_dequeuers([environment.id])
    backend.wake_waiting()
    return answer(Empty())


operations: list[Operation] = [
    Operation(
        method="POST",
        path=f"{_PREFIX}/dequeue",
        endpoint=dequeue,
        name="dequeue",
        summary="Take runs; waits up to `waitMs` for the first one",
        tag="workers",
        body=DequeueBody,
        answer=DequeueAnswer,
        answer_description="The runs that are now this worker's; none when none came in time.",
        refusals=(_UNKNOWN,),
    ),
    Operation(
        method="POST",
        path=f"{_PREFIX}/report",
        endpoint=report,
        name="report",
        summary="Report what happened to runs",
        tag="workers",
        body=ReportBody,
        answer=ReportAnswer,
        answer_description="A word for each report; the worker is done with all of them.",
    ),
    Operation(
        method="POST",
        path=f"{_PREFIX}/heartbeat",
        endpoint=heartbeat,
        name="heartbeat",
        summary="Renew the worker's lease; waits up to `waitMs` for a run to be canceled",
        tag="workers",
        body=HeartbeatBody,
        answer=HeartbeatAnswer,
        answer_description="The runs that the worker must stop.",
        refusals=(_UNKNOWN,),
    ),
    Operation(
        method="POST",
        path=f"{_PREFIX}/connect",
        endpoint=connect,
        name="connect",
        summary="Start as a worker",
        tag="workers",
        body=ConnectBody,
        answer=ConnectedAnswer,
        answer_description="Who the worker is, and where it works.",
    ),
    Operation(
        method="POST",
        path=f"{_PREFIX}/disconnect",
        endpoint=disconnect,
        name="disconnect",
        summary="End as a worker; what it holds goes back to the queues",
        tag="workers",
        body=DisconnectBody,
        answer=Empty,
    ),
]
