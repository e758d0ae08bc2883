"""What a worker says to the server: register a version, take runs, keep and report them.

Nothing is retried here but uploads: the supervisor knows best what is still worth sending.
"""

from typing import TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from runwell.client.api import ApiClient
from runwell.client.options import Retry
from runwell.client.packets import upload_flow
from runwell.client.transport import Call, ClientSettings, RequestOptions, Transport
from runwell.core import failpoints
from runwell.core.protocol import (
    ConnectBody,
    DequeueAnswer,
    DequeueBody,
    DisconnectBody,
    HeartbeatAnswer,
    HeartbeatBody,
    RegisterAnswer,
    RegisterBody,
    ReportAnswer,
    ReportBody,
)
from runwell.core.variable_schemas import AllVariables, ConnectedAnswer
from runwell.core.waits import ResumeAnswer, ResumeBody, WaitAnswer, WaitBody

AnswerT = TypeVar("AnswerT", bound=BaseModel)

_TIMEOUT_SECONDS = 15.0
_ONCE = Retry(max_attempts=1)
_UPLOAD = RequestOptions(
    retry=Retry(max_attempts=3, min_timeout=0.2, factor=2, randomize=True), timeout=60
)


class WorkerClient:
    """The worker's side of the worker API; raises the ApiError tree, ApiConnectionError included.

    A call waits `timeout_seconds` for its answer, and as much longer as it asks the server to wait.
    """

    def __init__(
        self,
        url: str,
        secret_key: str,
        *,
        timeout_seconds: float = _TIMEOUT_SECONDS,
        transport: Transport | None = None,
    ) -> None:
        settings = ClientSettings(base_url=url, secret_key=secret_key, retry=_ONCE)
        self._client = ApiClient(lambda: settings, transport)
        self._timeout_seconds = timeout_seconds

    async def register(self, ref: str, body: RegisterBody) -> RegisterAnswer:
        """Register a version of a project's tasks; `~` is the project of the key."""
        path = f"/api/v1/projects/{quote(ref, safe='~')}/background-workers"
        return await self._post(path, body, RegisterAnswer)

    async def connect(self, body: ConnectBody) -> ConnectedAnswer:
        """Tell that a supervisor starts, and learn who it is."""
        return await self._act("connect", body, ConnectedAnswer)

    async def dequeue(self, body: DequeueBody) -> DequeueAnswer:
        """Ask for runs; the server waits up to `wait_ms` for some."""
        return await self._act("dequeue", body, DequeueAnswer, wait_ms=body.wait_ms)

    async def heartbeat(self, body: HeartbeatBody) -> HeartbeatAnswer:
        """Renew the leases; the server waits up to `wait_ms` for a run to be canceled."""
        return await self._act("heartbeat", body, HeartbeatAnswer, wait_ms=body.wait_ms)

    async def report(self, body: ReportBody) -> ReportAnswer:
        """Report what happened to runs, in the order it happened."""
        return await self._act("report", body, ReportAnswer)

    async def upload(self, path: str, data: bytes, data_type: str) -> None:
        """Send a packet to the object store; tried again for a second or two."""
        await self._client.run(upload_flow(self._client, path, data, data_type, _UPLOAD))

    async def read_variables(self) -> AllVariables:
        """Ask for the environment variables that runs are to find."""
        call = Call(
            method="GET",
            path="/api/v1/projects/~/envvars",
            options=RequestOptions(timeout=self._timeout_seconds),
        )
        return await self._client.run(self._client.ask(call, AllVariables))

    async def wait(self, body: WaitBody) -> WaitAnswer:
        """Tell what a run waits for."""
        return await self._act("wait", body, WaitAnswer)

    async def resume(self, body: ResumeBody) -> ResumeAnswer:
        """Ask for the results of waits; the server waits up to `wait_ms` for some."""
        return await self._act("resume", body, ResumeAnswer, wait_ms=body.wait_ms)

    async def disconnect(self, body: DisconnectBody) -> None:
        """Tell that a supervisor ends; what it still holds goes back to its queue."""
        await self._client.run(self._client.request(self._call(_action("disconnect"), body, 0)))

    async def _act(
        self, action: str, body: BaseModel, answer: type[AnswerT], *, wait_ms: int = 0
    ) -> AnswerT:
        if failpoints.ARE_ON:
            failpoints.reach("send", scope=f"worker-{action}")
        answered = await self._post(_action(action), body, answer, wait_ms=wait_ms)
        if failpoints.ARE_ON:
            failpoints.reach("answered", scope=f"worker-{action}")
        return answered

    async def _post(
        self, path: str, body: BaseModel, answer: type[AnswerT], *, wait_ms: int = 0
    ) -> AnswerT:
        return await self._client.run(self._client.ask(self._call(path, body, wait_ms), answer))

    def _call(self, path: str, body: BaseModel, wait_ms: int) -> Call:
        return Call(
            method="POST",
            path=path,
            body=body.model_dump_json(by_alias=True, exclude_none=True).encode(),
            options=RequestOptions(timeout=self._timeout_seconds + wait_ms / 1000),
        )


def _action(name: str) -> str:
    return f"/engine/v1/worker-actions/{name}"
