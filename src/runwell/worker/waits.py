"""The supervisor's part in waits: tells the server what its runs wait for, and brings them results.

Each run's waits are told one call after the other, so that the server hears of them in their order;
the calls of different runs go side by side. Results are asked for by one call for all runs, and
given by the server until it was told, in a later call of either kind, that the run has them.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from runwell.client.transport import ApiError
from runwell.client.workers import WorkerClient
from runwell.core.errors import StringError
from runwell.core.protocol import MAX_POLL_MS
from runwell.core.waits import (
    MAX_WAITS,
    CompletedWait,
    ReceivedWait,
    ResumeBody,
    Wait,
    WaitBody,
    WaitOutcome,
)
from runwell.worker.controller import Wish
from runwell.worker.link import ServerLink
from runwell.worker.messages import WaitOrder
from runwell.worker.records import now
from runwell.worker.run_process import RunProcess
from runwell.worker.session import Session

_PAUSE_AFTER_REFUSAL_SECONDS = 1.0


@dataclass
class _RunWaits:
    """What is known of the waits of one run."""

    run: RunProcess
    pending: set[str] = field(default_factory=set[str])
    #: Results that the run has and the server has not heard of: they are named until it has.
    received: dict[str, None] = field(default_factory=dict[str, None])
    orders: list[WaitOrder] = field(default_factory=list[WaitOrder])
    is_sending: bool = False
    #: How many it was given: a run that said it was blocked before it had seen them all is not.
    results: int = 0


class Waits:
    """The waits of all runs that the worker holds."""

    def __init__(
        self,
        client: WorkerClient,
        link: ServerLink,
        session: Session,
        held: Mapping[str, RunProcess],
        on_room: Callable[[], None],
    ) -> None:
        self._client = client
        self._link = link
        self._session = session
        self._held = held
        self._on_room = on_room
        self._runs: dict[RunProcess, _RunWaits] = {}
        self._has_orders = asyncio.Event()
        self._has_pending = asyncio.Event()

    @property
    def blocked(self) -> int:
        """How many runs wait and can do nothing else: they take no place."""
        return sum(run.controller.is_blocked for run in self._runs)

    def begin(self, run: RunProcess, order: WaitOrder) -> None:
        """A run begins waits, or gives some up."""
        waits = self._runs.setdefault(run, _RunWaits(run))
        waits.orders.append(order)
        waits.pending.update(wait.wait_id for wait in order.waits)
        for wait_id in order.forgotten:
            waits.pending.discard(wait_id)
            waits.received[wait_id] = None
        self._has_orders.set()
        if waits.pending:
            self._has_pending.set()

    def end(self, run: RunProcess) -> None:
        """A run is over, and waits for nothing."""
        self._runs.pop(run, None)

    async def tell(self) -> None:
        """Tell the server what runs wait for, for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._has_orders.wait()
                self._has_orders.clear()
                for waits in self._runs.values():
                    if waits.orders and not waits.is_sending:
                        waits.is_sending = True
                        group.create_task(self._tell_orders(waits), name="wait")

    async def listen(self) -> None:
        """Bring runs their results, for ever."""
        while True:
            if not any(waits.pending or waits.received for waits in self._runs.values()):
                self._has_pending.clear()
                await self._has_pending.wait()
            received = [
                ReceivedWait(
                    run_id=run.run.run_id, snapshot_id=run.run.snapshot_id, wait_id=wait_id
                )
                for run, waits in self._runs.items()
                for wait_id in waits.received
            ][:MAX_WAITS]
            body = ResumeBody(
                worker_id=self._session.worker_id, received=received, wait_ms=MAX_POLL_MS
            )
            try:
                answer = await self._link.call(lambda body=body: self._client.resume(body))
            except ApiError:
                # Whatever it refuses, the heartbeat hears it too and connects anew.
                await asyncio.sleep(_PAUSE_AFTER_REFUSAL_SECONDS)
                continue
            self._confirm(received)
            for wait in answer.waits:
                self._bring(wait)

    async def _tell_orders(self, waits: _RunWaits) -> None:
        run = waits.run
        try:
            while waits.orders and not run.has_ended:
                orders, waits.orders = waits.orders, []
                await self._tell_once(waits, orders)
        finally:
            waits.is_sending = False

    async def _tell_once(self, waits: _RunWaits, orders: list[WaitOrder]) -> None:
        run = waits.run
        new = [wait for order in orders for wait in order.waits if wait.wait_id in waits.pending]
        received = list(waits.received)
        results = waits.results
        body = WaitBody(
            worker_id=self._session.worker_id,
            run_id=run.run.run_id,
            snapshot_id=run.run.snapshot_id,
            started_at=datetime.fromtimestamp(run.controller.started_at or now(), UTC),
            waits=new,
            # What the run said last holds, unless a result crossed it on the way.
            is_blocked=orders[-1].is_blocked and orders[-1].seen == results,
            received=received,
        )
        try:
            answer = await self._link.call(lambda: self._client.wait(body))
        except ApiError as error:
            self._refuse(waits, new, f"the server refuses to wait: {error}")
            return
        if answer.is_lost:
            if not run.has_ended:
                run.stop(Wish.LOSE)
            return
        for wait_id in received:
            waits.received.pop(wait_id, None)
        for refusal in answer.refused:
            waits.results += 1
            waits.pending.discard(refusal.wait_id)
            run.give_result(WaitOutcome(wait_id=refusal.wait_id, error=refusal.error))
        if answer.is_blocked and waits.results == results and not run.has_ended:
            run.block()
            self._on_room()

    def _refuse(self, waits: _RunWaits, new: list[Wait], reason: str) -> None:
        for wait in new:
            waits.results += 1
            waits.pending.discard(wait.wait_id)
            waits.run.give_result(WaitOutcome(wait_id=wait.wait_id, error=StringError(raw=reason)))

    def _confirm(self, received: list[ReceivedWait]) -> None:
        for wait in received:
            run = self._held.get(wait.run_id)
            waits = None if run is None else self._runs.get(run)
            if waits is not None and waits.run.run.snapshot_id == wait.snapshot_id:
                waits.received.pop(wait.wait_id, None)

    def _bring(self, wait: CompletedWait) -> None:
        run = self._held.get(wait.run_id)
        waits = None if run is None else self._runs.get(run)
        if run is None or waits is None or run.run.snapshot_id != wait.snapshot_id:
            return
        waits.received[wait.wait_id] = None
        if wait.wait_id not in waits.pending:
            # It has it: only the server hadn't heard of that.
            return
        waits.pending.discard(wait.wait_id)
        waits.results += 1
        if run.controller.is_blocked:
            run.unblock()
        run.give_result(WaitOutcome(wait_id=wait.wait_id, results=wait.results))
