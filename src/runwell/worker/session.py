"""Who this worker is to the server: connecting, taking over from a killed one, leaving."""

import asyncio
import contextlib
from collections.abc import Callable
from itertools import groupby

from runwell._version import __version__
from runwell.client.transport import ApiError
from runwell.client.workers import WorkerClient
from runwell.core.protocol import ConnectBody, DisconnectBody, ReportBody
from runwell.worker.events import ReportRefused, WorkerConnected, WorkerEvent
from runwell.worker.link import ServerLink
from runwell.worker.messages import Surroundings
from runwell.worker.outbox import Leftover, Outbox
from runwell.worker.settings import WorkerSettings
from runwell.worker.state_folder import StateFolder
from runwell.worker.variables import RunVariables

_MAX_LEFTOVERS_PER_CALL = 20


class Session:
    """The id under which the server knows this worker, renewed when it no longer does."""

    def __init__(
        self,
        settings: WorkerSettings,
        client: WorkerClient,
        link: ServerLink,
        folder: StateFolder,
        variables: RunVariables,
        tell: Callable[[WorkerEvent], None],
    ) -> None:
        self._settings = settings
        self._client = client
        self._link = link
        self._folder = folder
        self._variables = variables
        self._tell = tell
        self._lock = asyncio.Lock()
        self._surroundings: Surroundings | None = None
        self.worker_id = ""
        self.heartbeat_seconds = 0.0

    @property
    def surroundings(self) -> Surroundings:
        """Where the runs of this worker run; known once it is connected."""
        assert self._surroundings is not None
        return self._surroundings

    async def connect(self, outbox: Outbox) -> None:
        """Deliver what a predecessor left, then take its place.

        In this order, since its results are worth something only while its runs are still its own.
        """
        await self._deliver_leftovers(outbox)
        await self._connect(self._folder.read_worker_id())
        outbox.name_worker(self.worker_id)

    async def reconnect(self, outbox: Outbox, known_as: str) -> None:
        """The server does not know us as `known_as` any more: its runs are others' now."""
        async with self._lock:
            # Several conversations find out at once; the first one does it.
            if self.worker_id == known_as:
                await self._connect(None)
                outbox.name_worker(self.worker_id)

    async def disconnect(self) -> None:
        """Leave; what the server thinks we hold goes back. Raises ApiError without an answer."""
        await self._client.disconnect(DisconnectBody(worker_id=self.worker_id))
        self._folder.write_worker_id(None)

    async def _connect(self, previous: str | None) -> None:
        body = ConnectBody(
            name=self._settings.name[:256] or "worker",
            capacity=self._settings.capacity,
            package_version=__version__,
            previous_worker_id=previous,
            region=self._settings.region,
        )
        answer = await self._link.call(lambda: self._client.connect(body))
        self.worker_id = answer.worker_id
        self.heartbeat_seconds = answer.heartbeat_seconds
        self._surroundings = Surroundings(
            organization=answer.organization,
            project=answer.project,
            environment=answer.environment,
        )
        self._variables.learn(answer)
        self._folder.write_worker_id(answer.worker_id)
        self._tell(
            WorkerConnected(
                worker_id=answer.worker_id,
                environment_slug=answer.environment.slug,
                project_ref=answer.project.ref,
            )
        )

    async def _deliver_leftovers(self, outbox: Outbox) -> None:
        for worker_id, group in groupby(outbox.leftovers, lambda left: left.worker_id):
            leftovers = [*group]
            for start in range(0, len(leftovers), _MAX_LEFTOVERS_PER_CALL):
                await self._deliver(worker_id, leftovers[start : start + _MAX_LEFTOVERS_PER_CALL])
                outbox.acknowledge(leftovers[start : start + _MAX_LEFTOVERS_PER_CALL][-1].number)
        outbox.leftovers.clear()

    async def _deliver(self, worker_id: str, leftovers: list[Leftover]) -> None:
        body = ReportBody(worker_id=worker_id, reports=[left.report for left in leftovers])
        try:
            await self._link.call(lambda: self._client.report(body))
        except ApiError as error:
            if len(leftovers) > 1:
                for left in leftovers:
                    await self._deliver(worker_id, [left])
            else:
                run_id = leftovers[0].report.run_id
                self._tell(ReportRefused(run_id=run_id, message=str(error)))


async def leave(session: Session, seconds: float) -> None:
    """Disconnect if the server is there to hear of it; else its runs' leases just end."""
    with contextlib.suppress(ApiError, TimeoutError):
        async with asyncio.timeout(seconds):
            await session.disconnect()
