"""Saying that the worker lives, and hearing which of its runs are to stop.

It runs in the supervisor's event loop, which no user code ever blocks.
"""

import asyncio
from collections.abc import Callable, Mapping

from runwell.client.transport import ApiError
from runwell.client.workers import WorkerClient
from runwell.core.protocol import HeartbeatBody, HeldRun
from runwell.worker.controller import Wish
from runwell.worker.link import ServerLink
from runwell.worker.outbox import Outbox
from runwell.worker.run_process import RunProcess
from runwell.worker.session import Session

# The server tells of runs that it was asked about: one that was taken meanwhile is in the next one.
_POLL_SECONDS = 1.0
# A run that takes its time to stop is told of again and again; that must not make a hot loop.
_REPEATED_SECONDS = 0.25


class Heartbeat:
    """The conversation about the lease."""

    def __init__(
        self,
        client: WorkerClient,
        link: ServerLink,
        session: Session,
        outbox: Outbox,
        held: Mapping[str, RunProcess],
        unacknowledged: Mapping[str, int],
        usable_versions: Callable[[], list[str]],
    ) -> None:
        self._client = client
        self._link = link
        self._session = session
        self._outbox = outbox
        self._held = held
        self._unacknowledged = unacknowledged
        self._usable_versions = usable_versions

    async def beat(self) -> None:
        """Keep the lease, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            began_at = loop.time()
            worker_id = self._session.worker_id
            # A run whose result is still on its way is named too, or it would be taken from us.
            named = {
                **self._unacknowledged,
                **{run_id: run.run.snapshot_id for run_id, run in self._held.items()},
            }
            try:
                was_news = await self._beat_once(worker_id, named)
            except ApiError:
                # The lease has ended while we could not reach the server: start anew.
                await self._session.reconnect(self._outbox, worker_id)
                continue
            if not was_news and loop.time() - began_at < _REPEATED_SECONDS:
                await asyncio.sleep(_REPEATED_SECONDS)

    async def _beat_once(self, worker_id: str, named: dict[str, int]) -> bool:
        wait_seconds = min(self._session.heartbeat_seconds, _POLL_SECONDS)
        body = HeartbeatBody(
            worker_id=worker_id,
            runs=[HeldRun(run_id=run_id, snapshot_id=lease) for run_id, lease in named.items()],
            background_worker_ids=self._usable_versions(),
            wait_ms=round(wait_seconds * 1000),
        )
        # While the server is away the same list is sent again; what is said of runs that have ended
        # meanwhile means nothing.
        answer = await self._link.call(lambda: self._client.heartbeat(body))
        was_news = False
        for wish, run_ids in ((Wish.LOSE, answer.lost), (Wish.CANCEL, answer.canceled)):
            for run_id in run_ids:
                run = self._held.get(run_id)
                # It may have ended, and may even be here again under another lease.
                if run is not None and run.run.snapshot_id == named.get(run_id):
                    was_news = was_news or run.controller.wish is not wish
                    run.stop(wish)
        return was_news
