"""Taking runs from the server, up to what the worker can hold."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Protocol

from runwell.client.transport import ApiError
from runwell.client.workers import WorkerClient
from runwell.core.ids import make_request_key
from runwell.core.protocol import MAX_POLL_MS, MAX_RUNS_PER_DEQUEUE, DequeueBody, DequeuedRun
from runwell.worker.contention import Contention
from runwell.worker.link import ServerLink
from runwell.worker.outbox import Outbox
from runwell.worker.session import Session
from runwell.worker.variables import RunVariables

# A question was withdrawn while the server may have been answering it: without a version that could
# take new runs, it is asked for this long what it gave.
_UNCERTAIN_MS = 2_000
# Where many runs wait and processors are short, places are let gather for so long: the next call
# then takes several runs at once, at a third of what one call for each costs all that share them.
_GATHER_SECONDS = 0.01


class Room(Protocol):
    """Who says how many runs there is room for, and takes them."""

    def free_places(self) -> int:
        """How many runs may be taken now."""
        ...

    def is_half_empty(self) -> bool:
        """Whether so few are running that it is high time for more."""
        ...

    def usable_versions(self) -> list[str]:
        """The background workers whose runs can run here."""
        ...

    def take_runs(self, runs: Sequence[DequeuedRun]) -> None:
        """These are ours now."""
        ...


class Intake:
    """The conversation about new runs."""

    def __init__(
        self,
        client: WorkerClient,
        link: ServerLink,
        session: Session,
        outbox: Outbox,
        variables: RunVariables,
        room: Room,
        contention: Contention,
    ) -> None:
        self._client = client
        self._link = link
        self._session = session
        self._outbox = outbox
        self._variables = variables
        self._room = room
        self._contention = contention
        self._is_more_waiting = False
        self._request_id = make_request_key()
        self._is_ending = False
        self._is_uncertain = False
        self._changed = asyncio.Event()
        self._polling: asyncio.Task[list[DequeuedRun]] | None = None
        self._polled_versions: list[str] = []

    def note_room(self) -> None:
        """There is room for more runs than when this was last looked at."""
        self._changed.set()

    def note_versions(self) -> None:
        """There are other versions than when this was last looked at."""
        self._changed.set()
        is_outdated = self._polled_versions != self._room.usable_versions()
        if self._polling is not None and is_outdated:
            # It waits for runs of the versions that were there before. What its answer had already
            # is given again to the same request.
            self._polling.cancel()

    async def take(self) -> None:
        """Ask for runs whenever there is room, until `end`."""
        while not self._is_ending:
            self._changed.clear()
            if self._is_more_waiting and self._contention.is_high:
                await self._gather()
            places, versions = self._room.free_places(), self._room.usable_versions()
            if not places:
                versions = []
            if not versions and not self._is_uncertain:
                await self._changed.wait()
                continue
            worker_id = self._session.worker_id
            body = DequeueBody(
                worker_id=worker_id,
                request_id=self._request_id,
                background_worker_ids=versions[:100],
                max_runs=min(max(places, 1), MAX_RUNS_PER_DEQUEUE),
                wait_ms=MAX_POLL_MS if versions else _UNCERTAIN_MS,
            )
            try:
                runs = await self._ask(body)
            except ApiError:
                await self._session.reconnect(self._outbox, worker_id)
            else:
                self._is_uncertain = runs is None
                if runs is None:
                    continue
                self._is_more_waiting = len(runs) == body.max_runs
                self._room.take_runs(runs)
            self._request_id = make_request_key()

    async def end(self, seconds: float) -> None:
        """Ask no more, and take what the answer to a question under way would have brought.

        No version can take a run that is new, so the server gives only what it has given already.
        """
        self._is_ending = True
        self._changed.set()
        if self._polling is None:
            return
        self._polling.cancel()
        body = DequeueBody(
            worker_id=self._session.worker_id,
            request_id=self._request_id,
            background_worker_ids=[],
            max_runs=1,
        )
        # Without an answer the server takes such a run back by itself, only later.
        with contextlib.suppress(ApiError, TimeoutError):
            async with asyncio.timeout(seconds):
                answer = await self._client.dequeue(body)
                self._room.take_runs(answer.runs)

    async def _gather(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GATHER_SECONDS):
                while not self._room.is_half_empty() and not self._is_ending:
                    await self._changed.wait()
                    self._changed.clear()

    async def _ask(self, body: DequeueBody) -> list[DequeuedRun] | None:
        """The runs; None when the question changed while it was asked."""
        self._polled_versions = body.background_worker_ids
        self._polling = asyncio.create_task(self._dequeue(body), name="dequeue")
        try:
            return await self._polling
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            return None
        finally:
            self._polling.cancel()
            self._polling = None

    async def _dequeue(self, body: DequeueBody) -> list[DequeuedRun]:
        answer = await self._link.call(lambda: self._client.dequeue(body))
        if answer.variables_version is not None:
            # Before they start: a deleted or replaced value must not be found any more.
            await self._variables.catch_up(answer.variables_version)
        return answer.runs
