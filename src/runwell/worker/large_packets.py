"""Large payloads and outputs, on their way between the object store and a run.

The process of a run fetches its payload. The supervisor sends its output, which is on the worker's
disk until the server has answered: a process of a run doesn't outlive an outage.
"""

import asyncio
from collections.abc import Callable

from runwell.client.api import ApiClient
from runwell.client.packets import fetch_flow, is_large
from runwell.client.transport import ApiError, NotFoundError, read_environment
from runwell.client.workers import WorkerClient
from runwell.core.errors import RunwellError
from runwell.core.payloads import STORE_TYPE, Json
from runwell.core.protocol import CompleteReport, RunReport
from runwell.worker.events import OutputKeptInline, WorkerEvent
from runwell.worker.link import ServerLink

# After a failed upload the next ones aren't tried for so long.
_FAILING_SECONDS = 10.0


class StoredPayloadError(RunwellError):
    """A payload can't be had from the object store; one that `is_gone` won't come back."""

    def __init__(self, message: str, *, is_gone: bool) -> None:
        super().__init__(message)
        self.is_gone = is_gone


def fetch_payload(path: str) -> Json:
    """The payload of a packet; raises StoredPayloadError or InvalidPayloadError."""
    # Not the client that the user may have configured: this is about the worker's own server.
    client = ApiClient(read_environment)
    try:
        return client.run_blocking(fetch_flow(client, path))
    except NotFoundError as error:
        raise StoredPayloadError(
            f"the run's payload is not in the object store any more (packet {path}): {error}",
            is_gone=True,
        ) from error
    except ApiError as error:
        raise StoredPayloadError(
            f"the run's payload can't be fetched from the object store (packet {path}): {error}",
            is_gone=False,
        ) from error


class LargeOutputs:
    """Sends large outputs to the object store before they are reported."""

    def __init__(
        self, client: WorkerClient, link: ServerLink, tell: Callable[[WorkerEvent], None]
    ) -> None:
        self._client = client
        self._link = link
        self._tell = tell
        self._is_failing_until = 0.0

    async def settle(self, report: RunReport) -> RunReport:
        """What to report: as it is, or with the path of its output in place of a large one.

        A server or store that can't be reached keeps nobody waiting: the report then carries the
        output, and goes out when the server is back.
        """
        if not isinstance(report, CompleteReport) or report.output is None:
            return report
        now = asyncio.get_running_loop().time()
        if now < self._is_failing_until or self._link.is_away or not is_large(report.output):
            return report
        path = f"{report.run_id}/{report.snapshot_id}/output.json"
        try:
            await self._client.upload(path, report.output.encode(), report.output_type)
        except ApiError as error:
            # Other runs' reports have waited for this one: the next ones don't.
            self._is_failing_until = now + _FAILING_SECONDS
            self._tell(OutputKeptInline(run_id=report.run_id, message=str(error)))
            return report
        return report.model_copy(update={"output": path, "output_type": STORE_TYPE})
